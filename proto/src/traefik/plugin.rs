//! What may be said to a plugin: any JSON, were it not for the way it takes through Traefik's decoder.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

/// A plugin's own configuration: JSON without what Traefik's decoder loses, refuses, or dies of. Plugins get every scalar
/// that is not in a list as a string.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "Value")]
pub enum Setting {
    Flag(bool),
    Number(Number),
    Text(String),
    List(Vec<Setting>),
    Group(BTreeMap<String, Setting>),
}

impl TryFrom<Value> for Setting {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        Ok(match value {
            Value::Null => return Err("null cannot be handed to a plugin: leave it out"),
            Value::Bool(flag) => Self::Flag(flag),
            // in a list, it panics in Traefik's only configuration goroutine: no change gets in until a restart
            Value::Number(number) if number.is_u64() && !number.is_i64() => {
                return Err("a whole number for a plugin must be less than 2^63");
            }
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::Text(text),
            Value::Array(items) => {
                let items = items.into_iter().map(Self::try_from).collect::<Result<Vec<_>, _>>()?;
                let alike = |of: fn(&Self) -> bool| items.iter().all(of);
                if items.is_empty() {
                    return Err("an empty list reaches a plugin as an empty string: leave it out");
                }
                if !(alike(|item| matches!(item, Self::Flag(_)))
                    || alike(|item| matches!(item, Self::Number(_)))
                    || alike(|item| matches!(item, Self::Text(_)))
                    || alike(|item| matches!(item, Self::Group(_))))
                {
                    return Err("a list for a plugin must be all flags, all numbers, all texts or all groups");
                }
                Self::List(items)
            }
            Value::Object(fields) if fields.is_empty() => {
                return Err("an empty group reaches a plugin as an empty string: leave it out");
            }
            Value::Object(fields) if fields.keys().any(|name| in_brackets(name)) => {
                return Err("a group with a name in brackets reaches a plugin as a list: rename it");
            }
            Value::Object(fields) => {
                let typed = fields.into_iter().map(|(name, value)| Ok((name, Self::try_from(value)?)));
                Self::Group(typed.collect::<Result<_, Self::Error>>()?)
            }
        })
    }
}

/// How Traefik's decoder marks the items of a list.
pub(crate) fn in_brackets(name: &str) -> bool {
    name.starts_with('[') && name.ends_with(']')
}
