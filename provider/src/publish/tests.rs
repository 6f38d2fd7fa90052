//! Readings in, and what Traefik would be told then.

use std::time::Duration;

use charliehub_proto::domain::AccessTier;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    compile::{ForwardAuth, tests::domain_with},
    row::Table,
    store::rows::Fetched,
};

/// A database in miniature with its publisher.
struct Edge {
    publisher: Publisher,
    current: Arc<Current>,
    rows: Rows,
    /// The rows behind what runs, as they were told.
    behind: Rows,
    /// The rows of each revision, from 1.
    history: Vec<Rows>,
    now: Instant,
}

fn held(revision: usize) -> Held {
    Held { revision: i64::try_from(revision).unwrap(), token: Uuid::nil() }
}

fn limits() -> Limits {
    Limits { max_removed: 3, max_removed_percent: 30, max_quarantined: 3, ..Limits::default() }
}

fn key(n: u128) -> Key {
    Key::domain(Uuid::from_u128(n))
}

/// Row `n`, with some columns as given.
fn row(n: u128, name: &str, columns: &Value) -> (Key, Option<Row>) {
    (key(n), Some(Row::Domain(Domain { id: key(n).id, ..domain_with(name, columns) })))
}

fn public(n: u128) -> (Key, Option<Row>) {
    row(n, &format!("h{n}.test"), &json!({}))
}

fn gone(n: u128) -> (Key, Option<Row>) {
    (key(n), None)
}

impl Edge {
    fn new() -> Self {
        Self::with(limits())
    }

    fn with(limits: Limits) -> Self {
        let settings = Settings {
            forward_auth: Some(ForwardAuth {
                address: "http://127.0.0.1:9091".to_owned(),
                auth_response_headers: vec![],
            }),
            internal_networks: vec!["10.44.0.0/16".parse().unwrap()],
            ..Settings::default()
        };
        let current = Arc::new(Current::default());
        let publisher = Publisher::new(Arc::new(settings), limits, Arc::clone(&current));
        Self { publisher, current, rows: Rows::new(), behind: Rows::new(), history: Vec::new(), now: Instant::now() }
    }

    /// One that serves rows 0 to 9, each on a host of its own, as revision 1.
    fn of_ten() -> Self {
        let mut edge = Self::new();
        assert!(matches!(edge.commit((0..10).map(public)), Outcome::Served(_)));
        edge
    }

    /// A new revision with these changes, which is read.
    fn commit(&mut self, changes: impl IntoIterator<Item = (Key, Option<Row>)>) -> Outcome {
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
        let outcome = self.publisher.take(reading, self.now);
        self.kept(outcome)
    }

    /// All rows of the newest revision are read.
    fn read_all(&mut self) -> Outcome {
        let fetched = |(key, row): (&Key, &Arc<Row>)| Fetched { key: *key, row: Some(Arc::clone(row)), hash: 0 };
        let rows = self.rows.iter().map(fetched).collect();
        let held = held(self.history.len());
        let reading = Reading { held, everything: true, forked: false, at: None, rows };
        let outcome = self.publisher.take(reading, self.now);
        self.kept(outcome)
    }

    fn approve(&mut self, revision: usize) -> Outcome {
        let outcome = self.publisher.approve(held(revision), self.history[revision - 1].clone(), self.now);
        self.kept(outcome)
    }

    /// Keeps the rows that are told, and hands on what remains to be told of them.
    fn kept(&mut self, mut outcome: Outcome) -> Outcome {
        match &mut outcome {
            Outcome::Nothing => {}
            Outcome::Served(served) => {
                std::mem::replace(&mut served.rows, Behind::Since(BTreeMap::new())).bring(&mut self.behind);
                assert_eq!(self.behind, *self.publisher.newest().rows(), "what runs is the newest");
            }
            Outcome::Withheld { served, .. } => {
                let Behind::All(rows) = &served.rows else { panic!("{served:?}") };
                self.behind.clone_from(rows);
            }
        }
        outcome
    }

    /// Revision that runs, and the one that waits.
    fn told(&self) -> (i64, Option<i64>) {
        let snapshot = self.current.load().unwrap();
        (snapshot.held.revision, snapshot.withheld)
    }

    fn config(&self) -> Value {
        serde_json::from_slice(&self.current.load().unwrap().encoded.identity()).unwrap()
    }

