//! Whose turn it is to be asked for: all names where they are few, and of many those that matter, then some of the rest.
//!
//! Pure. First those that were never asked for, are served elsewhere now, or were not ok; then the rest, the longest not
//! asked for first, as many as the rate has left. A minute's worth is the most at once.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use super::chain::Chain;

/// What came of asking for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Chain(Arc<Chain>),
    NotACertificate,
    Refused(String),
    Unreachable(String),
}

/// When a name was asked for last.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub at: SocketAddr,
    /// Since the boot.
    pub when: Duration,
    pub heard: Heard,
    /// SHA-256 of all that was served, and of whom we trusted.
    pub digest: [u8; 32],
    /// What was judged of it was ok.
    pub is_ok: bool,
}

/// How many calm names may be asked for still.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    left: f64,
    filled: Option<Duration>,
}

impl Turn {
    pub(super) fn pick<'a>(
        &mut self,
        names: impl Iterator<Item = (&'a str, SocketAddr)>,
        asked: &BTreeMap<String, Asked>,
        rate: u32,
        boot: Duration,
    ) -> Vec<(String, SocketAddr)> {
        let most = f64::from(rate) * 60.0;
        let since = self.filled.map_or(60.0, |filled| boot.saturating_sub(filled).as_secs_f64());
        self.left = (self.left + since * f64::from(rate)).min(most);
        self.filled = Some(boot);
        let (mut pressing, mut calm) = (Vec::new(), Vec::new());
        for (name, at) in names {
            match asked.get(name) {
                Some(known) if known.at == at && known.is_ok => calm.push((known.when, name, at)),
                known => pressing.push((known.map(|known| known.when), name, at)),
            }
        }
        pressing.sort();
        calm.sort();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is small and not below 0")]
        let (most, left) = (most as usize, self.left as usize);
        let some = left.min(calm.len());
        #[expect(clippy::cast_precision_loss, reason = "it is small")]
        {
            self.left -= some as f64;
        }
        let pressing = pressing.into_iter().map(|(_, name, at)| (name.to_owned(), at)).take(most);
        pressing.chain(calm.into_iter().map(|(_, name, at)| (name.to_owned(), at)).take(some)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 443);

    fn asked(when: u64, is_ok: bool) -> Asked {
        let heard = Heard::Unreachable(String::new());
        Asked { at: AT, when: Duration::from_secs(when), heard, digest: [0; 32], is_ok }
    }

    fn turn(turn: &mut Turn, names: &[String], known: &BTreeMap<String, Asked>, rate: u32, now: u64) -> Vec<String> {
        let names = names.iter().map(|name| (name.as_str(), AT));
        let picked = turn.pick(names, known, rate, Duration::from_secs(now));
        picked.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn few_are_all_asked_for_each_minute() {
        let names: Vec<String> = (0..100).map(|n| format!("{n}.test")).collect();
        let known = names.iter().map(|name| (name.clone(), asked(0, true))).collect();
        let mut state = Turn::default();
        for minute in 1..10 {
            assert_eq!(turn(&mut state, &names, &known, 20, minute * 60).len(), 100);
        }
    }

    #[test]
    fn of_many_those_that_matter_come_first_and_each_has_its_turn() {
        let names: Vec<String> = (0..10_000).map(|n| format!("{n}.test")).collect();
        let mut known: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), asked(0, true))).collect();
        known.insert("7.test".to_owned(), asked(0, false));
        known.remove("9.test");
        let mut state = Turn::default();
        let first = turn(&mut state, &names, &known, 20, 60);
        assert_eq!((first.len(), &first[..2]), (1_202, &["9.test".to_owned(), "7.test".to_owned()][..]));
        for name in first {
            known.insert(name, asked(60, true));
        }
        assert_eq!(turn(&mut state, &names, &known, 20, 61).len(), 20, "a second later");
        for minute in 2..20 {
            for name in turn(&mut state, &names, &known, 20, minute * 60) {
                known.insert(name, asked(minute * 60, true));
            }
        }
        assert!(known.values().all(|asked| asked.when > Duration::ZERO), "somebody was never asked for");
    }
}
