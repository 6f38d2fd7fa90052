//! Reads a value as the type that its key has.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use charliehub_proto::duration;
use ipnet::IpNet;

use super::{
    Error,
    settings::{Found, Settings, Value},
};

impl Settings {
    pub(super) fn text(&self, key: &str) -> Result<Option<String>, Error> {
        self.get(key).map(Found::text).transpose()
    }

    pub(super) fn path(&self, key: &str) -> Result<Option<PathBuf>, Error> {
        Ok(self.text(key)?.map(PathBuf::from))
    }

    pub(super) fn url(&self, key: &str) -> Result<Option<String>, Error> {
        self.get(key).map(Found::url).transpose()
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, Error> {
        self.get(key).map(Found::boolean).transpose()
    }

    /// One of some words. `true` and `false` are words too.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>, Error> {
        let Some(found) = self.get(key) else { return Ok(None) };
        let given = match &found.value {
            Value::Word(text) | Value::Text(text) => text.as_str(),
            Value::Boolean(true) => "true",
            Value::Boolean(false) => "false",
            Value::Integer(_) | Value::List(_) => "",
        };
        let choice = choices.iter().find(|(word, _)| *word == given).map(|(_, choice)| *choice);
        let words = || choices.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
        choice.map(Some).ok_or_else(|| found.wrong(&words()))
    }

    pub(super) fn number(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, Error> {
        self.get(key).map(|found| found.number(&range)).transpose()
    }

    pub(super) fn percent(&self, key: &str) -> Result<Option<u8>, Error> {
        Ok(self.number(key, 0..=100)?.and_then(|percent| u8::try_from(percent).ok()))
    }

    pub(super) fn duration(&self, key: &str) -> Result<Option<Duration>, Error> {
        self.get(key)
            .map(|found| {
                let text = found.text()?;
                duration::parse(&text).ok_or_else(|| {
                    let what = format!("`{text}` is not a duration");
                    Error::new(&found.place, what, "write a whole number above 0 and ms, s, m, h or d, such as 55s")
                })
            })
            .transpose()
    }

    pub(super) fn bytes(&self, key: &str) -> Result<Option<u64>, Error> {
        self.get(key).map(Found::bytes).transpose()
    }

    pub(super) fn list(&self, key: &str) -> Result<Option<Vec<String>>, Error> {
        self.get(key).map(Found::list).transpose()
    }

    pub(super) fn listen(&self, key: &str) -> Result<Option<SocketAddr>, Error> {
        self.get(key)
            .map(|found| {
                let text = found.text()?;
                let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
                numeric.as_deref().unwrap_or(&text).parse().map_err(|_| {
                    let what = format!("`{text}` is not an address to listen on");
                    Error::new(&found.place, what, "write ADDRESS:PORT, such as 127.0.0.1:8001 or [::1]:8001")
                })
            })
            .transpose()
    }

    /// Networks without host bits, each once, in order.
    pub(super) fn networks(&self, key: &str) -> Result<Vec<IpNet>, Error> {
        let Some(found) = self.get(key) else { return Ok(Vec::new()) };
        let mut networks = BTreeSet::new();
        for text in found.list()? {
            let network: IpNet = text.parse().map_err(|_| {
                let what = format!("`{text}` is not a network");
                let single = text.parse::<IpAddr>().map(|address| format!("write {}", IpNet::from(address)));
                Error::new(&found.place, what, single.unwrap_or_else(|_| "write it as 10.44.0.0/16".to_owned()))
            })?;
            if network.trunc() != network {
                let what = format!("`{text}` has bits set behind its prefix");
                return Err(Error::new(&found.place, what, format!("write {}", network.trunc())));
            }
            if network.prefix_len() == 0 {
                let what = format!("`{text}` would make everybody internal");
                return Err(Error::new(&found.place, what, "name the networks of your sites"));
            }
            networks.insert(network);
        }
        Ok(networks.into_iter().collect())
    }
}

impl Found {
    fn wrong(&self, wanted: &str) -> Error {
        let given = match &self.value {
            Value::Word(text) | Value::Text(text) => format!("\"{text}\""),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(truth) => truth.to_string(),
            Value::List(_) => "a list".to_owned(),
        };
        Error::new(&self.place, format!("{given} has the wrong type"), format!("write {wanted}"))
    }

    pub(super) fn text(&self) -> Result<String, Error> {
        match &self.value {
            Value::Word(text) | Value::Text(text) if !text.is_empty() => Ok(text.clone()),
            Value::Word(_) | Value::Text(_) | Value::Integer(_) | Value::Boolean(_) | Value::List(_) => {
                Err(self.wrong("text that is not empty, in quotes"))
            }
        }
    }

    /// An `http` or `https` URL with a host, without the slash at its end.
    pub(super) fn url(&self) -> Result<String, Error> {
        let text = self.text()?;
        if host_of(&text).is_none() || text.contains(['`', '"', ' ']) {
            let what = format!("`{text}` is not a URL");
            return Err(Error::new(&self.place, what, "write it as http://HOST:PORT"));
        }
        Ok(text.trim_end_matches('/').to_owned())
    }

    fn boolean(&self) -> Result<bool, Error> {
        match &self.value {
            Value::Boolean(truth) => Ok(*truth),
            Value::Word(text) => match text.as_str() {
                "true" | "1" | "yes" | "on" => Ok(true),
                "false" | "0" | "no" | "off" => Ok(false),
                _ => Err(self.wrong("true or false")),
            },
            Value::Text(_) | Value::Integer(_) | Value::List(_) => Err(self.wrong("true or false, without quotes")),
        }
    }

    pub(super) fn number(&self, range: &RangeInclusive<u32>) -> Result<u32, Error> {
        let number = match &self.value {
            Value::Integer(number) => u32::try_from(*number).ok(),
            Value::Word(text) => text.parse().ok(),
            Value::Text(_) | Value::Boolean(_) | Value::List(_) => None,
        };
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.wrong(&format!("a whole number from {} to {}", range.start(), range.end())))
    }

    fn bytes(&self) -> Result<u64, Error> {
        let bytes = match &self.value {
            Value::Integer(number) => u64::try_from(*number).ok().filter(|number| *number > 0),
            Value::Word(text) | Value::Text(text) => bytes(text),
            Value::Boolean(_) | Value::List(_) => None,
        };
        bytes.ok_or_else(|| self.wrong("a whole number of bytes above 0, or one with k, M or G, such as \"2G\""))
    }

    pub(super) fn list(&self) -> Result<Vec<String>, Error> {
        match &self.value {
            Value::List(list) => Ok(list.clone()),
            Value::Word(text) => {
                Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
            }
            Value::Text(_) | Value::Integer(_) | Value::Boolean(_) => Err(self.wrong("a list, such as [\"a\", \"b\"]")),
        }
    }
}

/// A whole number of bytes above 0, or of 1024, 1024^2 or 1024^3 of them: `65536`, `64k`, `512M`, `2G`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "" => 1,
        "k" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok().filter(|number| *number > 0)?.checked_mul(unit)
}

/// The host of an `http` or `https` URL, without port and brackets.
pub(super) fn host_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host_port = authority.rsplit('@').next()?;
    let host = match host_port.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => host_port.split(':').next()?,
    };
    (!host.is_empty()).then_some(host)
}
