//! Reads what Traefik's file provider reads: keys in any case, and scalars in any notation.
//!
//! Traefik flattens a file to names and texts before it types them (its library `paerser`), so `Rule` is `rule`, `"3"` is
//! a number where one is wanted, `404` a text, and `compress: true` an empty group. This does the same between a tree
//! without types and the typed model of `proto`, which says what is wanted where. What is null was not given.

use std::vec;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};
use serde_json::{Error, Map, Number, Value, map};

/// A tree that is read leniently.
pub(super) struct Lenient(pub(super) Value);

impl<'de> Deserializer<'de> for Lenient {
    type Error = Error;

    /// Where the type takes anything: a duration, or what a plugin is told.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match text(&self.0).as_deref() {
            // As Go's strconv.ParseBool.
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => visitor.visit_bool(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => visitor.visit_bool(false),
            _ => self.0.deserialize_bool(visitor),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match text(&self.0).and_then(|text| text.parse().ok()) {
            Some(number) => visitor.visit_i64(number),
            None => self.0.deserialize_i64(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match text(&self.0) {
            Some(text) => visitor.visit_string(text),
            None => self.0.deserialize_string(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Array(items) = self.0 else { return self.0.deserialize_seq(visitor) };
        visitor.visit_seq(Items(items.into_iter()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Object(fields) = self.0 else { return self.0.deserialize_map(visitor) };
        visitor.visit_map(Fields::new(fields, &[]))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let empty = text(&self.0).is_some_and(|text| text.eq_ignore_ascii_case("true"));
        match self.0 {
            Value::Object(fields) => visitor.visit_map(Fields::new(fields, known)),
            _ if empty => visitor.visit_map(Fields::new(Map::new(), known)),
            // Not by the order of the fields, as serde would.
            Value::Array(_) => Err(Error::custom("a list stands where a group of options is wanted")),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => self.0.deserialize_map(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let text = text(&self.0).ok_or_else(|| Error::custom("a word is wanted"))?;
        IntoDeserializer::<Error>::into_deserializer(text).deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct ignored_any
    }
}

/// A scalar as paerser writes it.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) if number.is_f64() => number.as_f64().map(decimal),
        Value::Number(number) => Some(Number::to_string(number)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn decimal(number: f64) -> String {
    let text = format!("{number:.6}");
    text.strip_suffix(".000000").map_or(text.clone(), str::to_owned)
}

struct Items(vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for Items {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(item) = self.0.next() else { return Ok(None) };
        let item = if let Value::String(text) = item { Value::String(text.trim().to_owned()) } else { item };
        seed.deserialize(Lenient(item)).map(Some)
    }
}

/// The fields of a group, each under the name that the model has for it; without any, those of a map as they stand.
struct Fields {
    known: &'static [&'static str],
    rest: map::IntoIter,
    value: Option<Value>,
}

impl Fields {
    fn new(fields: Map<String, Value>, known: &'static [&'static str]) -> Self {
        Self { known, rest: fields.into_iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Fields {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.rest.by_ref().find(|(_, value)| !value.is_null()) else { return Ok(None) };
        self.value = Some(value);
        let known = self.known.iter().find(|known| known.eq_ignore_ascii_case(&key));
        let key = known.map_or(key, |known| (*known).to_owned());
        seed.deserialize(Value::String(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Lenient(self.value.take().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use charliehub_proto::traefik::Configuration;
    use serde::Deserialize as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_in_any_case_and_scalars_in_any_notation() {
        let given = json!({
            "HTTP": {
                "ROUTERS": {"Shop": {"Rule": "Host(`a.org`)", "service": "s", "priority": "42", "tls": true,
                    "entrypoints": [" web ", 8080]}},
                "middlewares": {
                    "err": {"errors": {"status": [404, "500-599"], "service": "s", "statusrewrites": {"418": "404"}}},
                    "gzip": {"compress": "TRUE"},
                    "headers": {"headers": {"stsSeconds": 10.0, "framedeny": "T", "customRequestHeaders": {"X-N": 1.5}}},
                    "nothing": null,
                },
                "services": {"s": {"loadbalancer": {"passhostheader": 0, "healthcheck": {"PATH": "/", "interval": 10},
                    "sticky": {"cookie": {"samesite": "lax"}}, "servers": [{"URL": "http://a:1", "weight": "3"}]}}},
            },
        });
        let wanted = json!({
            "http": {
                "routers": {"Shop": {"entryPoints": ["web", "8080"], "rule": "Host(`a.org`)", "service": "s",
                    "priority": 42, "tls": {}}},
                "middlewares": {
                    "err": {"errors": {"status": ["404", "500-599"], "service": "s", "statusRewrites": {"418": 404}}},
                    "gzip": {"compress": {}},
                    "headers": {"headers": {"stsSeconds": 10, "frameDeny": true, "customRequestHeaders": {"X-N": "1.500000"}}},
                },
                "services": {"s": {"loadBalancer": {"passHostHeader": false,
                    "healthCheck": {"path": "/", "interval": "10s"}, "sticky": {"cookie": {"sameSite": "lax"}},
                    "servers": [{"url": "http://a:1", "weight": 3}]}}},
            },
        });
        let typed = Configuration::deserialize(Lenient(given)).unwrap();
        assert_eq!(serde_json::to_value(typed).unwrap(), wanted);
    }

    #[test]
    fn what_traefik_refuses_is_refused() {
        for (given, said) in [
            (json!({"http": {"routers": {"r": {"rulle": "x"}}}}), "unknown field `rulle`"),
            (json!({"http": {"routers": {"r": {"entryPoints": "web"}}}}), "expected a sequence"),
            (json!({"http": {"routers": {"r": {"priority": "high"}}}}), "expected i64"),
            (json!({"http": {"middlewares": {"m": {"addPrefix": ["/a"]}}}}), "a list stands"),
            (json!({"http": {"middlewares": {"m": {"headers": {"frameDeny": "yes"}}}}}), "expected a boolean"),
        ] {
            let error = Configuration::deserialize(Lenient(given.clone())).unwrap_err().to_string();
            assert!(error.contains(said), "{given}: {error}");
        }
    }
}
