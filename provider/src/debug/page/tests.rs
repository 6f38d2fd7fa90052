use std::collections::BTreeSet;

use charliehub_proto::{
    debug::{Finding, Health},
    finding::{Action, Outcome, Status},
    matching::{Judged, MatchOutcome, MiddlewareVerdict},
};
use serde_json::{Value, json};

use super::*;

fn owner(n: u32, name: &str) -> Value {
    json!({ "id": format!("00000000-0000-0000-0000-{n:012}"), "kind": "domain", "name": name })
}

fn commit(revision: i64, seconds: u32) -> Value {
    json!({ "revision": revision, "at": format!("2026-11-24T12:{:02}:{:02}Z", seconds / 60, seconds % 60), "actor": "ada",
            "source": "api", "address": "10.44.0.7", "request_id": "r", "reason": "ticket 17: new portal", "db_user": "charliehub",
            "db_address": null, "application": "charliehub-provider", "state": "served",
            "digest": "31de064282406039820cd217a28eedaa", "pinned": false })
}

fn traefik(name: &str, state: &str) -> Value {
    let config = json!({ "digest": "31de064282406039820cd217a28eedaa", "revision": 41, "at": "2026-11-24T12:29:00Z" });
    json!({ "name": name, "state": state, "api": "http://127.0.0.1:8080", "version": "3.7.15",
            "last_poll": "2026-11-24T12:29:30Z", "sent": config, "running": config, "lag_seconds": 0.0,
            "time_to_live_seconds": 0.0084, "trouble": null, "refused_routes": [], "held_back": [], "servers": [],
            "advice": [] })
}

fn line(n: u32, name: &str, state: &str) -> Value {
    json!({ "id": format!("00000000-0000-0000-0000-{n:012}"), "kind": "domain", "name": name, "protocol": "http",
            "state": state, "reason": null, "to": format!("http://10.44.0.9:{}", 3000 + n), "access": "internal, login",
            "site": "fr", "owner": "platform", "notes": "for the site networks only", "maintenance_message": null,
            "servers": [], "troubles": ["closed on hub-refused: unknown field"] })
}

/// An edge on which all is well.
fn right() -> Value {
    let changes: Vec<Value> = (0..24_u32)
        .map(|n| {
            let mut change = commit(41 - i64::from(n), 1740 - 60 * n);
            let seconds = f64::from(5 + (n * 7) % 9) / 1000.0 * if n == 13 { 200.0 } else { 1.0 };
            change["rows"] = 1.into();
            change["live"] =
                json!([{ "instance": "hub2", "seconds": seconds }, { "instance": "hub3", "seconds": seconds * 1.6 }]);
            change
        })
        .collect();
    let names = ["auth.charliehub.net", "docs.charliehub.net", "grafana.charliehub.net", "unifi.charliehub.net/admin"];
    let lines: Vec<Value> = (1..).zip(names).map(|(n, name)| line(n, name, "live")).collect();
    json!({
        "at": "2026-11-24T12:30:00Z", "version": "0.1.0",
        "verdict": { "state": "ok", "text": "all 2 Traefiks run revision 41 with 23 routes, as the rows say" },
        "causes": [],
        "revision": { "revision": 41, "digest": "31de064282406039820cd217a28eedaa", "routes": 23, "withheld": null,
                      "commit": commit(41, 1740), "age_seconds": 60.0 },
        "database": { "followed": true, "age_seconds": 0.0, "reasons": [], "trouble": null },
        "changes": changes,
        "instances": [traefik("hub2", "current"), traefik("hub3", "current")],
        "drift": [],
        "routes": { "counts": [{ "protocol": "http", "state": "live", "count": 22 }, { "protocol": "tcp", "state": "live", "count": 1 }],
                    "filter": null, "state": null, "page": lines, "next": "abc" },
        "quarantined": [], "withheld": [],
        "agents": { "agents": [], "findings": [], "note": "No agent has reported." },
        "events": [{ "id": "a-9", "at": "2026-11-24T12:29:00Z", "kind": "ack", "text": "hub2 runs revision 41", "revision": 41 },
                   { "id": "a-8", "at": "2026-11-24T12:29:00Z", "kind": "revision", "text": "revision 41 is served, with 23 routes" }],
    })
}

