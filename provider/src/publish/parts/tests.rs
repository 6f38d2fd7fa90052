//! Readings in, and what those are given who are given a part.

use charliehub_proto::domain::Domain;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::{
    compile::tests::domain_with,
    config::Selector,
    row::{Key, Row},
    store::rows::Fetched,
};

/// A database in miniature, with what is given to `berlin`, to `rome`, and to all others.
struct Edge {
    parts: Parts,
    current: Arc<Current>,
    rows: Rows,
    history: Vec<Rows>,
    now: Instant,
}

fn site(name: &str) -> Selector {
    Selector { site: Some(name.to_owned()), ..Selector::default() }
}

fn held(revision: usize) -> Held {
    Held { revision: i64::try_from(revision).unwrap(), token: Uuid::nil() }
}

/// Row `n`, on a host of its own.
fn row(n: u128, columns: &Value) -> (Key, Option<Row>) {
    let key = Key::domain(Uuid::from_u128(n));
    (key, Some(Row::Domain(Domain { id: key.id, ..domain_with(&format!("h{n}.test"), columns) })))
}

fn of(n: u128, site: &str) -> (Key, Option<Row>) {
    row(n, &json!({ "site": site }))
}

fn gone(n: u128) -> (Key, Option<Row>) {
    (Key::domain(Uuid::from_u128(n)), None)
}

impl Edge {
    /// One without rows.
    fn empty() -> Self {
        let selectors = ["berlin", "rome"].map(|name| (name.into(), site(name)));
        let current = Arc::new(Current::divided(selectors));
        let limits = Limits { max_removed: 3, max_removed_percent: 30, ..Limits::default() };
        let settings = Settings { internal_networks: vec!["10.44.0.0/16".parse().unwrap()], ..Settings::default() };
        let parts = Parts::new(&Arc::new(settings), limits, Arc::clone(&current));
        Self { parts, current, rows: Rows::new(), history: Vec::new(), now: Instant::now() }
    }

    /// Rows 0 to 9 in Berlin and 10 to 19 in Rome, as revision 1.
    fn new() -> Self {
        let mut edge = Self::empty();
        edge.commit((0..10).map(|n| of(n, "berlin")).chain((10..20).map(|n| of(n, "rome"))));
        edge
    }

    /// A new revision with these changes, which is read; who has something to keep of it.
    fn commit(&mut self, changes: impl IntoIterator<Item = (Key, Option<Row>)>) -> Vec<Option<usize>> {
        let changes: Vec<Fetched> =
            changes.into_iter().map(|(key, row)| Fetched { key, row: row.map(Arc::new), hash: 0 }).collect();
        for fetched in &changes {
            match fetched.row.clone() {
                Some(row) => drop(self.rows.insert(fetched.key, row)),
                None => drop(self.rows.remove(&fetched.key)),
            }
        }
        self.history.push(self.rows.clone());
        let held = held(self.history.len());
        let reading = Reading { held, everything: false, forked: false, at: None, rows: changes };
        let decided = self.parts.take(reading, self.now);
        decided.into_iter().filter(|(_, one)| !matches!(one, Outcome::Nothing)).map(|(part, _)| part).collect()
    }

    fn approve(&mut self, revision: usize) {
        let rows = self.history[revision - 1].clone();
        self.parts.approve(held(revision), &rows, self.now);
    }

    /// How many routers an instance is given, of which revision, and which waits there.
    fn told(&self, instance: &str) -> (usize, i64, Option<i64>) {
        let snapshot = self.current.load_for(instance).unwrap();
        (snapshot.size.routes, snapshot.held.revision, snapshot.withheld)
    }

    fn config(&self, instance: &str) -> Value {
        serde_json::from_slice(&self.current.load_for(instance).unwrap().encoded.identity()).unwrap()
    }
}

#[test]
fn a_change_is_news_to_those_alone_whom_it_concerns() {
    let mut edge = Edge::new();
    let (berlin, rome) = (edge.config("berlin"), edge.config("rome"));
    assert_eq!(edge.commit([of(20, "berlin")]), [None, Some(0)]);
    assert_eq!(
        (edge.told("hub2"), edge.told("berlin"), edge.told("rome")),
        ((21, 2, None), (11, 2, None), (10, 2, None))
    );
    assert_ne!(edge.config("berlin"), berlin);
    assert_eq!(edge.config("rome"), rome);
    assert_eq!(edge.commit([of(20, "rome")]), [None, Some(0), Some(1)], "it moved");
    assert_eq!((edge.told("berlin").0, edge.told("rome").0), (10, 11));
    assert_eq!(edge.config("berlin"), berlin);
}

