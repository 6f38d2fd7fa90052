//! YAML that every reader takes for the same, Traefik's among them.
//!
//! Readers differ about what a bare word is: a number, a date, a boolean, null. So a text stands bare only when it can
//! be nothing else, and in JSON's quotes otherwise, which are YAML's too.

use charliehub_proto::traefik::to_json;
use serde_json::Value;

use crate::import::BRACES;

/// Bare words that some reader takes for something else.
const WORDS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];

/// The document. `{{` is written so that Traefik's file provider, which fills in templates first, gives it back.
pub(super) fn write(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out.trim_start_matches('\n').replace("{{", BRACES)
}

/// Behind a key or a dash: on the same line, or indented below it.
fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                line(indent, out);
                out.push_str(&text(key));
                out.push(':');
                block(value, indent + 1, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                line(indent, out);
                out.push('-');
                block(item, indent + 1, out);
            }
        }
        Value::String(string) => {
            out.push(' ');
            out.push_str(&text(string));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            out.push(' ');
            out.push_str(&value.to_string());
        }
    }
}

fn line(indent: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", indent));
}

fn text(text: &str) -> String {
    let bare = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-/@".contains(&byte))
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text));
    if bare { text.to_owned() } else { to_json(text) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_can_be_nothing_else_is_bare() {
        let value =
            json!({"http": {"a b": ["web", "1s", "true", "017", "2001-01-01", "", {"no": null, "x": []}], "w": 5}});
        let wanted = "http:\n  \"a b\":\n    - web\n    - \"1s\"\n    - \"true\"\n    - \"017\"\n    - \"2001-01-01\"\n    \
                      - \"\"\n    -\n      \"no\": null\n      x: []\n  w: 5";
        assert_eq!(write(&value), wanted);
        assert_eq!(write(&json!({"a": "{{ x }}"})), r#"a: "{{"{{"}} x }}""#);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[a-zA-Z0-9.:#'\" -]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-zA-Z0-9.*/ -]{1,8}", inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in prop::collection::btree_map("[a-z]{1,4}", any_value(), 1..5)) {
            let value = Value::Object(value.into_iter().collect());
            let read: Value = serde_saphyr::from_str(&write(&value).replace(BRACES, "{{")).unwrap();
            prop_assert_eq!(read, value);
        }
    }
}
