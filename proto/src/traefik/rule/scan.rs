//! Tokens of a rule, as Go's scanner makes them (`go/scanner`): what ends a line, what a string is.

use super::Error;

/// A token, and the character that it begins at, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Word(String),
    /// In back-ticks or quotes, without them.
    Text(String),
    And,
    Or,
    Not,
    Open,
    Close,
    Comma,
    Ellipsis,
    /// A new line that ends a term.
    NewLine,
    /// What no rule has.
    Other(String),
    End,
}

pub(super) fn tokens(rule: &str) -> Result<Vec<Token>, Error> {
    // Go skips a byte order mark here, and refuses it anywhere else.
    let begin = usize::from(rule.starts_with('\u{feff}'));
    let chars: Vec<char> = rule.chars().collect();
    if let Some(at) = chars.iter().skip(begin).position(|c| matches!(c, '\0' | '\u{feff}')) {
        return Err(Error::new(begin + at + 1, "a NUL or byte order mark cannot stand in a rule"));
    }
    let mut scanner = Scanner { chars, next: begin };
    let mut found = Vec::new();
    loop {
        let ends_line = found.last().is_some_and(|token: &Token| {
            matches!(token.kind, Kind::Word(_) | Kind::Text(_) | Kind::Close | Kind::Other(_))
        });
        let token = scanner.token(ends_line)?;
        let end = token.kind == Kind::End;
        found.push(token);
        if end {
            return Ok(found);
        }
    }
}

struct Scanner {
    chars: Vec<char>,
    next: usize,
}

impl Scanner {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.next + ahead).copied()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek(0)?;
        self.next += 1;
        Some(c)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(c) = self.peek(0).filter(|c| wanted(*c)) {
            taken.push(c);
            self.next += 1;
        }
        taken
    }

    fn token(&mut self, ends_line: bool) -> Result<Token, Error> {
        if let Some(at) = self.skip_blank(ends_line)? {
            return Ok(Token { at, kind: Kind::NewLine });
        }
        let at = self.next + 1;
        let Some(c) = self.take() else { return Ok(Token { at, kind: Kind::End }) };
        let kind = match (c, self.peek(0), self.peek(1)) {
            ('&', Some('&'), _) => self.after(1, Kind::And),
            ('|', Some('|'), _) => self.after(1, Kind::Or),
            ('.', Some('.'), Some('.')) => self.after(2, Kind::Ellipsis),
            ('!', Some('='), _) => self.after(1, Kind::Other("!=".to_owned())),
            ('!', ..) => Kind::Not,
            ('(', ..) => Kind::Open,
            (')', ..) => Kind::Close,
            (',', ..) => Kind::Comma,
            ('`', ..) => self.raw(at)?,
            ('"', ..) => self.quoted(at)?,
            _ if c.is_alphabetic() || c == '_' => {
                Kind::Word(format!("{c}{}", self.take_while(|c| c.is_alphanumeric() || c == '_')))
            }
            _ => Kind::Other(c.to_string()),
        };
        Ok(Token { at, kind })
    }

    fn after(&mut self, more: usize, kind: Kind) -> Kind {
        self.next += more;
        kind
    }

    /// Skips white space and comments. Tells where a line ended, when that matters.
    fn skip_blank(&mut self, ends_line: bool) -> Result<Option<usize>, Error> {
        loop {
            let at = self.next + 1;
            let newline = match (self.peek(0), self.peek(1)) {
                (Some('\n'), _) => {
                    self.next += 1;
                    true
                }
                (Some(' ' | '\t' | '\r'), _) => {
                    self.next += 1;
                    false
                }
                (Some('/'), Some('/')) => {
                    self.take_while(|c| c != '\n');
                    false
                }
                (Some('/'), Some('*')) => self.skip_comment(at)?,
                _ => return Ok(None),
            };
            if newline && ends_line {
                return Ok(Some(at));
            }
        }
    }

    /// True when it reaches over lines: then it counts as a new line.
    fn skip_comment(&mut self, at: usize) -> Result<bool, Error> {
        self.next += 2;
        let mut lines = false;
        while let Some(c) = self.take() {
            lines |= c == '\n';
            if c == '*' && self.peek(0) == Some('/') {
                self.next += 1;
                return Ok(lines);
            }
        }
        Err(Error::new(at, "this comment has no end: write */ behind it"))
    }

    /// Go drops carriage returns from these.
    fn raw(&mut self, at: usize) -> Result<Kind, Error> {
        let text = self.take_while(|c| c != '`');
        match self.take() {
            Some(_) => Ok(Kind::Text(text.replace('\r', ""))),
            None => Err(Error::new(at, "this value has no end: write a back-tick behind it")),
        }
    }

    fn quoted(&mut self, at: usize) -> Result<Kind, Error> {
        let unended = || Error::new(at, "this value has no end: write a quote behind it, on the same line");
        let mut bytes = Vec::new();
        loop {
            match self.take().filter(|c| *c != '\n').ok_or_else(unended)? {
                '"' => break,
                '\\' => self.escape(&mut bytes)?,
                c => push(&mut bytes, c),
            }
        }
        String::from_utf8(bytes)
            .map(Kind::Text)
            .map_err(|_| Error::new(at, "the escapes of this value do not make UTF-8: write its characters themselves"))
    }

    /// `strconv.Unquote`
    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let at = self.next;
        let wrong = || Error::new(at, "Go has no such escape: write the value in back-ticks, where \\ is itself");
        let c = self.take().ok_or_else(wrong)?;
        let plain = match c {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            '\\' => b'\\',
            '"' => b'"',
            '0'..='7' => {
                self.next -= 1;
                self.number(3, 8).and_then(|n| u8::try_from(n).ok()).ok_or_else(wrong)?
            }
            'x' => self.number(2, 16).and_then(|n| u8::try_from(n).ok()).ok_or_else(wrong)?,
            'u' | 'U' => {
                let digits = if c == 'u' { 4 } else { 8 };
                push(bytes, self.number(digits, 16).and_then(char::from_u32).ok_or_else(wrong)?);
                return Ok(());
            }
            _ => return Err(wrong()),
        };
        bytes.push(plain);
        Ok(())
    }

    fn number(&mut self, digits: usize, radix: u32) -> Option<u32> {
        (0..digits).try_fold(0_u32, |n, _| n.checked_mul(radix)?.checked_add(self.take()?.to_digit(radix)?))
    }
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}
