//! Writes down who was turned away, in its own time: a request only leaves a note.
//!
//! Who came with a valid token gets a row for each refusal, with what and why. All others, and those who were too fast, are
//! counted, in one row for each minute, address and kind: a flood fills neither the memory nor the disk. What does not fit
//! is counted too, and said.

use std::{
    collections::BTreeMap,
    mem,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::Event;
use crate::postgres::{self, Pool};

/// Notes that wait for the database, and groups that are counted in a minute. Beyond, they are only counted.
const WAITING: usize = 1000;
const EVERY: Duration = Duration::from_secs(1);
const MINUTE: i64 = 60;

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub address: IpAddr,
    /// The owner of a valid token.
    pub actor: Option<String>,
    pub status: u16,
    /// The word of the problem, such as `forbidden`.
    pub problem: String,
    pub why: String,
    pub method: String,
    pub path: String,
    pub request_id: Option<String>,
}

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    minute: i64,
    /// None: more came from elsewhere than we count.
    address: Option<IpAddr>,
    actor: Option<String>,
    problem: String,
}

#[derive(Debug, Default)]
struct Notes {
    one_by_one: Vec<Refusal>,
    counted: BTreeMap<Group, u64>,
    lost: u64,
}

/// The notes of refusals that are not written down yet.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Notes>);

impl Refusals {
    /// Leaves a note. Never waits for more than another note.
    pub fn note(&self, refusal: Refusal, now: Timestamp) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if refusal.actor.is_some() && refusal.status != 429 {
            if notes.one_by_one.len() < WAITING {
                notes.one_by_one.push(refusal);
            } else {
                notes.lost += 1;
            }
            return;
        }
        let Refusal { address, actor, problem, .. } = refusal;
        let minute = now.as_second().div_euclid(MINUTE);
        let mut group = Group { minute, address: Some(address), actor, problem };
        if notes.counted.len() >= WAITING && !notes.counted.contains_key(&group) {
            group = Group { address: None, actor: None, ..group };
        }
        *notes.counted.entry(group).or_default() += 1;
    }

    /// Takes what can be written: each note, and the counts of minutes that are over (of all when `all`).
    fn take(&self, now: Timestamp, all: bool) -> Notes {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now.as_second().div_euclid(MINUTE);
        let counted = mem::take(&mut notes.counted);
        let (over, running) = counted.into_iter().partition(|(group, _)| all || group.minute < minute);
        notes.counted = running;
        Notes { one_by_one: mem::take(&mut notes.one_by_one), counted: over, lost: mem::take(&mut notes.lost) }
    }

    /// Puts back what could not be written, before what came since.
    fn put_back(&self, mut old: Notes) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.lost += old.lost;
        old.one_by_one.append(&mut notes.one_by_one);
        notes.lost += u64::try_from(old.one_by_one.len().saturating_sub(WAITING)).unwrap_or(u64::MAX);
        old.one_by_one.truncate(WAITING);
        notes.one_by_one = old.one_by_one;
        for (group, count) in old.counted {
            let fits = notes.counted.len() < WAITING || notes.counted.contains_key(&group);
            let group = if fits { group } else { Group { address: None, actor: None, ..group } };
            *notes.counted.entry(group).or_default() += count;
        }
    }

    /// Writes notes down until `stop`, then what is left.
    pub async fn keep(&self, pool: Pool, stop: CancellationToken) {
        let mut failing = false;
        loop {
            let stopped = tokio::select! { () = sleep(EVERY) => false, () = stop.cancelled() => true };
            let notes = self.take(Timestamp::now(), stopped);
            if stopped {
                // A database that is away must not hold us up.
                drop(timeout(EVERY, write(&pool, &notes)).await);
                return;
            }
            let written = write(&pool, &notes).await;
            if let Err(error) = &written {
                if !failing {
                    tracing::warn!(%error, "refusals cannot be written to the audit; trying again");
                }
                self.put_back(notes);
            }
            failing = written.is_err();
        }
    }
}

/// One transaction for all of them: the chain is locked once.
async fn write(pool: &Pool, notes: &Notes) -> Result<(), postgres::Error> {
    if notes.one_by_one.is_empty() && notes.counted.is_empty() && notes.lost == 0 {
        return Ok(());
    }
    write_to(&mut *pool.get().await?, notes).await.map_err(Into::into)
}