/// One on which everything is wrong that can be.
fn broken() -> Value {
    let mut page = right();
    page["verdict"] =
        json!({ "state": "broken", "text": "grafana.charliehub.net: tunnel wg-fr silent for 4 min (and 3 more)" });
    page["causes"] = json!([
        { "state": "broken", "subject": "grafana.charliehub.net", "text": "tunnel wg-fr silent for 4 min",
          "next": "On hub2 run:", "command": "wg show wg-fr", "since": "2026-11-24T12:26:00Z",
          "owners": [owner(3, "grafana.charliehub.net")], "joined": 2,
          "signals": [{ "kind": "finding", "text": "wireguard wg-fr: tunnel wg-fr silent for 4 min" },
                      { "kind": "server", "text": "grafana.charliehub.net: server http://10.44.0.9:3003 is down, as hub2 finds" }] },
        { "state": "attention", "subject": "revision 42", "text": "waits for an operator", "next": "Look at it below:",
          "command": "charliehub-provider approve 42", "since": null, "owners": [], "joined": 1, "signals": [] },
    ]);
    page["revision"]["withheld"] = 42.into();
    page["database"] = json!({ "followed": false, "age_seconds": 93.0, "reasons": ["stale: no connection"],
                               "trouble": "the database does not answer" });
    let states = ["current", "behind", "late", "refused", "unverified", "unknown", "gone"];
    let mut instances: Vec<Value> = states.map(|state| traefik(&format!("hub-{state}"), state)).into();
    let bad = &mut instances[3];
    bad["trouble"] = "does not take revision 42: field not found, node: rateLimits".into();
    bad["lag_seconds"] = 12.5.into();
    bad["refused_routes"] = json!([{ "protocol": "http", "object": "router", "name": "a.org@http", "status": "disabled",
        "errors": ["entryPoint \"nowhere\" doesn't exist"], "owner": owner(1, "a.org") }]);
    bad["held_back"] = json!([
        { "owner": owner(2, "limits"), "instead": "earlier", "reason": "unknown field", "revision": 42, "since": "2026-11-24T12:28:00Z" },
        { "owner": owner(4, "b.org"), "instead": "closed", "reason": "unknown field", "revision": 42, "since": "2026-11-24T12:28:00Z" },
    ]);
    bad["servers"] = json!([{ "protocol": "http", "service": "g@http", "url": "http://10.44.0.9:3003", "up": false, "owner": owner(3, "g") }]);
    bad["advice"] = json!(["providers.http.pollInterval: 10ms"]);
    page["instances"] = instances.into();
    page["drift"] = json!([{ "instance": "hub-current", "at": "2026-11-24T12:29:50Z", "trouble": null, "differences": [
        { "kind": "shadowed", "protocol": "http", "object": "router", "name": "a.org@http",
          "detail": "router a@docker answers in its place: its priority is 99", "owner": owner(1, "a.org") }] }]);
    page["routes"]["page"].as_array_mut().unwrap().extend(
        [
            json!({ "reason": "middlewares: there is no `m`; name one that is there", "servers": [
            { "protocol": "http", "service": "g@http", "url": "http://10.44.0.9:3003", "up": false, "owner": null }] }),
            json!({ "maintenance_message": "Back at noon." }),
            json!({}),
        ]
        .into_iter()
        .zip([(8, "closed"), (9, "maintenance"), (10, "off")])
        .map(|(more, (n, state))| {
            let mut line = line(n, &format!("{state}.charliehub.net"), state);
            line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            line
        }),
    );
    page["quarantined"] = json!([{ "id": "00000000-0000-0000-0000-000000000008", "table": "domains",
        "name": "closed.charliehub.net", "reason": "middlewares: there is no `m`; name one that is there" }]);
    page["withheld"] = json!([{ "revision": 42, "at": "2026-11-24T12:28:00Z", "held_by": "guard:shrink", "actor": "eve",
        "source": "sql", "reason": "cleaning up", "routes": 3, "quarantined": 0, "diff": [
            { "section": "http.routers", "router": "a.org", "change": "removed", "before": {}, "after": null },
            { "section": "http.routers", "router": "b.org", "change": "added", "before": null, "after": {} }] }]);
    let finding = Finding {
        agent: "hub2".to_owned(),
        check: "wireguard".to_owned(),
        target: "wg-fr".to_owned(),
        site: Some("fr".to_owned()),
        status: Status::Critical,
        text: "tunnel wg-fr silent for 4 min".to_owned(),
        since: None,
        remedy: None,
        action: Some(Action {
            at: "2026-11-24T11:58:00Z".parse().unwrap(),
            what: "10.35.0.0/16 moves to wg-uk: 38 probes of wg-fr in a row were lost".to_owned(),
            outcome: Outcome::Failed,
            result: "no host of the site answers by <wg-uk>".to_owned(),
        }),
    };
    page["agents"] = json!({ "agents": [], "findings": [finding], "note": null });
    page
}

