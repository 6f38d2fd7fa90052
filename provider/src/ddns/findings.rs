//! What is said of a name that is not as it should be, and what mends it. Pure.

use std::net::IpAddr;

use charliehub_proto::{debug, finding::Status};

use super::{
    CHECK, Failure, US,
    act::Outcome,
    machine::{Answer, Decision, Refusal, Wait},
    names::Fault,
};
use crate::config::Mode;

/// A name of which was decided.
pub(super) struct About<'a> {
    /// The name and the type.
    pub target: &'a str,
    pub site: &'a str,
    pub seen: IpAddr,
    pub answer: &'a Answer,
    pub mode: Mode,
    /// Of the last change, if it failed.
    pub failure: Option<&'a Failure>,
    /// A change was made, and its end is not known.
    pub is_open: bool,
}

impl About<'_> {
    /// Nothing where all is right, or will be soon.
    pub(super) fn finding(&self, decision: &Decision, outcome: Option<&Outcome>) -> Option<debug::Finding> {
        let differs = format!("DNS says {}, and site {} is seen at {}", self.answer, self.site, self.seen);
        let (status, why, remedy) = match (decision, outcome) {
            (Decision::Right | Decision::Nothing | Decision::Wait(Wait::Stable(_)), _) => return None,
            (_, Some(Outcome::Elsewhere)) => {
                (Status::Warning, "another provider acts now".to_owned(), "nothing: it is looked at again".to_owned())
            }
            (Decision::Refuse(refusal), _) => {
                let (why, remedy) = refused(refusal);
                (Status::Warning, why, remedy.to_owned())
            }
            (Decision::Wait(Wait::Interval(left)), _) => self.waits(left.as_secs() + 1),
            (Decision::Change(_), Some(Outcome::Unconfirmed)) => self.waits(0),
            (Decision::Change(_), _) if self.mode == Mode::DryRun => {
                let remedy = "to have it done: `mode = \"act\"` in [ddns]".to_owned();
                (Status::Warning, "dry-run, nothing is done".to_owned(), remedy)
            }
            (Decision::Change(_), _) => {
                let remedy = "see the finding `hold`, and whether the database answers".to_owned();
                (Status::Warning, "nothing is changed now".to_owned(), remedy)
            }
        };
        Some(finding(self.target, None, status, &format!("{differs}: {why}"), &remedy))
    }

    /// Of a change that is not made for so many seconds yet.
    fn waits(&self, seconds: u64) -> (Status, String, String) {
        let next = format!("next change in {seconds} s at the earliest");
        if let Some(failure) = self.failure {
            let why = format!("the last change failed: {}; {next}", failure.why);
            return (Status::Critical, why, failure.remedy.clone());
        }
        if self.is_open {
            let remedy = "nothing: it is looked at again; the zone's servers may take minutes".to_owned();
            return (Status::Warning, "it was changed, and is not answered yet".to_owned(), remedy);
        }
        (Status::Warning, format!("it was changed before; {next}"), "nothing: it is changed then".to_owned())
    }
}

/// `site` where its tunnel explains it: what is wrong in DNS alone explains nothing that fails at the site.
pub(super) fn finding(target: &str, site: Option<&str>, status: Status, text: &str, remedy: &str) -> debug::Finding {
    debug::Finding {
        agent: US.to_owned(),
        check: CHECK.to_owned(),
        target: target.to_owned(),
        site: site.map(str::to_owned),
        status,
        text: text.to_owned(),
        since: None,
        remedy: Some(remedy.to_owned()),
        action: None,
    }
}

pub(super) fn held(who: &str, why: &str) -> debug::Finding {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let text = format!("{who} has stopped all changes of DNS{why}");
    finding("hold", None, Status::Warning, &text, "charliehub-provider ddns release")
}

/// A name with all of its types. Not the bare name: what is said of DNS does not explain what a row of that name does.
pub(super) fn whole(name: &str) -> String {
    format!("{name} ANY")
}

pub(super) fn fault_of(name: &str, fault: &Fault) -> debug::Finding {
    let (text, remedy) = match fault {
        Fault::NotOurs => (
            "it is in no zone of the settings, so it is never touched".to_owned(),
            "add its zone as [[ddns.zone]]; or give its row another `dns_mode`, or the site no `wan_name`",
        ),
        Fault::NoSite => ("its row names no site to follow".to_owned(), "set `site` in its row"),
        Fault::UnknownSite(site) => {
            (format!("its row names site {site}, which there is not"), "name a site of `sites list`")
        }
        Fault::Torn => {
            ("its rows name different sites to follow, so it follows none".to_owned(), "name one site in all of them")
        }
    };
    finding(&whole(name), None, Status::Warning, &text, remedy)
}

pub(super) fn refused(refusal: &Refusal) -> (String, &'static str) {
    match refusal {
        Refusal::NotPublic(address) => (
            format!("{address} is not reached from the internet, so it is never published"),
            "see why the site's packets come from there: a tunnel within a network, or a carrier's NAT",
        ),
        Refusal::Several => (
            "several addresses are one name's, and only one would be left".to_owned(),
            "remove by hand all but one of them; it follows then",
        ),
        Refusal::Alias => ("the name is an alias".to_owned(), "remove its CNAME; it gets addresses of its own then"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::machine::Change, *};

    #[test]
    fn what_is_said_of_a_name() {
        let seen = "5.6.7.8".parse().unwrap();
        let answer = Answer::Addresses { addresses: ["1.2.3.4".parse().unwrap()].into(), ttl: 60 };
        let failure = Failure::new("no way", "make one");
        let change = || Decision::Change(Change { old: None, new: seen });
        let later = || Decision::Wait(Wait::Interval(Duration::from_secs(9)));
        for (decision, outcome, mode, has_failed, is_open, said) in [
            (Decision::Right, None, Mode::Act, true, false, None),
            (Decision::Wait(Wait::Stable(Duration::from_secs(9))), None, Mode::Act, false, false, None),
            (change(), None, Mode::DryRun, false, false, Some((Status::Warning, "dry-run, nothing is done"))),
            (change(), None, Mode::Act, false, false, Some((Status::Warning, "nothing is changed now"))),
            (change(), Some(Outcome::Elsewhere), Mode::Act, false, false, Some((Status::Warning, "another provider"))),
            (change(), Some(Outcome::Unconfirmed), Mode::Act, false, true, Some((Status::Warning, "not answered yet"))),
            (later(), None, Mode::Act, false, true, Some((Status::Warning, "not answered yet"))),
            (later(), None, Mode::Act, false, false, Some((Status::Warning, "changed before; next change in 10 s"))),
            (later(), None, Mode::Act, true, false, Some((Status::Critical, "failed: no way; next change in 10 s"))),
            (Decision::Refuse(Refusal::Alias), None, Mode::Act, false, false, Some((Status::Warning, "an alias"))),
        ] {
            let failure = has_failed.then_some(&failure);
            let about = About { target: "uk.test A", site: "uk", seen, answer: &answer, mode, failure, is_open };
            let found = about.finding(&decision, outcome.as_ref());
            let Some((status, words)) = said else {
                assert_eq!(found, None, "{decision:?}");
                continue;
            };
            let found = found.unwrap();
            assert_eq!(found.status, status, "{found:?}");
            assert!(found.text.starts_with("DNS says 1.2.3.4, and site uk is seen at 5.6.7.8: "), "{found:?}");
            assert!(found.text.contains(words) && found.remedy.is_some(), "{found:?}");
        }
    }
}
