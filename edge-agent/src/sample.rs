//! What one look says of one target, before a single lost probe is told from an outage.

use std::cmp::Reverse;

use charliehub_proto::finding::{Action, Finding, Status};
use jiff::Timestamp;

/// One look at one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The name of a check of the [`catalogue`](crate::catalogue).
    pub check: &'static str,
    pub target: String,
    pub site: Option<String>,
    pub status: Status,
    /// In a sentence, without a full stop at the end.
    pub text: String,
    pub observed: Option<String>,
    pub expected: Option<String>,
    pub source: Option<String>,
    pub remedy: Option<String>,
    /// What was done about it.
    pub action: Option<Action>,
    /// So many looks in a row must say that it is worse before it is: 2, so that a fact is read again a second later.
    pub confirm: u32,
}

impl Sample {
    pub fn new(check: &'static str, target: impl Into<String>, status: Status, text: impl Into<String>) -> Self {
        Self {
            check,
            target: target.into(),
            site: None,
            status,
            text: text.into(),
            observed: None,
            expected: None,
            source: None,
            remedy: None,
            action: None,
            confirm: 2,
        }
    }

    pub fn ok(check: &'static str, target: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(check, target, Status::Ok, text)
    }

    pub fn warning(check: &'static str, target: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(check, target, Status::Warning, text)
    }

    pub fn critical(check: &'static str, target: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(check, target, Status::Critical, text)
    }

    /// It could not be looked at; say why, and what would let us.
    pub fn unknown(check: &'static str, target: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(check, target, Status::Unknown, text)
    }

    #[must_use]
    pub fn site(mut self, site: impl Into<String>) -> Self {
        self.site = Some(site.into());
        self
    }

    #[must_use]
    pub fn observed(mut self, seen: impl Into<String>) -> Self {
        self.observed = Some(seen.into());
        self
    }

    #[must_use]
    pub fn expected(mut self, wanted: impl Into<String>) -> Self {
        self.expected = Some(wanted.into());
        self
    }

    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    #[must_use]
    pub fn did(mut self, action: Option<Action>) -> Self {
        self.action = action;
        self
    }

    /// What is believed of it since then, as it was seen now.
    pub fn believed(self, since: Timestamp, seen: Timestamp) -> Finding {
        Finding {
            check: self.check.to_owned(),
            target: self.target,
            site: self.site,
            status: self.status,
            text: self.text,
            observed: self.observed,
            expected: self.expected,
            source: self.source,
            remedy: self.remedy,
            action: self.action,
            since,
            seen,
        }
    }

    #[must_use]
    pub fn confirmed_by(mut self, looks: u32) -> Self {
        self.confirm = looks;
        self
    }
}

/// Of many names those that are not ok, the worst `one_by_one` of them, and one sample for all the rest. `all`: how many names
/// there are, of which some may not be looked at yet; `whose`: what of a name it is about, such as `the certificates`.
pub(crate) fn few(
    check: &'static str,
    whose: &str,
    samples: Vec<Sample>,
    all: usize,
    one_by_one: usize,
) -> Vec<Sample> {
    if all <= one_by_one {
        return samples;
    }
    let looked_at = samples.len();
    let mut told: Vec<_> = samples.into_iter().filter(|sample| sample.status != Status::Ok).collect();
    let rest = looked_at - told.len();
    let fine = format!("{whose} of {rest} names of {all} are ok");
    told.sort_by_key(|sample| Reverse(sample.status)); // stable: by name among equals
    let more = told.split_off(told.len().min(one_by_one));
    told.push(match more.first() {
        None => Sample::ok(check, "names", fine),
        Some(worst) => Sample { target: "names".to_owned(), ..worst.clone() }
            .observed(format!("{} more names are not told one by one; this is one of them. {fine}", more.len())),
    });
    told
}
