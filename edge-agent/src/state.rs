//! How the agent itself is: whether the provider is heard and hears it, what waits, whether the clock can be believed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use charliehub_proto::expected::Expected;
use jiff::Timestamp;
use metrics::gauge;

use crate::{catalogue::Check, clock::Now, look::Look, metrics::EXPECTED_AGE, sample::Sample};

pub const CHECKS: &[Check] = &[
    Check {
        name: PROVIDER,
        what: "the provider says what is expected, and takes our reports",
        why: "Without it the agent goes on with what it heard last, kept on disk, and its own file; its reports wait in the \
              spool and are delivered in order when the provider is back. Unknown: it does not answer, refuses us, or says \
              what we do not understand; the text has its words.",
    },
    Check {
        name: EXPECTATION,
        what: "something is expected: by the provider, by what it said last, or by the agent's own file",
        why: "With nothing to hold reality against, no tunnel, rule or name is looked at. Unknown until the provider was \
              heard once; write [[sites]] and [policy] into the agent's own file where there is no provider.",
    },
    Check {
        name: CLOCK,
        what: "the hour can be believed",
        why: "Ages of handshakes and validity of certificates are judged by the hour. When it is set by more than 2 s, they \
              are unknown until it kept pace for two looks. A clock that jumps again and again wants NTP: `timedatectl`.",
    },
    Check {
        name: crate::steady::FLAPPING,
        what: "a target that changed six times within ten minutes",
        why: "It is held at its worst for ten minutes, so that it alarms once and not six times.",
    },
    Check {
        name: crate::steady::LOOK,
        what: "a group of checks whose look did not end",
        why: "A look that hangs or panics is given up after 10 s; all of its targets are unknown until one ends. The log has \
              the reason.",
    },
];

const PROVIDER: &str = "provider";
const EXPECTATION: &str = "expectation";
const CLOCK: &str = "clock";

/// What the tasks of the agent say of themselves.
#[derive(Debug, Default)]
pub struct State(Mutex<Said>);

#[derive(Clone, Debug, Default)]
struct Said {
    /// Of the last question what is expected; none: no provider, or not asked yet.
    heard: Option<Result<Timestamp, String>>,
    heard_last: Option<Timestamp>,
    /// Of the last report.
    reported: Option<Result<(), String>>,
    /// Reports that wait, and those that were lost since the start.
    waiting: usize,
    lost: u64,
}

impl State {
    /// What became of a question what is expected.
    pub fn heard(&self, result: Result<(), String>) {
        let mut said = self.lock();
        if result.as_ref().err() != said.heard.as_ref().and_then(|last| last.as_ref().err()) {
            match &result {
                Ok(()) => tracing::info!("the provider says what is expected"),
                Err(why) => {
                    tracing::warn!(why, "the provider does not say what is expected; what was heard last stays");
                }
            }
        }
        if result.is_ok() {
            said.heard_last = Some(Timestamp::now());
        }
        said.heard = Some(result.map(|()| Timestamp::now()));
    }

    /// What became of a report, and how many wait and were lost.
    pub fn reported(&self, result: Result<(), String>, waiting: usize, lost: u64) {
        let mut said = self.lock();
        if result.as_ref().err() != said.reported.as_ref().and_then(|last| last.as_ref().err()) {
            match &result {
                Ok(()) => tracing::info!(waiting, "the provider takes reports"),
                Err(why) => tracing::warn!(why, waiting, "the provider does not take reports; they wait"),
            }
        }
        (said.reported, said.waiting, said.lost) = (Some(result), waiting, lost);
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The group of the agent's own checks.
#[derive(Debug)]
pub struct Own {
    pub state: Arc<State>,
    /// The provider's URL, where there is one.
    pub provider: Option<String>,
}

impl Look for Own {
    const NAME: &'static str = "agent";

    async fn look(&mut self, expected: &Arc<Expected>, now: Now) -> Vec<Sample> {
        let said = self.state.lock().clone();
        let mut samples = vec![clock(now), expectation(expected, self.provider.as_deref())];
        if let Some(url) = &self.provider {
            if let Some(last) = said.heard_last {
                gauge!(EXPECTED_AGE).set(now.wall.duration_since(last).as_secs_f64().max(0.0));
            }
            samples.extend(provider(url, &said));
        }
        samples
    }
}

fn clock(now: Now) -> Sample {
    if now.is_trusted {
        return Sample::ok(CLOCK, "host", "the hour keeps pace");
    }
    Sample::unknown(CLOCK, "host", "the hour was set a moment ago; what is judged by it waits")
        .remedy("if it is set again and again: `timedatectl`, and one NTP service")
        .confirmed_by(1)
}

fn expectation(expected: &Expected, provider: Option<&str>) -> Sample {
    let Expected { sites, names, policy, revision, .. } = expected;
    if !sites.is_empty() || !names.is_empty() || *policy != charliehub_proto::policy::Policy::default() {
        let of = if *revision > 0 { format!(" of revision {revision}") } else { String::new() };
        let text = format!("{} sites and {} names{of}", sites.len(), names.len());
        return Sample::ok(EXPECTATION, "host", text);
    }
    let remedy = if provider.is_some() {
        "see `provider`; in the database: sites, and a policy for this agent"
    } else {
        "write [[sites]] and [policy] into the agent's file, or name a [provider]"
    };
    Sample::unknown(EXPECTATION, "host", "nothing is expected, so nothing is looked at").remedy(remedy)
}

fn provider(url: &str, said: &Said) -> Option<Sample> {
    let waiting = match (said.waiting, said.lost) {
        (0, 0) => String::new(),
        (waiting, 0) => format!("; {waiting} reports wait"),
        (waiting, lost) => format!("; {waiting} reports wait, {lost} were lost"),
    };
    let heard = said.heard.as_ref()?;
    let trouble = heard.as_ref().err().or(said.reported.as_ref().and_then(|last| last.as_ref().err()));
    Some(match trouble {
        None => Sample::ok(PROVIDER, url, format!("it says what is expected, and takes reports{waiting}")),
        Some(why) => Sample::unknown(PROVIDER, url, format!("{why}{waiting}"))
            .remedy("`charliehub-provider check` on its machine; the agent asks again by itself"),
    })
}

#[cfg(test)]
mod tests {
    use charliehub_proto::finding::Status;

    use super::*;

    #[test]
    fn the_provider_is_told_with_its_words_and_what_waits() {
        let state = State::default();
        let judged = |state: &State| provider("http://p", &state.lock());
        assert_eq!(judged(&state), None, "not asked yet");
        state.heard(Ok(()));
        state.reported(Ok(()), 0, 0);
        assert_eq!(judged(&state).unwrap().status, Status::Ok);
        state.reported(Err("it answers 503: busy".to_owned()), 3, 1);
        let unknown = judged(&state).unwrap();
        assert_eq!(
            (unknown.status, &*unknown.text),
            (Status::Unknown, "it answers 503: busy; 3 reports wait, 1 were lost")
        );
    }

    #[test]
    fn nothing_expected_is_unknown() {
        assert_eq!(expectation(&Expected::default(), None).status, Status::Unknown);
        let mut expected = Expected { revision: 7, ..Expected::default() };
        expected.names.insert("a.test".to_owned(), charliehub_proto::expected::Served::default());
        assert_eq!(expectation(&expected, None).text, "0 sites and 1 names of revision 7");
    }
}
