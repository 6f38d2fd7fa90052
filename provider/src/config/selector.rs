//! Which rows an instance is given: those of a site, those with labels, those that fall into a share, or what is all of that.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// More shares than this are none: each is compiled and kept on its own.
const MOST: u32 = 1000;

/// Which rows an instance is given. One that says nothing selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Selector {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// A row has to have all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

impl Selector {
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// A name for its files: the same for the same selector.
    pub fn id(&self) -> String {
        Sha256::digest(self.to_string()).iter().take(8).fold(String::new(), |id, byte| id + &format!("{byte:02x}"))
    }
}

/// As people read it: `site=berlin tier=gold share=3/8`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let site = self.site.iter().map(|site| format!("site={site}"));
        let labels = self.labels.iter().map(|(key, value)| format!("{key}={value}"));
        let share = self.share.iter().map(|share| format!("share={share}"));
        f.write_str(&site.chain(labels).chain(share).collect::<Vec<_>>().join(" "))
    }
}

/// One of so many shares, each with about as many hosts: `3/8` is the third of eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share {
    number: u32,
    of: u32,
}

impl Share {
    /// True for a host that falls into this share; it falls into one of them, on every machine the same.
    pub fn holds(self, host: &str) -> bool {
        let digest = Sha256::digest(host.as_bytes());
        let sum = digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        sum % u64::from(self.of) == u64::from(self.number - 1)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// It is not one of so many shares.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no share; write it as 3/8: the third of eight, of {MOST} at most")]
pub struct NoShare(String);

impl FromStr for Share {
    type Err = NoShare;

    fn from_str(text: &str) -> Result<Self, NoShare> {
        let parsed = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((number, of)) if (1..=of).contains(&number) && of <= MOST => Ok(Self { number, of }),
            _ => Err(NoShare(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Share {
    type Error = NoShare;

    fn try_from(text: String) -> Result<Self, NoShare> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_one_of_so_many() {
        for text in ["1/1", "3/8", "1000/1000"] {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), text);
        }
        for text in ["", "3", "0/8", "9/8", "1/0", "-1/8", "1/1001", "1/8/2", "a/b"] {
            let error = text.parse::<Share>().unwrap_err().to_string();
            assert!(error.contains("write it as 3/8"), "{text}: {error}");
        }
    }

    #[test]
    fn every_host_falls_into_one_share_and_all_have_about_as_many() {
        let shares: Vec<Share> = (1..=8).map(|number| Share { number, of: 8 }).collect();
        let mut counts = [0; 8];
        for n in 0..8000 {
            let host = format!("h{n}.example.org");
            let holding: Vec<usize> = (0..8).filter(|at| shares[*at].holds(&host)).collect();
            assert_eq!(holding.len(), 1, "{host}");
            counts[holding[0]] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        let third: Share = "3/8".parse().unwrap();
        assert!(third.holds("h0.example.org") == shares[2].holds("h0.example.org"));
    }

    #[test]
    fn it_is_told_and_kept_in_one_way() {
        let selector = Selector {
            site: Some("berlin".to_owned()),
            labels: BTreeMap::from([("tier".to_owned(), "gold".to_owned())]),
            share: "3/8".parse().ok(),
        };
        assert_eq!(selector.to_string(), "site=berlin tier=gold share=3/8");
        let json = serde_json::to_string(&selector).unwrap();
        assert_eq!(json, r#"{"site":"berlin","labels":{"tier":"gold"},"share":"3/8"}"#);
        assert_eq!(serde_json::from_str::<Selector>(&json).unwrap(), selector);
        assert!(serde_json::from_str::<Selector>(r#"{"share":"9/8"}"#).is_err());
        assert!(Selector::default().is_everything());
    }
}