#[test]
fn of_a_thousand_traefiks_those_in_trouble_are_shown_and_the_others_counted() {
    let mut page = right();
    let well = (0..1_000).map(|n| traefik(&format!("a{n}"), "unverified"));
    page["instances"] = well.chain([traefik("late-one", "late")]).collect();
    let debug: Debug = serde_json::from_value(page).unwrap();
    let mut html = Html::default();
    super::instances::section(&mut html, &debug);
    let text = html.finish();
    assert_eq!(text.matches("<article").count(), 100);
    assert!(text.contains("late-one") && text.contains("901 more are in"), "{text}");
}

fn matched() -> Matched {
    let row = charliehub_proto::matching::MatchedRow {
        id: uuid::Uuid::nil(),
        domain: "a.org".to_owned(),
        path_prefix: "/x".to_owned(),
    };
    let step = |name: &str, verdict| Judged {
        name: name.to_owned(),
        kind: Some("ipAllowList".to_owned()),
        verdict,
        detail: Some("10.44.0.0/16".to_owned()),
    };
    serde_json::from_value(json!({
        "request": { "url": "https://a.org/x", "entry_point": "websecure", "host": "a.org", "path": "/x", "method": "GET", "client_ip": null },
        "answer": { "router": "a.org/x", "rule": "Host(`a.org`) && PathPrefix(`/x`)", "priority": 1200, "entry_points": ["websecure"],
            "service": "a.org/x", "row": row, "fragment": null, "outcome": MatchOutcome::Refused,
            "middlewares": [step("internal", Some(MiddlewareVerdict::Refuses)), step("authelia", Some(MiddlewareVerdict::Asks)), step("odd", None)] },
        "also": [{ "router": "a.org", "priority": 900 }],
    }))
    .unwrap()
}

fn viewer(admin: bool) -> Viewer {
    let role = if admin { "admin" } else { "reader" };
    Viewer { name: "ada".to_owned(), role, admin, signed_in: true, proof: "proof".to_owned() }
}

fn rendered(debug: &Value, tested: &Tested) -> String {
    let debug: Debug = serde_json::from_value(debug.clone()).unwrap();
    render(&View {
        debug: &debug,
        viewer: &viewer(false),
        tested,
        said: Said::Done("Revision 3 was approved.".to_owned()),
    })
}

fn tested(matched: Matched) -> Tested {
    Tested { url: "https://a.org/x".to_owned(), client_ip: "9.9.9.9".to_owned(), answer: Some(Ok(matched)) }
}

/// The start tags of a page with their attributes as they stand, once it is known that each is closed in its turn.
fn tags(html: &str) -> Vec<&str> {
    const VOID: [&str; 5] = ["meta", "link", "input", "br", "!doctype"];
    let (mut open, mut tags) = (Vec::new(), Vec::new());
    for piece in html.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').unwrap_or_else(|| panic!("an open tag: {piece}"));
        let name = tag.split([' ', '/']).find(|name| !name.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else {
            tags.push(tag);
            if !VOID.contains(&name) && !tag.ends_with('/') {
                open.push(name);
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
    tags
}

fn attribute<'t>(tag: &'t str, name: &str) -> Option<&'t str> {
    tag.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split('"').next())
}

fn pages() -> [(&'static str, String); 4] {
    let nothing = json!({ "at": "2026-11-24T12:30:00Z", "version": "0.1.0", "verdict": { "state": "attention", "text": "no routes yet: nothing is served" },
        "causes": [], "revision": null, "database": { "followed": true, "age_seconds": 0.0, "reasons": [], "trouble": null },
        "changes": [], "instances": [], "drift": [], "routes": { "counts": [], "filter": null, "state": null, "page": [], "next": null },
        "quarantined": [], "withheld": [], "agents": { "agents": [], "findings": [], "note": "No agent has reported." }, "events": [] });
    [
        ("right", rendered(&right(), &Tested::default())),
        ("broken", rendered(&broken(), &tested(matched()))),
        ("nothing", rendered(&nothing, &Tested::default())),
        ("sign-in", sign_in::render(None, "/debug?q=a")),
    ]
}

#[test]
fn a_page_is_well_formed_and_can_be_read_by_all() {
    for (page, html) in pages() {
        let tags = tags(&html);
        let ids: Vec<&str> = tags.iter().filter_map(|tag| attribute(tag, "id")).collect();
        let distinct: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), distinct.len(), "{page}: {ids:?}");
        for tag in &tags {
            if (tag.starts_with("input ") && attribute(tag, "type") != Some("hidden")) || tag.starts_with("select ") {
                let id = attribute(tag, "id").unwrap_or_else(|| panic!("{page}: no id: {tag}"));
                assert!(html.contains(&format!("<label for=\"{id}\">")), "{page}: no label: {tag}");
            }
            for reference in ["aria-labelledby", "for"].iter().filter_map(|name| attribute(tag, name)) {
                assert!(distinct.contains(reference), "{page}: {tag}");
            }
            assert!(!tag.contains(" style=") && !tag.contains(" on"), "{page}: the policy forbids it: {tag}");
        }
        let levels: Vec<u8> =
            tags.iter().filter_map(|tag| tag.split(' ').next()?.strip_prefix('h')?.parse().ok()).collect();
        assert_eq!(levels.iter().map(|level| u8::from(*level == 1)).sum::<u8>(), 1, "{page}: {levels:?}");
        assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{page}: {levels:?}");
        assert!(tags.iter().any(|tag| tag.starts_with("main ")) && html.contains("<html lang=\"en\">"), "{page}");
    }
}

