//! How an option of Traefik's becomes a field of ours: one macro for groups of options, one for closed lists of words.
//!
//! Traefik reads our JSON through a decoder that refuses the whole configuration for one empty object in the wrong
//! place. So no field is written that says nothing: no `null`, `false`, `""`, `[]`, and no `{}` but in the few groups
//! where Traefik gives `{}` a meaning (`may_be_empty`). Leaving these out changes nothing: what Traefik defaults to
//! something else is an `Option` here, and `Some(false)` is written.

/// What the fields of a group need to know about their values.
pub(crate) trait Field {
    /// True when a field with this value is left out.
    fn absent(&self) -> bool;

    /// True when `Some` of this value is left out too.
    fn hollow(&self) -> bool {
        false
    }
}

impl<T: Field> Field for Option<T> {
    fn absent(&self) -> bool {
        self.as_ref().is_none_or(Field::hollow)
    }
}

impl<T> Field for Vec<T> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Field for std::collections::BTreeMap<K, V> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

impl Field for String {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

impl Field for bool {
    fn absent(&self) -> bool {
        !self
    }
}

impl Field for i64 {
    fn absent(&self) -> bool {
        false
    }
}

/// Groups of options: every field optional, unknown ones refused, JSON names in camelCase, written in this order.
macro_rules! options {
    ($($(#[$meta:meta])* pub struct $name:ident $([$empty:ident])? {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "camelCase")]
        pub struct $name {
            $($(#[$field_meta])* #[serde(skip_serializing_if = "crate::traefik::options::Field::absent")] pub $field: $type,)*
        }

        impl crate::traefik::options::Field for $name {
            fn absent(&self) -> bool {
                self.hollow()
            }

            fn hollow(&self) -> bool {
                !crate::traefik::options::may_be_empty!($($empty)?)
                    $(&& crate::traefik::options::Field::absent(&self.$field))*
            }
        }
    )*};
}

macro_rules! may_be_empty {
    () => {
        false
    };
    (may_be_empty) => {
        true
    };
}

/// Closed lists of words, each with Traefik's spelling.
macro_rules! choices {
    ($($(#[$meta:meta])* pub enum $name:ident { $($variant:ident = $word:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $(#[serde(rename = $word)] $variant,)*
        }

        impl crate::traefik::options::Field for $name {
            fn absent(&self) -> bool {
                false
            }
        }
    )*};
}

pub(crate) use {choices, may_be_empty, options};