    fn routers(&self) -> usize {
        self.config()["http"]["routers"].as_object().map_or(0, serde_json::Map::len)
    }

    /// The middlewares of what answers at `name`: a host and path. `None`: nothing does.
    fn guards(&self, name: &str) -> Option<Guards> {
        let config = self.config();
        let http = &config["http"];
        let router = http["routers"].get(name).or_else(|| http["routers"].get(name.split('/').next()?))?;
        let service = &http["services"][router["service"].as_str().unwrap_or_default()];
        let mut guards =
            Guards { closed: service["loadBalancer"]["servers"] == json!([]), auth: false, networks: None };
        for name in router["middlewares"].as_array().into_iter().flatten() {
            let middleware = &http["middlewares"][name.as_str().unwrap()];
            guards.auth |= !middleware["forwardAuth"].is_null();
            if let Some(list) = middleware["ipAllowList"]["sourceRange"].as_array() {
                guards.networks = Some(list.iter().map(|net| net.as_str().unwrap().parse().unwrap()).collect());
            }
        }
        Some(guards)
    }
}

/// What stands before a backend.
#[derive(Debug, PartialEq)]
struct Guards {
    closed: bool,
    auth: bool,
    networks: Option<Vec<ipnet::IpNet>>,
}

const OPEN: Option<Guards> = Some(Guards { closed: false, auth: false, networks: None });

impl Guards {
    /// True when nobody gets in who `row` would keep out.
    fn keep_out_as(&self, row: &Domain) -> bool {
        let allowed: Option<Vec<ipnet::IpNet>> = match row.access_tier {
            AccessTier::Public => None,
            AccessTier::Internal => Some(vec!["10.44.0.0/16".parse().unwrap()]),
            AccessTier::Restricted => Some(row.ip_allowlist.clone()),
        };
        let inside = |net: &ipnet::IpNet, list: &[ipnet::IpNet]| list.iter().any(|outer| outer.contains(net));
        let listed = allowed.is_none_or(|allowed| {
            self.networks.as_ref().is_some_and(|list| list.iter().all(|net| inside(net, &allowed)))
        });
        self.closed || (listed && (self.auth || !row.auth_required))
    }
}

#[test]
fn nothing_is_served_before_the_first_row() {
    let mut edge = Edge::new();
    assert!(matches!(edge.read_all(), Outcome::Nothing));
    assert!(edge.current.load().is_none());
    assert!(matches!(edge.commit([public(1)]), Outcome::Served(_)));
    assert_eq!((edge.told(), edge.guards("h1.test")), ((1, None), OPEN));
}

#[test]
fn what_traefik_would_not_notice_keeps_the_bytes() {
    let mut edge = Edge::of_ten();
    let before = edge.current.load().unwrap();
    assert!(matches!(edge.commit([row(1, "h1.test", &json!({"notes": "x"}))]), Outcome::Served(_)));
    let after = edge.current.load().unwrap();
    assert_eq!(after.held, held(2));
    assert!(Arc::ptr_eq(&before.encoded, &after.encoded));
    assert!(matches!(edge.read_all(), Outcome::Nothing), "the same rows at the same revision");
}

#[test]
fn a_mass_removal_waits_and_what_ran_goes_on() {
    let mut edge = Edge::of_ten();
    let outcome = edge.commit((0..5).map(gone));
    let Outcome::Withheld { served, candidate } = outcome else { panic!("{outcome:?}") };
    assert_eq!((candidate.held, candidate.size.routes), (held(2), 5));
    let Behind::All(rows) = &served.rows else { panic!("{served:?}") };
    assert_eq!((rows.len(), edge.routers(), edge.told()), (10, 10, (1, Some(2))));
    assert_eq!(edge.publisher.withheld(), [held(2)]);
}

#[test]
fn a_tightening_does_not_wait_and_an_opening_does() {
    let mut edge = Edge::of_ten();
    edge.commit((30..40).map(public).chain([row(9, "h9.test", &json!({"auth_required": true}))]));
    edge.commit((0..5).chain(30..40).map(gone));
    edge.commit([
        row(6, "h6.test", &json!({"access_tier": "internal"})),
        row(7, "h7.test", &json!({"auth_required": true})),
        row(9, "h9.test", &json!({})),
        row(20, "h8.test", &json!({"path_prefix": "/admin", "auth_required": true})),
        row(21, "h21.test", &json!({"auth_required": true})),
        row(22, "h22.test", &json!({})),
    ]);
    assert_eq!(edge.told(), (2, Some(4)));
    assert_eq!(edge.guards("h6.test").unwrap().networks, Some(vec!["10.44.0.0/16".parse().unwrap()]));
    for name in ["h7.test", "h9.test", "h8.test/admin"] {
        assert!(edge.guards(name).unwrap().auth, "{name}");
    }
    assert_eq!(edge.guards("h8.test"), OPEN);
    assert_eq!((edge.guards("h21.test"), edge.guards("h22.test")), (None, None), "hosts that do not run");
    assert_eq!(edge.guards("h1.test"), OPEN, "a removal that waits");
}