async fn write_to(client: &mut Client, notes: &Notes) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    for event in events(notes) {
        event.write(&transaction).await?;
    }
    transaction.commit().await
}

fn events(notes: &Notes) -> impl Iterator<Item = Event<'_>> {
    let one_by_one = notes.one_by_one.iter().map(|refusal| {
        let Refusal { status, problem, why, method, path, request_id, .. } = refusal;
        let detail = json!({ "problem": problem, "status": status, "why": why, "method": method, "path": path,
                             "request_id": request_id });
        event(refusal.actor.as_deref(), Some(refusal.address), detail)
    });
    let counted = notes.counted.iter().map(|(group, count)| {
        let minute = Timestamp::from_second(group.minute * MINUTE).unwrap_or_default();
        let detail = json!({ "problem": group.problem, "minute": minute, "count": count });
        event(group.actor.as_deref(), group.address, detail)
    });
    let lost = (notes.lost > 0).then(|| event(None, None, json!({ "problem": "lost", "count": notes.lost })));
    one_by_one.chain(counted).chain(lost)
}

fn event(actor: Option<&str>, address: Option<IpAddr>, detail: serde_json::Value) -> Event<'_> {
    let address = address.map(|address| address.to_string());
    Event { actor: actor.unwrap_or("unknown"), source: "api", address, kind: "refused", detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(last: u8, actor: Option<&str>) -> Refusal {
        Refusal {
            address: IpAddr::from([192, 0, 2, last]),
            actor: actor.map(str::to_owned),
            status: if actor.is_some() { 403 } else { 401 },
            problem: "forbidden".to_owned(),
            why: "role `reader` may not do this".to_owned(),
            method: "POST".to_owned(),
            path: "/api/domains".to_owned(),
            request_id: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_flood_is_one_row_for_each_address_and_minute() {
        let refusals = Refusals::default();
        for second in 0..120 {
            for last in 1..=2 {
                refusals.note(refusal(last, None), at(second));
            }
        }
        let notes = refusals.take(at(119), false);
        let counts: Vec<u64> = notes.counted.values().copied().collect();
        assert_eq!(counts, [60, 60], "the minute under way is not over");
        let details: Vec<_> = events(&notes).map(|event| (event.address, event.detail["minute"].clone())).collect();
        assert_eq!(details[1], (Some("192.0.2.2".to_owned()), "1970-01-01T00:00:00Z".into()));
        assert_eq!(refusals.take(at(119), true).counted.len(), 2, "but told at the end");
        assert!(refusals.take(at(999), true).counted.is_empty());
    }

    #[test]
    fn a_flood_from_everywhere_stays_small_and_loses_no_count() {
        let refusals = Refusals::default();
        for n in 0..10_000_u32 {
            let address = IpAddr::from(n.to_be_bytes());
            refusals.note(Refusal { address, ..refusal(0, None) }, at(0));
        }
        let notes = refusals.take(at(60), false);
        assert!(notes.counted.len() <= WAITING + 1, "{}", notes.counted.len());
        assert_eq!(notes.counted.values().sum::<u64>(), 10_000);
    }

    #[test]
    fn each_refusal_of_a_valid_token_has_its_row_and_what_does_not_fit_is_said() {
        let refusals = Refusals::default();
        for _ in 0..WAITING + 5 {
            refusals.note(refusal(1, Some("rita")), at(0));
        }
        refusals.note(Refusal { status: 429, ..refusal(1, Some("rita")) }, at(0));
        let notes = refusals.take(at(0), true);
        assert_eq!((notes.one_by_one.len(), notes.lost, notes.counted.len()), (WAITING, 5, 1), "too fast: counted");
        let told: Vec<_> = events(&notes).collect();
        assert_eq!((told[0].actor, told[0].detail["path"].as_str()), ("rita", Some("/api/domains")));
        assert_eq!(told.last().unwrap().detail["count"], 5);
        refusals.note(refusal(2, Some("later")), at(1));
        refusals.put_back(notes);
        let notes = refusals.take(at(1), true);
        assert_eq!((notes.one_by_one.len(), notes.lost), (WAITING, 6), "the oldest stay");
    }
}