#[test]
fn what_is_too_much_for_one_part_waits_there_alone() {
    let mut edge = Edge::new();
    edge.commit((0..5).map(gone));
    assert_eq!(
        (edge.told("hub2"), edge.told("berlin"), edge.told("rome")),
        ((15, 2, None), (10, 1, Some(2)), (10, 2, None))
    );
    assert_eq!(edge.parts.withheld(), [held(2)]);
    edge.commit([of(20, "rome")]);
    assert_eq!((edge.told("berlin"), edge.told("rome")), ((10, 1, Some(3)), (11, 3, None)));
    edge.approve(3);
    assert_eq!((edge.told("berlin"), edge.told("hub2")), ((5, 3, None), (16, 3, None)));
    assert!(edge.parts.withheld().is_empty());
}

#[test]
fn many_small_falls_in_parts_are_one_large_fall() {
    let mut edge = Edge::new();
    edge.commit((0..3).chain(10..13).map(gone));
    assert_eq!((edge.told("berlin").0, edge.told("rome").0), (7, 7), "6 of 20 may go");
    edge.commit((3..5).chain(13..14).map(gone));
    let waits = |instance: &str| edge.told(instance).2;
    assert_eq!((waits("hub2"), waits("berlin"), waits("rome")), (Some(3), Some(3), Some(3)));
    edge.approve(3);
    assert_eq!(
        (edge.told("hub2"), edge.told("berlin"), edge.told("rome")),
        ((11, 3, None), (5, 3, None), (6, 3, None))
    );
}

#[test]
fn an_older_revision_is_agreed_to_wherever_it_waits() {
    let mut edge = Edge::new();
    edge.commit((0..5).map(gone));
    edge.commit((10..15).map(gone));
    edge.approve(2);
    assert_eq!(edge.told("berlin").2, Some(3), "all of it waits, since too many went in all");
    assert_eq!(edge.told("berlin").0, 5, "what was agreed to runs");
    edge.approve(3);
    assert_eq!((edge.told("hub2").2, edge.told("berlin").2, edge.told("rome").2), (None, None, None));
}

#[test]
fn a_part_is_never_emptied_and_one_that_selects_nothing_is_given_nothing() {
    let selectors = [("berlin".into(), site("berlin")), ("oslo".into(), site("oslo"))];
    let current = Arc::new(Current::divided(selectors));
    let parts = Parts::new(&Arc::default(), Limits::default(), Arc::clone(&current));
    let mut edge = Edge { parts, current, rows: Rows::new(), history: Vec::new(), now: Instant::now() };
    edge.commit([of(1, "berlin"), of(2, "rome")]);
    assert!(edge.current.load_for("oslo").is_none(), "its polls are held");
    edge.commit([of(1, "rome")]);
    assert_eq!((edge.told("berlin"), edge.told("hub2")), ((1, 1, Some(2)), (2, 2, None)));
    edge.commit([of(2, "oslo")]);
    assert_eq!(edge.told("oslo"), (1, 3, None), "nothing ran there, so nothing waits");
}

#[test]
fn a_row_that_moved_and_waits_to_go_is_as_narrow_as_it_is_now() {
    let mut edge = Edge::new();
    edge.commit((0..5).map(|n| row(n, &json!({ "site": "rome", "access_tier": "internal" }))));
    assert_eq!((edge.told("berlin"), edge.told("rome")), ((10, 1, Some(2)), (15, 2, None)));
    let config = edge.config("berlin");
    for n in 0..5 {
        let middlewares = &config["http"]["routers"][format!("h{n}.test")]["middlewares"];
        assert_eq!(middlewares, &json!(["charliehub-internal"]), "{config}");
    }
}

#[test]
fn a_start_without_a_database_serves_each_its_own() {
    let mut edge = Edge::new();
    edge.commit((0..5).map(gone));
    let good = |instance: &str, rows: &Rows| {
        let snapshot = edge.current.load_for(instance).unwrap();
        Good { held: snapshot.held, size: snapshot.size, encoded: Arc::clone(&snapshot.encoded), rows: rows.clone() }
    };
    let berlin = good("berlin", &Division::select(&site("berlin"), &edge.history[0]));
    let rome = good("rome", &Division::select(&site("rome"), &edge.history[1]));
    let mut next = Edge::empty();
    next.parts.resume(Some(0), berlin);
    next.parts.resume(Some(1), rome);
    assert_eq!((next.told("berlin"), next.told("rome")), ((10, 1, None), (10, 2, None)));
    next.commit((5..10).map(|n| of(n, "berlin")).chain((10..20).map(|n| of(n, "rome"))));
    assert_eq!(next.told("berlin"), (10, 1, Some(1)), "it is held against what ran before");
    assert_eq!(next.told("rome"), (10, 1, None));
}