#[test]
fn a_protected_place_holds_however_the_row_came_there() {
    for columns in [json!({"auth_required": true}), json!({"access_tier": "internal"})] {
        let mut edge = Edge::of_ten();
        edge.commit((30..40).map(public));
        edge.commit([
            row(10, "h8.test", &json!({"path_prefix": "/admin", "status": "draft"})),
            row(11, "*.wild.test", &json!({})),
        ]);
        edge.commit((0..5).chain(30..40).map(gone));
        let with = |more: &Value| {
            let mut all = columns.clone();
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        edge.commit([
            row(10, "h8.test", &with(&json!({"path_prefix": "/admin"}))),
            row(7, "h9.test", &with(&json!({"path_prefix": "/admin"}))),
            row(12, "a.wild.test", &columns),
        ]);
        for name in ["h8.test/admin", "h9.test/admin", "a.wild.test", "h7.test"] {
            let guards = edge.guards(name).unwrap();
            assert!(!guards.closed && (guards.auth || guards.networks.is_some()), "{name}: {guards:?}");
        }
        assert_eq!((edge.guards("h8.test"), edge.guards("h9.test")), (OPEN, OPEN));
    }
}

#[test]
fn rows_written_anew_under_other_ids_close_nothing() {
    let mut edge = Edge::of_ten();
    let anew = (0..5).map(|n| row(100 + n, &format!("h{n}.test"), &json!({"auth_required": true})));
    let outcome = edge.commit((0..10).map(gone).chain(anew));
    assert!(matches!(outcome, Outcome::Withheld { .. }));
    assert_eq!(edge.guards("h1.test"), Some(Guards { closed: false, auth: true, networks: None }));
    assert_eq!((edge.guards("h9.test"), edge.routers()), (OPEN, 10));
}

#[test]
fn a_small_removal_applies_while_a_large_one_waits() {
    let mut edge = Edge::of_ten();
    edge.commit((0..5).map(gone));
    edge.commit([gone(8)]);
    assert_eq!((edge.guards("h8.test"), edge.guards("h1.test"), edge.routers()), (None, OPEN, 9));
    edge.commit([row(7, "h7.test", &json!({"status": "disabled"})), gone(6)]);
    assert_eq!((edge.guards("h7.test"), edge.routers()), (None, 7));
    edge.commit([gone(9)]);
    assert_eq!(edge.routers(), 7, "many small ones are a large one");
    assert_eq!(edge.publisher.withheld(), [held(2), held(3), held(4), held(5)]);
}

#[test]
fn what_a_small_removal_took_can_be_put_back() {
    let mut edge = Edge::of_ten();
    edge.commit((0..5).map(gone));
    edge.commit([row(8, "h8.test", &json!({"status": "disabled"}))]);
    assert_eq!(edge.guards("h8.test"), None);
    edge.commit([row(8, "h8.test", &json!({"auth_required": true}))]);
    assert_eq!(edge.told(), (1, Some(4)));
    assert!(edge.guards("h8.test").unwrap().auth);
}

#[test]
fn a_protection_stays_as_long_as_the_neighbour_that_it_is_cut_out_of() {
    let admin = |n: u128| row(n, "h1.test", &json!({"path_prefix": "/admin", "auth_required": true}));
    let mut edge = Edge::of_ten();
    edge.commit([admin(50), row(51, "h8.test", &json!({"path_prefix": "/admin", "auth_required": true}))]);
    edge.commit((0..5).map(gone));
    edge.commit([gone(50), gone(51)]);
    assert!(edge.guards("h1.test/admin").unwrap().auth, "h1.test waits to be removed, and runs");
    assert_eq!(edge.guards("h8.test/admin"), OPEN, "the newest rows say so");
}

#[test]
fn rows_put_back_end_it() {
    let mut edge = Edge::of_ten();
    edge.commit((0..5).map(gone));
    let outcome = edge.commit((0..5).map(public));
    assert!(matches!(outcome, Outcome::Served(_)));
    assert_eq!((edge.told(), edge.routers(), edge.publisher.withheld()), ((3, None), 10, &[][..]));
}

#[test]
fn an_approval_of_the_newest_makes_it_run() {
    let mut edge = Edge::of_ten();
    edge.commit((0..10).map(gone));
    assert_eq!(edge.publisher.reason(), Some(Reason::Empty { before: 10 }));
    edge.commit((0..2).map(public));
    assert!(matches!(edge.approve(3), Outcome::Served(_)));
    assert_eq!((edge.told(), edge.routers(), edge.publisher.reason()), ((3, None), 2, None));
    assert!(matches!(edge.approve(3), Outcome::Nothing), "nothing waits any more");
}

#[test]
fn an_approval_of_an_older_one_is_the_measure_for_those_after_it() {
    let mut edge = Edge::of_ten();
    edge.commit((0..4).map(gone));
    edge.commit((4..9).map(gone));
    assert_eq!(edge.told(), (1, Some(3)));
    assert!(matches!(edge.approve(2), Outcome::Withheld { .. }), "5 of the 6 left would go");
    assert_eq!((edge.told(), edge.routers()), ((2, Some(3)), 6));
    assert_eq!(edge.publisher.withheld(), [held(3)]);

    let mut edge = Edge::of_ten();
    edge.commit((0..4).map(gone));
    edge.commit([gone(4)]);
    assert!(matches!(edge.approve(2), Outcome::Served(_)), "the step after it is a small one");
    assert_eq!((edge.told(), edge.routers()), ((3, None), 5));
}

/// What [`Edge::of_ten`] leaves behind for the next start.
fn left_behind(edge: &Edge) -> Good {
    let snapshot = edge.current.load().unwrap();
    Good { held: snapshot.held, size: snapshot.size, encoded: Arc::clone(&snapshot.encoded), rows: edge.rows.clone() }
}

#[test]
fn a_start_with_a_shrunken_database_keeps_the_routes() {
    let good = left_behind(&Edge::of_ten());
    let (bytes, rows) = (Arc::clone(&good.encoded), good.rows.clone());
    let mut edge = Edge::new();
    edge.publisher.resume(good);
    assert_eq!((edge.told(), edge.routers()), ((1, None), 10));
    edge.history = vec![rows];
    let outcome = edge.commit([public(1), row(2, "h2.test", &json!({"auth_required": true}))]);
    assert!(matches!(outcome, Outcome::Withheld { .. }));
    assert_eq!((edge.told(), edge.routers()), ((1, Some(2)), 10));
    assert!(edge.guards("h2.test").unwrap().auth);
    assert_ne!(edge.current.load().unwrap().digest(), &bytes.digest);
}

#[test]
fn a_start_whose_rows_are_forgotten_keeps_the_bytes() {
    for shrunken in [0, 2] {
        let good = Good { rows: Rows::new(), ..left_behind(&Edge::of_ten()) };
        let bytes = Arc::clone(&good.encoded);
        let mut edge = Edge::new();
        edge.publisher.resume(good);
        edge.history = vec![Rows::new()];
        assert!(matches!(edge.commit((0..shrunken).map(public)), Outcome::Withheld { .. }));
        assert_eq!((edge.told(), edge.routers()), ((1, Some(2)), 10));
        assert!(Arc::ptr_eq(&edge.current.load().unwrap().encoded, &bytes));
    }
}

#[test]
fn a_start_with_the_same_rows_serves_the_same_bytes() {
    let before = Edge::of_ten();
    for known in [true, false] {
        let mut good = left_behind(&before);
        let mut edge = Edge::new();
        (edge.rows, edge.history) = (good.rows.clone(), vec![good.rows.clone()]);
        if !known {
            good.rows = Rows::new();
        }
        let bytes = Arc::clone(&good.encoded);
        edge.publisher.resume(good);
        assert!(matches!(edge.read_all(), Outcome::Served(_)));
        assert!(Arc::ptr_eq(&edge.current.load().unwrap().encoded, &bytes));
    }
}

#[test]
fn many_rows_that_break_wait_and_leave_something_behind() {
    let broken = |n: u128| row(100 + n, &format!("b{n}.test"), &json!({"access_tier": "restricted"}));
    let mut edge = Edge::new();
    edge.commit((0..3).map(public));
    let outcome = edge.commit((0..9).map(broken).chain((0..3).map(gone)));
    let Outcome::Withheld { candidate, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(candidate.reason, Reason::Quarantine { rows: 9, allowed: 3 });
    assert_eq!(edge.routers(), 3, "all that ran is not a small removal");
    let mut edge = Edge::of_ten();
    edge.commit((0..9).map(broken).chain((0..3).map(gone)));
    assert_eq!(edge.routers(), 7, "small removals do not wait for rows that break");
}

#[test]
fn what_opens_a_protected_place_waits_where_that_is_asked_for() {
    let mut edge = Edge::with(Limits { hold_opening: true, hold_login_loss: true, ..limits() });
    let admin = |columns: Value| {
        let mut all = json!({"path_prefix": "/admin"});
        all.as_object_mut().unwrap().extend(columns.as_object().unwrap().clone());
        row(7, "h1.test", &all)
    };
    edge.commit((0..5).map(public).chain([admin(json!({"access_tier": "internal"}))]));
    edge.commit([row(3, "h3.test", &json!({"auth_required": true})), public(8)]);
    assert_eq!(edge.told(), (2, None), "new names and more protection are let through");

    edge.commit([admin(json!({}))]);
    assert_eq!(edge.publisher.reason(), Some(Reason::Opening { places: 1 }));
    edge.commit([public(9)]);
    assert_eq!((edge.told(), edge.publisher.reason()), ((2, Some(4)), Some(Reason::Opening { places: 1 })));
    assert!(edge.guards("h1.test/admin").unwrap().networks.is_some());
    edge.commit([gone(7)]);
    assert_eq!(edge.publisher.reason(), Some(Reason::Opening { places: 1 }), "a neighbour would answer for it");
    edge.commit([admin(json!({"access_tier": "internal"}))]);
    assert_eq!((edge.told(), edge.publisher.reason()), ((6, None), None), "it is as it was");

    edge.commit([public(3)]);
    assert_eq!(edge.publisher.reason(), Some(Reason::LoginLoss { places: 1 }));
    assert!(matches!(edge.approve(7), Outcome::Served(_)));
    assert_eq!((edge.told(), edge.guards("h3.test")), ((7, None), OPEN));
}

#[test]
fn what_opens_a_protected_place_waits_also_over_a_start() {
    let guarded = || Limits { hold_opening: true, ..limits() };
    let mut before = Edge::with(guarded());
    before.commit((1..5).map(public).chain([row(0, "h0.test", &json!({"access_tier": "internal"}))]));
    let good = left_behind(&before);
    let mut edge = Edge::with(guarded());
    (edge.rows, edge.history) = (good.rows.clone(), vec![good.rows.clone()]);
    edge.publisher.resume(good);
    edge.rows.extend([public(0)].into_iter().map(|(key, row)| (key, Arc::new(row.unwrap()))));
    edge.history.push(edge.rows.clone());
    assert!(matches!(edge.read_all(), Outcome::Withheld { .. }));
    assert!(edge.guards("h0.test").unwrap().networks.is_some());
}

/// A step of somebody's database.
#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(u128, Option<Shape>)>),
    Reread,
    /// Of the newest, or the oldest that waits.
    Approve {
        newest: bool,
    },
    /// Longer than the window.
    Later,
}

#[derive(Clone, Debug)]
struct Shape {
    host: u8,
    admin: bool,
    tier: u8,
    auth: bool,
    status: &'static str,
}

impl Shape {
    fn place(&self) -> (u8, bool) {
        (self.host, self.admin)
    }

    fn row(&self, n: u128) -> (Key, Option<Row>) {
        let (tier, list) = [
            ("public", json!([])),
            ("internal", json!([])),
            ("internal", json!(["10.44.1.0/24"])),
            ("restricted", json!(["10.44.0.0/20"])),
            ("restricted", json!(["192.0.2.0/24"])),
        ][usize::from(self.tier)]
        .clone();
        let path = if self.admin { "/admin" } else { "/" };
        let columns = json!({
            "path_prefix": path, "access_tier": tier, "ip_allowlist": list, "auth_required": self.auth,
            "status": self.status,
        });
        row(n, &format!("h{}.test", self.host), &columns)
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    let status = prop_oneof![5 => Just("active"), 1 => Just("disabled"), 1 => Just("maintenance")];
    (0..4u8, any::<bool>(), 0..5u8, any::<bool>(), status).prop_map(|(host, admin, tier, auth, status)| Shape {
        host,
        admin,
        tier,
        auth,
        status,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0..8u128, prop_oneof![1 => Just(None), 2 => shape().prop_map(Some)]);
    prop_oneof![
        12 => proptest::collection::vec(change, 0..8).prop_map(Step::Commit),
        1 => Just(Step::Reread),
        1 => any::<bool>().prop_map(|newest| Step::Approve { newest }),
        1 => Just(Step::Later),
    ]
}

/// Site `n` of the key's id with these networks.
fn site(n: u128, networks: &[&str]) -> (Key, Option<Row>) {
    let id = Uuid::from_u128(n);
    let site = json!({
        "id": id, "name": format!("s{n}"), "networks": networks, "tunnels": [], "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z", "version": 1,
    });
    (Key { table: Table::Sites, id }, Some(Row::Site(serde_json::from_value(site).unwrap())))
}

#[test]
fn a_site_that_goes_is_not_internal_any_more_also_while_a_revision_waits_and_one_that_comes_is_not_yet() {
    let mut edge = Edge::of_ten();
    let networks = |edge: &Edge| {
        let networks = edge.guards("in.test").unwrap().networks.unwrap();
        networks.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    edge.commit([
        row(20, "in.test", &json!({"access_tier": "internal"})),
        site(1, &["10.35.0.0/16"]),
        site(2, &["10.60.0.0/16"]),
    ]);
    assert_eq!(networks(&edge), ["10.35.0.0/16", "10.44.0.0/16", "10.60.0.0/16"]);
    assert!(matches!(edge.commit((0..8).map(gone)), Outcome::Withheld { .. }));
    edge.commit([(site(1, &[]).0, None), site(2, &["10.60.7.0/24"]), site(3, &["10.70.0.0/16"])]);
    assert_eq!(networks(&edge), ["10.44.0.0/16", "10.60.7.0/24"]);
    edge.commit((0..8).map(public));
    assert_eq!(networks(&edge), ["10.44.0.0/16", "10.60.7.0/24", "10.70.0.0/16"], "it waits no longer");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is committed: once something is served there always is a route, and nobody gets into a place whom the newest
    /// row at that place would keep out.
    #[test]
    fn there_is_always_a_route_and_none_is_more_open_than_the_newest_rows(
        steps in proptest::collection::vec(step(), 1..20),
        hold in any::<bool>(),
    ) {
        let limits = Limits { max_removed: 1, max_removed_percent: 20, hold_opening: hold, hold_login_loss: hold, ..limits() };
        let mut edge = Edge::with(limits);
        let mut shapes: BTreeMap<u128, Shape> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Commit(changes) => {
                    let mut commit = BTreeMap::new();
                    for (n, shape) in changes {
                        match shape {
                            None => {
                                shapes.remove(&n);
                                commit.insert(n, gone(n));
                            }
                            // The database has one row for a place.
                            Some(shape) if shapes.iter().all(|(m, other)| *m == n || other.place() != shape.place()) => {
                                commit.insert(n, shape.row(n));
                                shapes.insert(n, shape);
                            }
                            Some(_) => {}
                        }
                    }
                    edge.commit(commit.into_values());
                }
                Step::Reread => drop(edge.read_all()),
                Step::Approve { newest } => {
                    let waiting = edge.publisher.withheld();
                    let chosen = if newest { waiting.last() } else { waiting.first() };
                    if let Some(held) = chosen.copied()
                        && size(edge.publisher.newest()).routes > 0
                    {
                        edge.approve(usize::try_from(held.revision).unwrap());
                    }
                }
                Step::Later => edge.now += Duration::from_hours(1),
            }
            let Some(snapshot) = edge.current.load() else { continue };
            prop_assert!(edge.routers() > 0, "an empty config");
            prop_assert_eq!(snapshot.withheld.is_some(), edge.publisher.reason().is_some());
            for row in edge.rows.values().filter_map(|row| domain(row)).filter(|row| row.is_served()) {
                let name = Row::Domain(row.clone()).name();
                if let Some(guards) = edge.guards(&name) {
                    prop_assert!(guards.keep_out_as(row), "{}: {:?}, and the newest row is {:?}", name, guards, row);
                }
            }
        }
    }
}
