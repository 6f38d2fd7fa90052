//! Tokens to an [`Expr`]: `!` binds tighter than `&&`, and that tighter than `||`.

use super::{
    Dialect, Error, Expr, MAX_DEPTH, Matcher, Name, check,
    scan::{Kind, Token, tokens},
};
use crate::traefik::invalid::nearest;

pub(super) fn rule(rule: &str, dialect: Dialect) -> Result<Expr, Error> {
    let tokens = tokens(rule)?;
    let mut parser = Parser { rest: tokens.into_iter().peekable(), dialect, depth: 0 };
    let expr = parser.any()?;
    parser.takes(&Kind::NewLine);
    let token = parser.next();
    if token.kind == Kind::End { Ok(expr) } else { Err(unexpected(&token, "&& or || between two matchers")) }
}

struct Parser {
    rest: std::iter::Peekable<std::vec::IntoIter<Token>>,
    dialect: Dialect,
    depth: usize,
}

impl Parser {
    fn next(&mut self) -> Token {
        self.rest.next().unwrap_or(Token { at: 0, kind: Kind::End })
    }

    fn takes(&mut self, kind: &Kind) -> bool {
        self.rest.next_if(|token| token.kind == *kind).is_some()
    }

    fn any(&mut self) -> Result<Expr, Error> {
        self.joined(&Kind::Or, Self::all, Expr::Any)
    }

    fn all(&mut self) -> Result<Expr, Error> {
        self.joined(&Kind::And, Self::term, Expr::All)
    }

    fn joined(
        &mut self,
        operator: &Kind,
        part: impl Fn(&mut Self) -> Result<Expr, Error>,
        join: impl Fn(Vec<Expr>) -> Expr,
    ) -> Result<Expr, Error> {
        let first = part(self)?;
        if !self.takes(operator) {
            return Ok(first);
        }
        let mut parts = vec![first, part(self)?];
        while self.takes(operator) {
            parts.push(part(self)?);
        }
        Ok(join(parts))
    }

    fn term(&mut self) -> Result<Expr, Error> {
        let token = self.next();
        if token.kind == Kind::Not {
            return self.deeper(token.at, Self::term).map(|inner| Expr::Not(Box::new(inner)));
        }
        if token.kind == Kind::Open {
            let inner = self.deeper(token.at, Self::any)?;
            let token = self.next();
            return if token.kind == Kind::Close { Ok(inner) } else { Err(unexpected(&token, "&&, || or )")) };
        }
        let Kind::Word(word) = &token.kind else {
            return Err(unexpected(&token, "a matcher, such as Host(`a.org`)"));
        };
        self.matcher(word, token.at).map(Expr::Matcher)
    }

    fn deeper(&mut self, at: usize, part: impl Fn(&mut Self) -> Result<Expr, Error>) -> Result<Expr, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error::new(at, format!("nested more than {MAX_DEPTH} deep: write it flatter")));
        }
        let inner = part(self)?;
        self.depth -= 1;
        Ok(inner)
    }

    fn matcher(&mut self, word: &str, at: usize) -> Result<Matcher, Error> {
        let name = self.name(word).map_err(|reason| Error::new(at, reason))?;
        let open = self.next();
        if open.kind != Kind::Open {
            return Err(unexpected(&open, &format!("( and a value in back-ticks behind {}", name.as_str())));
        }
        let values = self.values()?;
        check::matcher(self.dialect, name, &values, at)?;
        Ok(Matcher { name, values: values.into_iter().map(|(_, value)| value).collect() })
    }

    fn name(&self, word: &str) -> Result<Name, String> {
        let known = self.dialect.matchers();
        if let Some(name) = known.iter().find(|name| name.is_spelt(word)) {
            return Ok(*name);
        }
        let names: Vec<_> = known.iter().map(|name| name.as_str()).collect();
        let elsewhere = Name::ALL.iter().any(|name| name.is_spelt(word));
        Err(match nearest(word, &names) {
            Some(near) if elsewhere => format!("{word} is not a matcher of this kind of router, did you mean {near}?"),
            Some(near) => format!("there is no matcher {word}, did you mean {near}?"),
            None => format!("{word} is not a matcher of this kind of router, which has: {}", names.join(", ")),
        })
    }

    /// What is between the parentheses; a comma may follow the last, as Go has it.
    fn values(&mut self) -> Result<Vec<(usize, String)>, Error> {
        let mut values = Vec::new();
        loop {
            let token = self.next();
            if token.kind == Kind::Close {
                return Ok(values);
            }
            let Kind::Text(text) = token.kind else {
                return Err(unexpected(&token, "a value in back-ticks or quotes"));
            };
            values.push((token.at, text));
            let last = self.takes(&Kind::Ellipsis);
            let comma = self.takes(&Kind::Comma);
            if last || !comma {
                let token = self.next();
                return if token.kind == Kind::Close { Ok(values) } else { Err(unexpected(&token, ", or )")) };
            }
        }
    }
}

fn unexpected(token: &Token, wanted: &str) -> Error {
    let found = match &token.kind {
        Kind::Word(text) | Kind::Other(text) => format!("found {text}"),
        Kind::Text(text) => format!("found the value `{text}`"),
        Kind::And => "found &&".to_owned(),
        Kind::Or => "found ||".to_owned(),
        Kind::Not => "found !".to_owned(),
        Kind::Open => "found (".to_owned(),
        Kind::Close => "found )".to_owned(),
        Kind::Comma => "found a comma".to_owned(),
        Kind::Ellipsis => "found ...".to_owned(),
        Kind::NewLine => "the line ends; an operator goes before the end of the line, not behind it".to_owned(),
        Kind::End => "the rule ends".to_owned(),
    };
    Error::new(token.at, format!("expected {wanted}, {found}"))
}
