//! What stands behind a backslash.

use super::{Error, NEVER, Parser};

/// ASCII only, inside of brackets.
fn perl(c: char) -> Option<&'static str> {
    match c {
        'd' => Some("0-9"),
        's' => Some(r"\t\n\f\r\x20"),
        'w' => Some("0-9A-Za-z_"),
        _ => None,
    }
}

impl Parser<'_> {
    /// Outside of brackets.
    pub(super) fn backslash(&mut self) -> Result<(), Error> {
        let rest = self.rest.as_str();
        if let Some(quoted) = rest.strip_prefix('Q') {
            let (text, rest) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            text.chars().for_each(|c| self.literal(c));
            self.rest = rest.chars();
            return Ok(());
        }
        for (escape, same) in [("A", r"\A"), ("z", r"\z"), ("b", r"(?-u:\b)"), ("B", r"(?-u:\B)")] {
            if self.takes(escape) {
                self.push(same);
                return Ok(());
            }
        }
        match self.set()? {
            Some(set) => {
                let text = self.folded(&set);
                self.push(text);
            }
            None => match char::from_u32(self.escaped()?) {
                Some(c) => self.literal(c),
                None => self.push(NEVER),
            },
        }
        Ok(())
    }

    /// `\d`, `\S`, `\pL`, `\P{Greek}`: as a class of its own.
    pub(super) fn set(&mut self) -> Result<Option<String>, Error> {
        let Some(c) = self.peek() else { return Ok(None) };
        if let Some(inside) = perl(c.to_ascii_lowercase()) {
            self.rest.next();
            return Ok(Some(format!("[{}{inside}]", if c.is_ascii_uppercase() { "^" } else { "" })));
        }
        if !matches!(c, 'p' | 'P') {
            return Ok(None);
        }
        self.rest.next();
        let unknown = self.error("a class of characters that Go does not know");
        let name = match self.rest.next() {
            Some('{') => {
                let (name, rest) = self.rest.as_str().split_once('}').ok_or(unknown.clone())?;
                self.rest = rest.chars();
                name.to_owned()
            }
            one => one.map(String::from).unwrap_or_default(),
        };
        let (turned, name) = name.strip_prefix('^').map_or((false, name.as_str()), |name| (true, name));
        let letter = if (c == 'P') == turned { 'p' } else { 'P' };
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        let spellings = [format!(r"\{letter}{{gc={name}}}"), format!(r"\{letter}{{sc={name}}}")];
        let known = spellings.into_iter().find(|class| plain && regex::Regex::new(class).is_ok());
        known.map(|class| Some(format!("[{class}]"))).ok_or(unknown)
    }

    /// One character, as a number: Go also takes those that are none.
    pub(super) fn escaped(&mut self) -> Result<u32, Error> {
        let Some(c) = self.rest.next() else { return Err(self.error("a \\ with nothing behind it")) };
        let plain = match c {
            '1'..='7' if !self.peek().is_some_and(|next| next.is_digit(8)) => {
                return Err(self.error("a reference back to a group"));
            }
            '0'..='7' => return Ok(self.octal(c)),
            'x' => return self.hexadecimal(),
            'a' => 0x07,
            'f' => 0x0c,
            'n' => 0x0a,
            'r' => 0x0d,
            't' => 0x09,
            'v' => 0x0b,
            _ if c.is_ascii() && !c.is_ascii_alphanumeric() => u32::from(c),
            _ => return Err(self.error("an escape that Go does not have")),
        };
        Ok(plain)
    }

    fn octal(&mut self, first: char) -> u32 {
        let mut number = first.to_digit(8).unwrap_or_default();
        for _ in 0..2 {
            let Some(digit) = self.peek().and_then(|next| next.to_digit(8)) else { break };
            self.rest.next();
            number = number * 8 + digit;
        }
        number
    }

    /// `\x41`, `\x{1F600}`
    fn hexadecimal(&mut self) -> Result<u32, Error> {
        let wrong = self.error("a \\x without the number of a character");
        let rest = self.rest.as_str();
        let (digits, rest) = match rest.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or(wrong.clone())?,
            None => rest.split_at_checked(2).ok_or(wrong.clone())?,
        };
        self.rest = rest.chars();
        let number = u32::from_str_radix(digits, 16).ok().filter(|number| *number <= u32::from(char::MAX));
        number.filter(|_| !digits.starts_with('+')).ok_or(wrong)
    }
}
