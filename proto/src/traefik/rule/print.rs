//! Writes an [`Expr`] so that it reads back as the same.

use std::fmt;

use super::{Expr, Matcher};

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Self], operator: &str| {
            for (i, part) in parts.iter().enumerate() {
                if i > 0 {
                    f.write_str(operator)?;
                }
                part.write_within(f)?;
            }
            Ok(())
        };
        match self {
            Self::Matcher(matcher) => matcher.fmt(f),
            Self::Not(inner) => {
                f.write_str("!")?;
                inner.write_within(f)
            }
            Self::All(parts) => joined(f, parts, " && "),
            Self::Any(parts) => joined(f, parts, " || "),
        }
    }
}

impl Expr {
    /// As a part of another: what joins goes in parentheses, also where they are not needed.
    fn write_within(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matcher(_) | Self::Not(_) => write!(f, "{self}"),
            Self::All(_) | Self::Any(_) => write!(f, "({self})"),
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.name.as_str())?;
        for (i, value) in self.values.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write_value(f, value)?;
        }
        f.write_str(")")
    }
}

/// In back-ticks, unless a character in it cannot stand there.
fn write_value(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    if !value.contains(['`', '\r', '\0', '\u{feff}']) {
        return write!(f, "`{value}`");
    }
    f.write_str("\"")?;
    for c in value.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            _ if c.is_control() || c == '\u{feff}' => write!(f, "\\u{:04x}", u32::from(c))?,
            _ => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}
