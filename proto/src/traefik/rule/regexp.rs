//! Reads a regular expression as Go does, and writes it for the crate `regex`, so that it matches the same.
//!
//! Go's syntax and Rust's are both RE2's, with differences on both sides: Go takes `a{`, `\<`, `\Q.*\E` and `[[a]`, where
//! Rust does not; Rust takes `a**`, `[a&&b]` and `\<`, where Go refuses or means something else; `\d`, `\w`, `\s` and
//! `\b` are ASCII in Go. So this follows `regexp/syntax/parse.go`, flag for flag, and what it writes has no flags left to
//! interpret. Not taken from there: the limits on the size of a compiled program.

mod class;
mod escape;

use std::str::Chars;

/// What Go refuses in a regular expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Go has no such regular expression: {reason} at its character {at}")]
pub struct Error {
    /// Which character of the expression, the first being 1.
    pub at: usize,
    pub reason: &'static str,
}

/// Repetitions, also of repetitions: `(a{10}){100}` is the most.
const MAX_REPEAT: u32 = 1_000;

/// What matches nothing, and what matches anything.
const NEVER: &str = r"[^\x{0}-\x{10FFFF}]";
const ANYTHING: &str = "(?s:.)";

/// The same expression for `regex::bytes`, with groups that capture nothing.
pub fn translate(pattern: &str) -> Result<String, Error> {
    let mut parser = Parser::new(pattern);
    while !parser.rest.as_str().is_empty() {
        parser.step()?;
    }
    match parser.open.pop() {
        Some(_) => Err(Error { at: parser.group.at, reason: "a ( without its )" }),
        None => Ok(parser.group.close().text),
    }
}

#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are Go's flags: i, m, s and U")]
struct Flags {
    fold: bool,
    lines: bool,
    dot_takes_newline: bool,
    lazy: bool,
}

/// Something that can be repeated.
#[derive(Debug, Default)]
struct Item {
    text: String,
    /// How often the innermost part of it is repeated at most.
    repeat: u32,
}

/// Between two parentheses.
#[derive(Debug, Default)]
struct Group {
    at: usize,
    /// As they were before the group, to go back to.
    flags: Flags,
    branches: Vec<String>,
    items: Vec<Item>,
    repeat: u32,
}

impl Group {
    fn end_branch(&mut self) {
        let items = std::mem::take(&mut self.items);
        self.repeat = items.iter().map(|item| item.repeat).fold(self.repeat, u32::max);
        self.branches.push(items.into_iter().map(|item| item.text).collect());
    }

    fn close(mut self) -> Item {
        self.end_branch();
        Item { text: format!("(?:{})", self.branches.join("|")), repeat: self.repeat }
    }
}

struct Parser<'a> {
    rest: Chars<'a>,
    length: usize,
    flags: Flags,
    open: Vec<Group>,
    group: Group,
    /// The last step was a repetition: another one may not follow.
    repeated: bool,
}

impl<'a> Parser<'a> {
    fn new(pattern: &'a str) -> Self {
        Self {
            rest: pattern.chars(),
            length: pattern.chars().count(),
            flags: Flags::default(),
            open: Vec::new(),
            group: Group::default(),
            repeated: false,
        }
    }

    /// Which character was read last, from 1.
    fn at(&self) -> usize {
        self.length - self.rest.clone().count()
    }

