//! The bytes that Traefik gets, and what its decoder cannot take.
//!
//! Traefik reads JSON with a YAML 1.1 reader, then flattens it to strings joined by `║` before it types them. So JSON
//! that is right can still be refused, and one refusal keeps the whole configuration out: such input is refused here.

use std::io;

use serde::Serialize;
use serde_json::{Value, ser::Formatter};

use super::invalid::{Invalid, join};

/// Traefik's decoder splits every string of a list at this character.
const SEPARATOR: char = '║';
/// The YAML reader gives up on keys of 1024 characters, with quotes and escapes.
const MAX_KEY: usize = 1000;

/// Minimal JSON, escaped so that the YAML reader takes it.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, ForYaml);
    #[expect(
        clippy::expect_used,
        reason = "string keys, finite numbers and memory: serde_json has nothing to fail on"
    )]
    value.serialize(&mut serializer).expect("plain data");
    String::from_utf8(bytes).unwrap_or_default()
}

/// YAML refuses these raw, or folds them to a blank as line breaks.
struct ForYaml;

impl Formatter for ForYaml {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.bytes().all(|byte| byte < 0x7f) {
            return writer.write_all(fragment.as_bytes()); // nearly always; spares looking at each character
        }
        let mut rest = fragment;
        while let Some(at) = rest.find(is_special) {
            let (before, from) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            let mut chars = from.chars();
            if let Some(special) = chars.next() {
                write!(writer, "\\u{:04x}", u32::from(special))?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

fn is_special(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Refuses what is JSON, but breaks Traefik's decoder wherever it stands.
pub(crate) fn decodable(value: &Value) -> Result<(), Invalid> {
    match value {
        Value::String(text) if text.contains(SEPARATOR) => {
            Err(Invalid::new("", format!("must not contain {SEPARATOR}: Traefik's decoder splits there")))
        }
        Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(i, item)| decodable(item).map_err(|e| e.under(&format!("[{i}]"))))
        }
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            if key.is_empty() || key.contains(SEPARATOR) || to_json(key).chars().count() > MAX_KEY {
                let shown: String = key.chars().take(40).collect();
                return Err(Invalid::new(shown, "not a name that Traefik's decoder takes: empty, too long, or with ║"));
            }
            decodable(value).map_err(|error| error.under(key))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Refuses what typing took, and we would not write: empty objects, and lists where serde takes the fields of an object
/// by their order.
pub(crate) fn nothing_lost(given: &Value, written: &Value) -> Result<(), Invalid> {
    const EMPTY: &str =
        "is empty: Traefik ignores that, or refuses the whole configuration for it; leave it out or fill it";
    const LIST: &str = "must be an object, not a list";
    match (given, written) {
        (Value::Object(given), Value::Object(written)) => given.iter().try_for_each(|(key, value)| {
            let found = match (value, written.get(key)) {
                (Value::Object(_), None) => Err(Invalid::new(innermost(value), EMPTY)),
                (Value::Array(items), None) if !items.is_empty() => Err(Invalid::new("", LIST)),
                (_, Some(written)) => nothing_lost(value, written),
                (_, None) => Ok(()),
            };
            found.map_err(|error| error.under(key))
        }),
        (Value::Array(given), Value::Array(written)) => {
            given.iter().zip(written).enumerate().try_for_each(|(i, (given, written))| {
                nothing_lost(given, written).map_err(|error| error.under(&format!("[{i}]")))
            })
        }
        (Value::Array(_), Value::Object(_)) => Err(Invalid::new("", LIST)),
        _ => Ok(()),
    }
}

/// The path to the first object within that has no object in it.
fn innermost(value: &Value) -> String {
    let inner = value.as_object().and_then(|fields| fields.iter().find(|(_, value)| value.is_object()));
    inner.map_or_else(String::new, |(key, value)| join(key, &innermost(value)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_yaml_does_not_take_raw_is_escaped() {
        let text = "a\u{7f}b\u{85}c\u{2028}\u{feff}é\"\\\n";
        let written = to_json(text);
        assert_eq!(written, r#""a\u007fb\u0085c\u2028\ufeffé\"\\\n""#);
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
    }

    #[test]
    fn names_the_innermost_empty_object() {
        let given = json!({"a": [{"b": {"c": {}}}], "d": {}});
        let written = json!({"a": [{}], "d": {}});
        assert_eq!(nothing_lost(&given, &written).unwrap_err().path, "a[0].b.c");
    }

    #[test]
    fn refuses_what_the_decoder_splits_or_loses() {
        let long = "k".repeat(1100);
        for (value, path) in [
            (json!({"a": ["x║y"]}), "a[0]"),
            (json!({"a": {"": 1}}), "a"),
            (json!({"a": {&long: 1}}), &format!("a.{}", "k".repeat(40))),
        ] {
            assert_eq!(decodable(&value).unwrap_err().path, path);
        }
    }
}
