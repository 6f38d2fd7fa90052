use charliehub_proto::finding::{Action, Outcome};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn owner(n: u128, name: &str) -> Owner {
    Owner { id: Uuid::from_u128(n), kind: "domain".to_owned(), name: name.to_owned() }
}

fn traefik(name: &str, state: InstanceState) -> InstanceStatus {
    InstanceStatus {
        name: name.to_owned(),
        state,
        part: None,
        api: Some("http://127.0.0.1:8080".to_owned()),
        version: None,
        last_poll: Some(at(100)),
        sent: None,
        running: None,
        lag_seconds: 0.0,
        time_to_live_seconds: None,
        trouble: None,
        refused_routes: Vec::new(),
        held_back: Vec::new(),
        servers: Vec::new(),
        advice: Vec::new(),
    }
}

fn server(owner: &Owner, url: &str, up: bool) -> ServerHealth {
    let service = format!("{}@http", owner.name);
    ServerHealth { protocol: "http".to_owned(), service, url: url.to_owned(), up, owner: Some(owner.clone()) }
}

fn drift(kind: DriftKind, owner: &Owner) -> Drift {
    Drift {
        kind,
        protocol: "http".to_owned(),
        object: "router".to_owned(),
        name: format!("{}@http", owner.name),
        detail: "router x@docker has priority 99".to_owned(),
        owner: Some(owner.clone()),
    }
}

fn silent(status: Status) -> Finding {
    Finding {
        agent: "hub2".to_owned(),
        check: "wireguard".to_owned(),
        target: "wg-fr".to_owned(),
        site: Some("fr".to_owned()),
        status,
        text: "tunnel wg-fr silent for 4 min".to_owned(),
        since: Some(at(50)),
        remedy: Some("On hub2 run: wg show wg-fr".to_owned()),
        action: None,
    }
}

/// Everything that may be noticed, of which a test fills in some.
#[derive(Default)]
struct Noticing {
    reasons: Vec<String>,
    quarantined: Vec<Quarantined>,
    instances: Vec<InstanceStatus>,
    drift: Vec<Drift>,
    findings: Vec<Finding>,
    sites: BTreeMap<Uuid, String>,
}

impl Noticing {
    fn causes(&self) -> Vec<Cause> {
        let database = DatabaseLink { followed: true, age_seconds: 0.0, reasons: self.reasons.clone(), trouble: None };
        let differences = self.drift.clone();
        let drift = [InstanceDrift { instance: "hub2".to_owned(), at: Some(at(90)), trouble: None, differences }];
        super::causes(&Facts {
            served: true,
            database: &database,
            quarantined: &self.quarantined,
            withheld: &[],
            instances: &self.instances,
            drift: &drift,
            findings: &self.findings,
            sites: &self.sites,
        })
    }
}

fn lines(causes: &[Cause]) -> Vec<String> {
    causes.iter().map(|cause| format!("{} {}: {}", cause.state.as_str(), cause.subject, cause.text)).collect()
}

#[test]
fn a_healthy_edge_has_no_causes() {
    let grafana = owner(1, "grafana.charliehub.net");
    let mut hub2 = traefik("hub2", InstanceState::Current);
    hub2.servers.push(server(&grafana, "http://10.44.0.9:3000", true));
    let noticing = Noticing { instances: vec![hub2], findings: vec![silent(Status::Ok)], ..Noticing::default() };
    assert_eq!(lines(&noticing.causes()), [""; 0]);
}

#[test]
fn what_an_agent_did_stands_beside_what_it_did_it_about_and_is_no_cause_of_its_own() {
    let action = Action {
        at: at(60),
        what: "wg-fr is absent: wg-quick@wg-fr.service is restarted".to_owned(),
        outcome: Outcome::Done,
        result: "wg-fr is there again".to_owned(),
    };
    let done = Finding { check: "restart".to_owned(), action: Some(action), ..silent(Status::Ok) };
    let hub2 = traefik("hub2", InstanceState::Current);
    let causes = |findings| Noticing { instances: vec![hub2.clone()], findings, ..Noticing::default() }.causes();
    assert_eq!(lines(&causes(vec![done.clone()])), [""; 0]);
    let elsewhere = Finding { site: Some("uk".to_owned()), target: "wg-uk".to_owned(), ..silent(Status::Critical) };
    let causes = causes(vec![done.clone(), silent(Status::Critical), elsewhere]);
    let told: Vec<_> = causes[0].signals.iter().map(|signal| (signal.kind, &*signal.text)).collect();
    let did =
        "hub2: 1970-01-01T00:01:00Z: wg-fr is absent: wg-quick@wg-fr.service is restarted; done: wg-fr is there again";
    assert_eq!(
        told,
        [(SignalKind::Finding, "wireguard wg-fr: tunnel wg-fr silent for 4 min"), (SignalKind::Action, did)]
    );
    assert_eq!(causes.len(), 2, "another site's outage is another cause");
}

