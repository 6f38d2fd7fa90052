//! What is different between two configs: by route and other object, and as text. Pure.

use std::collections::BTreeSet;

use charliehub_proto::change::Difference;
use serde_json::{Map, Value};
use similar::TextDiff;

/// The objects that are not the same in both, by section and name. Ours, which say nothing by themselves, are left out.
pub fn configs(before: &Value, after: &Value) -> Vec<Difference> {
    let mut differences = Vec::new();
    for top in names(Some(before), Some(after)) {
        let (old, new) = (before.get(top), after.get(top));
        for kind in names(old, new) {
            let section = format!("{top}.{kind}");
            let (old, new) = (old.and_then(|old| old.get(kind)), new.and_then(|new| new.get(kind)));
            let mut note = |name: &str, before: Option<&Value>, after: Option<&Value>| {
                if before != after {
                    let (before, after) = (before.cloned(), after.cloned());
                    differences.push(Difference { section: section.clone(), name: name.to_owned(), before, after });
                }
            };
            if old.or(new).is_some_and(Value::is_object) {
                for name in names(old, new).into_iter().filter(|name| !name.starts_with("charliehub-")) {
                    note(name, old.and_then(|old| old.get(name)), new.and_then(|new| new.get(name)));
                }
            } else {
                // A list, such as the certificates: its items have no names.
                note("", old, new);
            }
        }
    }
    differences
}

/// The names in either object.
fn names<'a>(before: Option<&'a Value>, after: Option<&'a Value>) -> BTreeSet<&'a str> {
    let objects = [before, after].into_iter().flatten().filter_map(Value::as_object);
    objects.flat_map(Map::keys).map(String::as_str).collect()
}

/// The unified difference of both, printed with a line for each value. Empty where they are the same.
pub fn text(names: (&str, &str), before: &Value, after: &Value) -> String {
    let pretty = |value: &Value| format!("{value:#}\n");
    let (before, after) = (pretty(before), pretty(after));
    if before == after {
        return String::new();
    }
    TextDiff::from_lines(&before, &after).unified_diff().context_radius(3).header(names.0, names.1).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_added_removed_and_changed_each_by_its_name() {
        let before = json!({"http": {"routers": {"a": {"rule": "1"}, "b": {"rule": "2"}, "charliehub-x": {}}},
                            "tls": {"certificates": [1]}});
        let after = json!({"http": {"routers": {"a": {"rule": "1"}, "b": {"rule": "3"}}}, "tcp": {"routers": {"c": {}}},
                           "tls": {"certificates": [1, 2]}});
        let found = configs(&before, &after);
        let short: Vec<_> =
            found.iter().map(|one| (&*one.section, &*one.name, one.before.is_some(), one.after.is_some())).collect();
        assert_eq!(
            short,
            [
                ("http.routers", "b", true, true),
                ("tcp.routers", "c", false, true),
                ("tls.certificates", "", true, true)
            ]
        );
        assert!(configs(&before, &before).is_empty());
    }

    #[test]
    fn the_text_has_the_lines_that_differ() {
        let text = text(("revision 1", "revision 2"), &json!({"a": 1, "b": 2}), &json!({"a": 1, "b": 3}));
        assert!(text.starts_with("--- revision 1\n+++ revision 2\n"), "{text}");
        assert!(text.contains("\n-  \"b\": 2\n+  \"b\": 3\n"), "{text}");
    }
}