#[test]
fn whatever_stands_in_a_field_is_text() {
    const EVIL: &str = "</title><script>alert(1)</script>\" onload='x' \u{202e}";
    let mut debug = serde_json::to_value(serde_json::from_value::<Debug>(broken()).unwrap()).unwrap();
    let before = debug.clone();
    let mut texts = Vec::new();
    find_texts(&before, String::new(), &mut texts);
    let mut changed = 0;
    for at in texts {
        let old = debug.pointer(&at).unwrap().clone();
        *debug.pointer_mut(&at).unwrap() = format!("{}{EVIL}", old.as_str().unwrap()).into();
        // Labels, times and ids cannot hold it.
        if serde_json::from_value::<Debug>(debug.clone()).is_ok() {
            changed += 1;
        } else {
            *debug.pointer_mut(&at).unwrap() = old;
        }
    }
    assert!(changed > 150, "{changed}");
    let mut answer = serde_json::to_value(matched()).unwrap();
    for at in [
        "/request/host",
        "/answer/router",
        "/answer/rule",
        "/answer/service",
        "/answer/row/domain",
        "/answer/middlewares/0/name",
        "/answer/middlewares/0/kind",
        "/answer/middlewares/0/detail",
        "/also/0/router",
    ] {
        *answer.pointer_mut(at).unwrap() = EVIL.into();
    }
    let mut tested = tested(serde_json::from_value(answer).unwrap());
    tested.url = EVIL.to_owned();
    tested.client_ip = EVIL.to_owned();
    let html = rendered(&debug, &tested);
    assert!(!html.contains("<script>") && !html.contains("' on") && !html.contains('\u{202e}'), "{html}");
    for tag in tags(&html) {
        let outside_of_values: String = tag.split('"').step_by(2).collect();
        assert!(!outside_of_values.contains("onload"), "{tag}");
    }
    assert!(html.matches("&lt;script&gt;").count() > 100);
}

fn find_texts(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::String(_) => found.push(at),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| find_texts(item, format!("{at}/{n}"), found));
        }
        Value::Object(map) => map.iter().for_each(|(name, item)| find_texts(item, format!("{at}/{name}"), found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[test]
fn every_state_of_a_traefik_has_its_word_and_an_unverified_one_is_never_current() {
    let html = rendered(&broken(), &Tested::default());
    for word in ["current", "taking a change", "late", "refused", "polling, unverified", "API does not answer", "gone"]
    {
        assert!(html.contains(&format!(">{word}</span>")), "{word}");
    }
    assert!(html.contains("Next:</span> On hub2 run: <code>wg show wg-fr</code>"));
    assert!(html.contains("held back") && html.contains("runs as it was before") && html.contains("is closed: 503"));
    assert!(html.contains("<q>entryPoint &quot;nowhere&quot; doesn&#39;t exist</q>"), "Traefik's own words");
}

#[test]
fn who_is_no_administrator_must_type_a_token_to_decide() {
    let debug: Debug = serde_json::from_value(broken()).unwrap();
    for (admin, required) in [(false, true), (true, false)] {
        let html =
            render(&View { debug: &debug, viewer: &viewer(admin), tested: &Tested::default(), said: Said::Nothing });
        let tags = tags(&html);
        let token = tags.iter().find(|tag| attribute(tag, "id") == Some("token-42")).unwrap();
        assert_eq!(token.contains(" required"), required, "{token}");
        assert!(html.contains("value=\"approve\"") && html.contains("value=\"discard\""));
    }
    assert_eq!(debug.verdict.state, Health::Broken);
}

/// To look at, in a browser: `target/pages/*.html`.
#[test]
fn the_pages_are_written_for_people_to_look_at() {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/pages");
    std::fs::create_dir_all(&place).unwrap();
    for (name, html) in pages() {
        let (head, rest) = html.split_once("<link rel=\"stylesheet\"").unwrap();
        let (_, rest) = rest.split_once('>').unwrap();
        let page = format!("{head}<style>{}</style>{rest}", crate::debug::STYLE);
        std::fs::write(place.join(format!("{name}.html")), page).unwrap();
    }
}