#[test]
fn a_silent_tunnel_is_one_line_and_not_five_alarms() {
    let (grafana, prometheus) = (owner(1, "grafana.charliehub.net"), owner(2, "prometheus.charliehub.net"));
    let mut hub2 = traefik("hub2", InstanceState::Current);
    hub2.servers.push(server(&grafana, "http://10.44.0.9:3000", false));
    hub2.servers.push(server(&prometheus, "http://10.44.0.9:9090", false));
    let mut hub3 = hub2.clone();
    hub3.name = "hub3".to_owned();
    let mut noticing = Noticing {
        instances: vec![hub2, hub3],
        findings: vec![silent(Status::Critical)],
        sites: [(grafana.id, "fr".to_owned()), (prometheus.id, "fr".to_owned())].into(),
        ..Noticing::default()
    };
    let causes = noticing.causes();
    let line = "broken grafana.charliehub.net and prometheus.charliehub.net: tunnel wg-fr silent for 4 min";
    assert_eq!(lines(&causes), [line]);
    let cause = &causes[0];
    assert_eq!((cause.joined, cause.since, &*cause.next), (5, Some(at(50)), "On hub2 run: wg show wg-fr"));
    assert_eq!(cause.signals[0].kind, SignalKind::Finding);
    // Without it nobody knows that they have one cause.
    noticing.findings.clear();
    assert_eq!(noticing.causes().len(), 2);
}

#[test]
fn what_is_elsewhere_stays_a_line_of_its_own() {
    let (grafana, docs) = (owner(1, "grafana.charliehub.net"), owner(2, "docs.charliehub.net"));
    let mut hub2 = traefik("hub2", InstanceState::Current);
    hub2.servers.push(server(&grafana, "http://10.44.0.9:3000", false));
    hub2.servers.push(server(&docs, "http://10.0.0.5:80", false));
    hub2.servers.push(server(&docs, "http://10.0.0.6:80", true));
    let noticing = Noticing {
        instances: vec![hub2],
        findings: vec![silent(Status::Critical)],
        sites: [(grafana.id, "fr".to_owned()), (docs.id, "de".to_owned())].into(),
        ..Noticing::default()
    };
    assert_eq!(
        lines(&noticing.causes()),
        [
            "broken grafana.charliehub.net: tunnel wg-fr silent for 4 min",
            "attention docs.charliehub.net: server http://10.0.0.5:80 is down, as hub2 finds",
        ]
    );
}

#[test]
fn rows_closed_for_one_reason_are_one_line_with_its_remedy() {
    let reason = "access_tier: internal, and no networks are known; set [access] internal_networks";
    let closed = |n: u128, name: &str, reason: &str| Quarantined {
        id: Uuid::from_u128(n),
        table: "domains".to_owned(),
        name: name.to_owned(),
        reason: reason.to_owned(),
    };
    let mut quarantined: Vec<_> = (0..5).map(|n| closed(n, &format!("r{n}.org"), reason)).collect();
    quarantined.push(closed(9, "odd.org/$(reboot)", "middlewares: there is no `m`; name one that is there"));
    let noticing =
        Noticing { quarantined, instances: vec![traefik("hub2", InstanceState::Current)], ..Noticing::default() };
    let causes = noticing.causes();
    assert_eq!(
        lines(&causes),
        [
            "broken r0.org, r1.org and 3 more: closed, answers 503: access_tier: internal, and no networks are known",
            "broken odd.org/$(reboot): closed, answers 503: middlewares: there is no `m`",
        ]
    );
    assert_eq!(causes[0].next, "Set [access] internal_networks");
    let command = "charliehub-provider domains set 'odd.org/$(reboot)' middlewares=VALUE";
    assert_eq!(causes[1].command.as_deref(), Some(command), "what is pasted runs nothing else");
}

#[test]
fn a_body_that_is_refused_and_what_is_held_back_for_it_are_one_line_with_traefiks_words() {
    let mut hub2 = traefik("hub2", InstanceState::Refused);
    let fragment = Owner { id: Uuid::from_u128(3), kind: "http.middleware".to_owned(), name: "limits".to_owned() };
    hub2.held_back.push(HeldBack {
        owner: fragment,
        instead: Instead::Earlier,
        reason: "unknown field rateLimits".to_owned(),
        revision: 12,
        since: at(80),
    });
    hub2.trouble = Some("does not take revision 12".to_owned());
    let causes = Noticing { instances: vec![hub2], ..Noticing::default() }.causes();
    assert_eq!(
        lines(&causes),
        ["broken limits: runs as it was before on hub2, which does not take revision 12: unknown field rateLimits"]
    );
    assert_eq!(causes[0].joined, 2);
}

