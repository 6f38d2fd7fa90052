use charliehub_proto::domain::DnsMode;
use serde_json::{Value, json};

use super::*;
use crate::compile::tests::domain_with;

fn key(table: Table, n: u128) -> Key {
    Key { table, id: Uuid::from_u128(n) }
}

fn name(n: u128, name: &str, columns: &Value) -> (Key, Option<Arc<Row>>) {
    let mut row = domain_with(name, columns);
    row.id = Uuid::from_u128(n);
    (key(Table::Domains, n), Some(Arc::new(Row::Domain(row))))
}

fn stamped(n: u128, mut fields: Value) -> Value {
    let stamps = json!({"id": Uuid::from_u128(n), "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "version": 1});
    fields.as_object_mut().unwrap().extend(stamps.as_object().unwrap().clone());
    fields
}

fn site(n: u128, name: &str, agent: &str) -> (Key, Option<Arc<Row>>) {
    let site = stamped(n, json!({"name": name, "agent": agent, "networks": ["10.44.0.0/16"], "tunnels": []}));
    (key(Table::Sites, n), Some(Arc::new(Row::Site(serde_json::from_value(site).unwrap()))))
}

fn policy(n: u128, agent: &str, unit: &str) -> (Key, Option<Arc<Row>>) {
    let policy = stamped(n, json!({"agent": agent, "body": {"units": [{"name": unit}]}}));
    (key(Table::Policies, n), Some(Arc::new(Row::Policy(serde_json::from_value(policy).unwrap()))))
}

fn peer(n: u128, name: &str, agents: &[&str]) -> (Key, Option<Arc<Row>>) {
    let peer = stamped(n, json!({"name": name, "agents": agents, "public_key": "k", "addresses": ["10.99.0.7/32"]}));
    (key(Table::Peers, n), Some(Arc::new(Row::Peer(serde_json::from_value(peer).unwrap()))))
}

/// Rows that are read one change after the other.
struct Story {
    compiler: Compiler,
    expectations: Expectations,
    revision: i64,
}

impl Story {
    fn new() -> Self {
        Self { compiler: Compiler::new(Arc::default()), expectations: Expectations::default(), revision: 0 }
    }

    /// Reads a change; true when who waits was woken.
    fn read(&mut self, changes: Vec<(Key, Option<Arc<Row>>)>) -> bool {
        let news = self.expectations.subscribe();
        let keys = changes.iter().map(|(key, _)| *key).collect();
        self.compiler.apply(changes);
        self.revision += 1;
        self.expectations.take(&self.compiler, Changed::These(keys), self.revision);
        news.has_changed().unwrap()
    }

    fn hub(&self) -> Expected {
        self.expectations.of("hub2").unwrap().expected.clone()
    }
}

#[test]
fn nothing_is_kept_until_it_is_wanted() {
    let mut story = Story::new();
    assert!(!story.read(vec![name(1, "a.test", &json!({}))]));
    assert!(story.expectations.of("hub2").is_none() && !story.expectations.want());
    assert!(story.read(vec![name(2, "b.test", &json!({}))]), "everything, since an agent asked");
    assert_eq!(story.hub().names.keys().collect::<Vec<_>>(), ["a.test", "b.test"]);
    assert!(story.expectations.want());
}

#[test]
fn only_what_concerns_agents_wakes_them() {
    let mut story = Story::new();
    assert!(story.read(vec![site(1, "uk", "hub2"), name(1, "a.test", &json!({"path_prefix": "/"}))]));
    let first = story.hub();
    assert_eq!((first.agent.as_str(), first.revision, first.sites.len(), first.names.len()), ("hub2", 1, 1, 1));
    for (changes, woken) in [
        (vec![name(1, "a.test", &json!({"backend_port": 81}))], false),
        (vec![name(2, "a.test", &json!({"path_prefix": "/x"}))], false),
        (vec![(key(Table::Domains, 1), None)], false),
        (vec![name(3, "plain.test", &json!({"tls_mode": "none"}))], false),
        (vec![name(2, "a.test", &json!({"tls_mode": "acme", "cert_resolver": "le"}))], true),
        (vec![(key(Table::Domains, 2), None)], true),
        (vec![policy(1, "hub2", "a.timer")], true),
        (vec![policy(1, "hub2", "a.timer")], false),
        (vec![site(1, "uk", "hub3")], true),
        (vec![(key(Table::Policies, 1), None)], true),
    ] {
        assert_eq!(story.read(changes.clone()), woken, "{changes:?}");
    }
    let last = story.hub();
    assert!(last.sites.is_empty() && last.names.is_empty() && last.policy == Policy::default());
    assert_eq!(story.expectations.agents(), BTreeSet::from(["hub3".to_owned()]));
    assert_ne!(first.digest, last.digest);
}

#[test]
fn each_hub_gets_the_peers_that_it_lets_in_by_their_names() {
    let mut story = Story::new();
    assert!(
        story.read(vec![peer(1, "zoe", &["hub2"]), peer(2, "ben", &["hub3"])]),
        "peers alone are something to expect"
    );
    assert_eq!(story.expectations.agents(), BTreeSet::from(["hub2".to_owned(), "hub3".to_owned()]));
    let names = |agent: &str, story: &Story| -> Vec<String> {
        let ready = story.expectations.of(agent).unwrap();
        ready.expected.peers.iter().map(|peer| peer.name.clone()).collect()
    };
    assert_eq!((names("hub2", &story), names("hub3", &story)), (vec!["zoe".to_owned()], vec!["ben".to_owned()]));
    let first = story.hub();
    assert!(story.read(vec![peer(3, "anna", &["hub2", "hub3"])]));
    assert_eq!(names("hub2", &story), ["anna", "zoe"]);
    assert_eq!(names("hub3", &story), ["anna", "ben"]);
    let now = story.expectations.of("hub2").unwrap();
    let delta = story.expectations.since("hub2", &first.digest, &now).unwrap();
    let delta: ExpectedDelta = serde_json::from_slice(&delta).unwrap();
    assert_eq!(delta.peers.as_ref().map(Vec::len), Some(2));
    assert_eq!(first.clone().changed_by(delta).as_ref(), Some(&now.expected));
    assert!(!story.read(vec![peer(3, "anna", &["hub2", "hub3"])]), "nothing is different");
    assert!(story.read(vec![(key(Table::Peers, 3), None)]));
    assert_eq!(story.hub().digest, first.digest);
}

#[test]
fn a_digest_is_what_it_was_before_there_could_be_peers() {
    let mut story = Story::new();
    story.read(vec![site(1, "uk", "hub2")]);
    let without = story.hub();
    let all = serde_json::to_vec(&("hub2", &without.sites, &without.policy, Names::default().hash())).unwrap();
    assert_eq!(without.digest, hex(&Sha256::digest(all)));
    story.read(vec![peer(1, "anna", &["hub3"])]);
    assert_eq!(story.hub().digest, without.digest, "let in elsewhere");
    story.read(vec![peer(1, "anna", &["hub2"])]);
    assert_ne!(story.hub().digest, without.digest);
}

#[test]
fn any_row_of_a_name_says_who_keeps_its_dns_record() {
    let mut story = Story::new();
    story.read(vec![site(1, "uk", "hub2"), name(1, "a.test", &json!({"path_prefix": "/"}))]);
    let mode = |story: &Story| story.hub().names["a.test"].dns_mode;
    let before = story.hub().digest;
    assert_eq!(mode(&story), DnsMode::External);
    assert!(story.read(vec![name(2, "a.test", &json!({"path_prefix": "/x", "dns_mode": "static"}))]));
    assert_eq!(mode(&story), DnsMode::Static);
    assert!(story.read(vec![(key(Table::Domains, 2), None)]));
    assert_eq!((mode(&story), story.hub().digest), (DnsMode::External, before));
}

#[test]
fn a_digest_is_of_all_but_the_revision() {
    let mut story = Story::new();
    story.read(vec![site(1, "uk", "hub2"), name(1, "a.test", &json!({}))]);
    let first = story.hub();
    story.read(vec![name(2, "b.test", &json!({}))]);
    assert_ne!(story.hub().digest, first.digest);
    story.read(vec![(key(Table::Domains, 2), None)]);
    assert_eq!((story.hub().digest, story.hub().revision), (first.digest.clone(), 3));
    assert_ne!(story.expectations.of("hub3").unwrap().expected.digest, first.digest, "another agent's");
}

#[test]
fn who_has_an_earlier_one_gets_the_difference_where_it_is_shorter() {
    let mut story = Story::new();
    let many = (10..2010).map(|n| name(n, &format!("h{n}.test"), &json!({})));
    story.read(std::iter::once(site(1, "uk", "hub2")).chain(many).collect());
    let mut held = vec![story.hub()];
    for step in 0..40_u128 {
        story.read(vec![
            name(5000 + step, &format!("n{step}.test"), &json!({})),
            (key(Table::Domains, 10 + step), None),
        ]);
        held.push(story.hub());
    }
    let now = story.expectations.of("hub2").unwrap();
    assert!(story.expectations.since("hub2", "unknown", &now).is_none());
    assert!(story.expectations.since("hub2", &held[0].digest, &now).is_none(), "forgotten");
    for have in held.iter().skip(10).take(30) {
        let delta = story.expectations.since("hub2", &have.digest, &now).unwrap();
        assert!(delta.len() * 10 < now.body().len(), "{} of {}", delta.len(), now.body().len());
        let delta = serde_json::from_slice(&delta).unwrap();
        assert_eq!(have.clone().changed_by(delta).as_ref(), Some(&now.expected));
    }
    // All is new: the difference is no shorter.
    let have = story.hub().digest;
    let other = (10..2010).map(|n| name(n, &format!("other{n}.test"), &json!({}))).collect();
    story.read(other);
    let now = story.expectations.of("hub2").unwrap();
    assert!(story.expectations.since("hub2", &have, &now).is_none());
}
