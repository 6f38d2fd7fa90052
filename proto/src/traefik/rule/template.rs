//! The templates of the older matchers: `/files/{name:[a-z]+}`, as `github.com/containous/mux` has them.

use super::regexp;

/// Refuses a template that Traefik refuses. A variable without an expression of its own is `default`.
pub(super) fn check(template: &str, default: &str) -> Result<(), String> {
    let pattern = to_regexp(template, default)?;
    regexp::translate(&pattern).map(drop).map_err(|error| error.to_string())
}

/// The whole value, as a regular expression of Go's.
pub fn to_regexp(template: &str, default: &str) -> Result<String, String> {
    let mut pattern = "^".to_owned();
    for part in split(template)? {
        match part {
            Part::Text(text) => pattern.push_str(&regex::escape(text)),
            Part::Variable(inside) => {
                let (name, expression) = inside.split_once(':').unwrap_or((inside, default));
                if name.is_empty() || expression.is_empty() {
                    return Err(format!("{{{inside}}} needs a name, as in {{name}} or {{name:[a-z]+}}"));
                }
                regexp::translate(expression).map_err(|error| format!("in {{{inside}}}: {error}"))?;
                for part in ["(?:", expression, ")"] {
                    pattern.push_str(part);
                }
            }
        }
    }
    Ok(pattern + "$")
}

enum Part<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// At the outermost braces.
fn split(template: &str) -> Result<Vec<Part<'_>>, String> {
    let unbalanced = || "its braces are not in pairs".to_owned();
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0_usize, 0);
    for (i, c) in template.char_indices() {
        match c {
            '{' => {
                depth += 1;
                if depth == 1 {
                    parts.push(Part::Text(template.get(begin..i).unwrap_or_default()));
                    begin = i + 1;
                }
            }
            '}' => {
                depth = depth.checked_sub(1).ok_or_else(unbalanced)?;
                if depth == 0 {
                    parts.push(Part::Variable(template.get(begin..i).unwrap_or_default()));
                    begin = i + 1;
                }
            }
            _ => {}
        }
    }
    parts.push(Part::Text(template.get(begin..).unwrap_or_default()));
    if depth == 0 { Ok(parts) } else { Err(unbalanced()) }
}