#[test]
fn a_router_that_is_refused_missing_and_held_back_is_one_line() {
    let a = owner(1, "a.org");
    let mut hub2 = traefik("hub2", InstanceState::Current);
    hub2.refused_routes.push(RefusedRoute {
        protocol: "http".to_owned(),
        object: "router".to_owned(),
        name: "a.org@http".to_owned(),
        status: "disabled".to_owned(),
        errors: vec!["entryPoint \"nowhere\" doesn't exist".to_owned()],
        owner: Some(a.clone()),
    });
    let noticing =
        Noticing { instances: vec![hub2], drift: vec![drift(DriftKind::Missing, &a)], ..Noticing::default() };
    let line = "broken a.org: router a.org@http of hub2 is disabled: entryPoint \"nowhere\" doesn't exist";
    assert_eq!(lines(&noticing.causes()), [line]);
}

#[test]
fn what_differs_on_a_traefik_that_is_gone_or_on_its_way_is_not_news() {
    let rows: Vec<Drift> = (0..9).map(|n| drift(DriftKind::Missing, &owner(n, &format!("r{n}.org")))).collect();
    let with = |state| Noticing { instances: vec![traefik("hub2", state)], drift: rows.clone(), ..Noticing::default() };
    assert_eq!(lines(&with(InstanceState::Gone).causes()), ["broken Traefik hub2: does not poll any more"]);
    assert_eq!(lines(&with(InstanceState::Behind).causes()), [""; 0]);
    assert_eq!(with(InstanceState::Current).causes().len(), 9);
}

#[test]
fn the_worst_is_first_and_each_says_what_to_do() {
    let reasons = ["stale: no connection to the database for 9 s", "withheld: revision 3"].map(str::to_owned);
    let mut noticing = Noticing { reasons: reasons.into(), ..Noticing::default() };
    noticing.instances = vec![
        traefik("hub1", InstanceState::Unverified),
        traefik("hub2", InstanceState::Current),
        traefik("hub6", InstanceState::Unknown),
        traefik("hub3", InstanceState::Late),
        traefik("hub4", InstanceState::Gone),
        traefik("hub5", InstanceState::Unverified),
    ];
    noticing.drift = vec![drift(DriftKind::Shadowed, &owner(1, "a.org")), drift(DriftKind::Extra, &owner(2, "b.org"))];
    let causes = noticing.causes();
    let states: Vec<Health> = causes.iter().map(|cause| cause.state).collect();
    assert!(states.is_sorted() && states[0] == Health::Broken, "{states:?}");
    assert!(causes.iter().all(|cause| !cause.next.is_empty() && !cause.subject.is_empty()));
    let of = |subject: &str| causes.iter().find(|cause| cause.subject == subject).unwrap();
    assert_eq!(of("database").text, "no connection to the database for 9 s");
    assert_eq!(of("Traefik hub1 and Traefik hub5").joined, 2, "what is missing is the same for both");
    assert_eq!(of("Traefik hub6").command.as_deref(), Some("curl -s http://127.0.0.1:8080/api/version"));
    assert!(of("a.org").text.contains("x@docker"));
    assert_eq!(causes.len(), 7, "{:?}", lines(&causes));
}

#[test]
fn a_fragment_that_traefik_refuses_and_the_rows_that_go_with_it_are_one_line() {
    let fragment = Owner { id: Uuid::from_u128(3), kind: "http.middleware".to_owned(), name: "guarded".to_owned() };
    let refused = |owner: &Owner, object: &str| RefusedRoute {
        protocol: "http".to_owned(),
        object: object.to_owned(),
        name: format!("{}@http", owner.name),
        status: "disabled".to_owned(),
        errors: vec!["unknown plugin type: nowhere".to_owned()],
        owner: Some(owner.clone()),
    };
    let mut hub2 = traefik("hub2", InstanceState::Current);
    hub2.refused_routes = vec![
        refused(&owner(1, "a.org"), "router"),
        refused(&owner(2, "b.org"), "router"),
        refused(&fragment, "middleware"),
    ];
    let causes = Noticing { instances: vec![hub2], ..Noticing::default() }.causes();
    let line =
        "broken guarded, a.org and 1 more: middleware guarded@http of hub2 is disabled: unknown plugin type: nowhere";
    assert_eq!(lines(&causes), [line]);
    assert_eq!(causes[0].command.as_deref(), Some("curl -X PUT .../api/fragments/http.middleware/guarded"));
}