    fn error(&self, reason: &'static str) -> Error {
        Error { at: self.at(), reason }
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn takes(&mut self, text: &str) -> bool {
        let rest = self.rest.as_str().strip_prefix(text);
        self.rest = rest.map_or(self.rest.clone(), str::chars);
        rest.is_some()
    }

    fn push(&mut self, text: impl Into<String>) {
        self.group.items.push(Item { text: text.into(), repeat: 1 });
    }

    fn literal(&mut self, c: char) {
        let text = self.folded(&format!(r"\x{{{:X}}}", u32::from(c)));
        self.push(text);
    }

    fn folded(&self, text: &str) -> String {
        if self.flags.fold { format!("(?i:{text})") } else { text.to_owned() }
    }

    fn step(&mut self) -> Result<(), Error> {
        let after_repetition = std::mem::take(&mut self.repeated);
        let Some(c) = self.rest.next() else { return Ok(()) };
        match c {
            '(' => self.open_group()?,
            ')' => {
                let outer = self.open.pop().ok_or_else(|| self.error("a ) without its ("))?;
                let inner = std::mem::replace(&mut self.group, outer);
                self.flags = inner.flags;
                self.group.items.push(inner.close());
            }
            '|' => self.group.end_branch(),
            '^' => self.push(if self.flags.lines { "(?m:^)" } else { r"\A" }),
            '$' => self.push(if self.flags.lines { "(?m:$)" } else { r"\z" }),
            '.' => self.push(if self.flags.dot_takes_newline { ANYTHING } else { r"[^\n]" }),
            '[' => {
                let class = self.class()?;
                self.push(class);
            }
            '*' => self.repeat("*", (0, None), after_repetition)?,
            '+' => self.repeat("+", (0, None), after_repetition)?,
            '?' => self.repeat("?", (0, None), after_repetition)?,
            '{' => match self.counts() {
                Some((text, least, most)) => self.repeat(&text, (least, most), after_repetition)?,
                None => self.literal('{'),
            },
            '\\' => self.backslash()?,
            _ => self.literal(c),
        }
        Ok(())
    }

    /// `(`, `(?:`, `(?P<name>`, `(?<name>`, `(?i:`; and `(?i)`, which opens nothing.
    fn open_group(&mut self) -> Result<(), Error> {
        let (at, flags) = (self.at(), self.flags);
        if self.takes("?P<") || self.takes("?<") {
            let name = self.rest.as_str().split_once('>').map_or("", |(name, _)| name);
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(self.error("a group whose name is not made of letters, digits and _"));
            }
            self.rest = self.rest.as_str().get(name.len() + 1..).unwrap_or_default().chars();
        } else if self.takes("?") && !self.flags()? {
            return Ok(());
        }
        let outer = std::mem::replace(&mut self.group, Group { at, flags, repeat: 1, ..Group::default() });
        self.open.push(outer);
        Ok(())
    }

    /// True when a group begins behind them.
    fn flags(&mut self) -> Result<bool, Error> {
        let (mut on, mut any) = (true, false);
        loop {
            let flag = match self.rest.next() {
                Some('i') => &mut self.flags.fold,
                Some('m') => &mut self.flags.lines,
                Some('s') => &mut self.flags.dot_takes_newline,
                Some('U') => &mut self.flags.lazy,
                Some('-') if on => {
                    (on, any) = (false, false);
                    continue;
                }
                Some(c @ (':' | ')')) if on || any => return Ok(c == ':'),
                _ => return Err(self.error("a (? with flags that Go does not have")),
            };
            *flag = on;
            any = true;
        }
    }

    /// `{2}`, `{2,}`, `{2,3}`; anything else is a brace that stands for itself.
    fn counts(&mut self) -> Option<(String, u32, Option<u32>)> {
        let (inside, rest) = self.rest.as_str().split_once('}')?;
        let (least, most) = inside.split_once(',').map_or((inside, None), |(least, most)| (least, Some(most)));
        let least = count(least)?;
        let most = match most {
            None => Some(least),
            Some("") => None,
            Some(most) => Some(count(most)?),
        };
        self.rest = rest.chars();
        Some((format!("{{{inside}}}"), least, most))
    }

    fn repeat(&mut self, operator: &str, (least, most): (u32, Option<u32>), again: bool) -> Result<(), Error> {
        let lazy = self.takes("?") != self.flags.lazy;
        if again {
            return Err(self.error("a repetition of a repetition: put the inner one in parentheses"));
        }
        let too_often = least > MAX_REPEAT || most.is_some_and(|most| most > MAX_REPEAT || most < least);
        let nothing = self.error("a repetition with nothing before it");
        let too_often_error = self.error("a repetition of more than 1000 times, or with its bounds reversed");
        let item = self.group.items.last_mut().ok_or(nothing)?;
        let times = most.unwrap_or(least);
        item.repeat = if most == Some(0) { 1 } else { item.repeat.saturating_mul(times.max(1)) };
        if too_often || times >= 2 && item.repeat > MAX_REPEAT {
            return Err(too_often_error);
        }
        item.text = format!("(?:{}){operator}{}", item.text, if lazy { "?" } else { "" });
        self.repeated = true;
        Ok(())
    }
}

/// Go takes no leading zeros; what is too large only has to be too large.
fn count(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (plain && (digits == "0" || !digits.starts_with('0'))).then(|| digits.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
