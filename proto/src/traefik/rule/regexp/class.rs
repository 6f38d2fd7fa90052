//! What stands in brackets.

use super::{ANYTHING, Error, NEVER, Parser};

const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// No text has these: the halves of UTF-16.
const SURROGATES: std::ops::RangeInclusive<u32> = 0xD800..=0xDFFF;

impl Parser<'_> {
    /// Behind its bracket.
    pub(super) fn class(&mut self) -> Result<String, Error> {
        let unended = self.error("a [ without its ]");
        let negated = self.takes("^");
        let mut inside = String::new();
        let mut first = true;
        while first || self.peek() != Some(']') {
            first = false;
            let item = match self.posix()? {
                Some(class) => class,
                None => self.class_item(&unended)?,
            };
            inside.push_str(&item);
        }
        self.rest.next();
        let class = match (inside.is_empty(), negated) {
            (true, false) => NEVER.to_owned(),
            (true, true) => ANYTHING.to_owned(),
            (false, false) => format!("[{inside}]"),
            (false, true) => format!("[^{inside}]"),
        };
        Ok(self.folded(&class))
    }

    /// `[:alpha:]`, `[:^alpha:]`; without its end, the bracket stands for itself.
    fn posix(&mut self) -> Result<Option<String>, Error> {
        let rest = self.rest.as_str();
        let Some((name, rest)) = rest.strip_prefix("[:").and_then(|named| named.split_once(":]")) else {
            return Ok(None);
        };
        if !POSIX.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(self.error("a class [:...:] that Go does not know"));
        }
        let class = format!("[:{name}:]");
        self.rest = rest.chars();
        Ok(Some(class))
    }

    fn class_item(&mut self, unended: &Error) -> Result<String, Error> {
        let mut ahead = self.rest.clone();
        if ahead.next() == Some('\\') && matches!(ahead.next(), Some('d' | 'D' | 's' | 'S' | 'w' | 'W' | 'p' | 'P')) {
            self.rest.next();
            return Ok(self.set()?.unwrap_or_default());
        }
        let low = self.class_char(unended)?;
        let mut high = low;
        let mut ahead = self.rest.clone();
        if ahead.next() == Some('-') && ahead.next().is_some_and(|next| next != ']') {
            self.rest.next();
            high = self.class_char(unended)?;
        }
        if high < low {
            return Err(self.error("a range that ends before it begins"));
        }
        let low = if SURROGATES.contains(&low) { SURROGATES.end() + 1 } else { low };
        let high = if SURROGATES.contains(&high) { SURROGATES.start() - 1 } else { high };
        Ok(if low <= high { format!(r"\x{{{low:X}}}-\x{{{high:X}}}") } else { String::new() })
    }

    fn class_char(&mut self, unended: &Error) -> Result<u32, Error> {
        match self.rest.next().ok_or_else(|| unended.clone())? {
            '\\' => self.escaped(),
            c => Ok(u32::from(c)),
        }
    }
}
