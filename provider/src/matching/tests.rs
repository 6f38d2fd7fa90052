use charliehub_proto::matching::{MatchOutcome, MiddlewareVerdict};
use serde_json::{Value, json};

use super::*;

fn config(config: &Value) -> Config {
    Config::read(config.to_string().as_bytes()).unwrap()
}

/// A config with one router.
fn of_rule(rule: &str, syntax: &str) -> Config {
    config(&json!({"http": {"routers": {"r": {"rule": rule, "ruleSyntax": syntax, "service": "s"}}}}))
}

fn request(url: &str) -> Request {
    let request = Request::parse(url).unwrap().from(Some("10.44.0.7".parse().unwrap()));
    request.header("X-Team: blue").unwrap().header("Host: other.org").unwrap()
}

#[test]
fn a_rule_holds_for_the_requests_that_traefik_gives_it() {
    for (rule, url, holds) in [
        ("Host(`A.org`)", "http://a.ORG:8080/", true),
        ("Host(`a.org`)", "http://a.org./", true),
        ("Host(`*.a.org`)", "http://x.a.org/", true),
        ("Host(`*.a.org`)", "http://x.y.a.org/", false),
        ("Host(`*.a.org`)", "http://a.org/", false),
        ("HostRegexp(`b`)", "http://abc/", true),
        ("HostRegexp(`^[^.]+\\.a\\.org\\.?$`)", "http://x.a.org./", true),
        ("Path(`/x`)", "http://a/x/", false),
        ("PathPrefix(`/x`)", "http://a/xy", true),
        ("PathPrefix(`/x`)", "http://a//./%78", true),
        ("PathPrefix(`/a!b`)", "http://a/a%21b", false),
        ("PathRegexp(`^/[0-9]+$`)", "http://a/12", true),
        ("Method(`get`)", "http://a/", true),
        ("Header(`x-team`, `blue`)", "http://a/", true),
        ("Header(`X-Team`, `BLUE`)", "http://a/", false),
        ("Header(`Host`, `other.org`)", "http://a/", false),
        ("HeaderRegexp(`X-Team`, `^b`)", "http://a/", true),
        ("Query(`q`)", "http://a/?q", true),
        ("Query(`q`)", "http://a/?q=1", false),
        ("Query(`q`, `a b`)", "http://a/?q=1&q=a+b", true),
        ("QueryRegexp(`q`, `^[0-9]$`)", "http://a/?q=7", true),
        ("ClientIP(`10.44.1.1/16`)", "http://a/", true),
        ("ClientIP(`::ffff:10.44.0.0/112`)", "http://a/", true),
        ("!ClientIP(`10.44.0.7`)", "http://a/", false),
        ("Host(`b`) || Host(`a`) && !Path(`/x`)", "http://a/", true),
        ("Host(`a`)", "https://a/", false),
    ] {
        let matched = answer(&of_rule(rule, "v3"), &request(url)).unwrap();
        assert_eq!(matched.answer.is_some(), holds, "{rule} {url}");
    }
}

#[test]
fn the_older_matchers_take_several_values_and_templates() {
    for (rule, url, holds) in [
        ("Host(`b`, `a`)", "http://a/", true),
        ("HostRegexp(`{sub:[a-z]+}.a.org`)", "http://x.a.org/", true),
        ("HostRegexp(`{sub:[a-z]+}.a.org`)", "http://1.a.org/", false),
        ("Path(`/{id}`)", "http://a/x", true),
        ("Path(`/{id}`)", "http://a/x/y", false),
        ("PathPrefix(`/{id}/y`)", "http://a/x/yz", true),
        ("Query(`q={n:[0-9]+}`)", "http://a/?q=12", true),
        ("Query(`q={n:[0-9]+}`)", "http://a/?q=x", false),
        ("Headers(`X-Team`, `blue`)", "http://a/", true),
    ] {
        let matched = answer(&of_rule(rule, "v2"), &request(url)).unwrap();
        assert_eq!(matched.answer.is_some(), holds, "{rule} {url}");
    }
}

#[test]
fn routers_are_tried_by_priority_then_by_the_length_of_their_rules() {
    let router = |rule: &str, more: Value| {
        let mut router = json!({"rule": rule, "service": "s", "entryPoints": ["web"]});
        router.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        router
    };
    let config = config(&json!({"http": {"routers": {
        "short": router("Host(`a`)", json!({})),
        "long": router("Host(`a`) && PathPrefix(`/`)", json!({"priority": 0})),
        "low": router("Host(`a`) && PathPrefix(`/`) && PathPrefix(`/`)", json!({"priority": 1})),
        "first": router("PathPrefix(`/`)", json!({"priority": 500, "entryPoints": []})),
        "elsewhere": router("Host(`a`)", json!({"priority": 900, "entryPoints": ["other"]})),
        "secure": router("Host(`a`)", json!({"priority": 900, "tls": {}})),
        "bad": router("Host(`a`", json!({"priority": 900})),
        "child": router("Host(`a`)", json!({"priority": 900, "parentRefs": ["first"]})),
    }}}));
    let matched = answer(&config, &request("http://a/")).unwrap();
    let answering = matched.answer.unwrap();
    assert_eq!((answering.router.as_str(), answering.priority), ("first", 500));
    let also: Vec<_> = matched.also.iter().map(|other| (other.router.as_str(), other.priority)).collect();
    assert_eq!(also, [("long", 28), ("short", 9), ("low", 1)]);
    let asked = request("http://a/").entry_point(Some("other".to_owned()));
    assert_eq!(answer(&config, &asked).unwrap().answer.unwrap().router, "elsewhere");
}

#[test]
fn who_asks_without_an_address_is_told_when_the_answer_depends_on_it() {
    let config = config(&json!({"http": {"routers": {
        "inside": {"rule": "ClientIP(`10.0.0.0/8`)", "priority": 5, "service": "s"},
        "outside": {"rule": "Host(`a`)", "priority": 4, "service": "s"},
        "never": {"rule": "Host(`b`) && ClientIP(`10.0.0.0/8`)", "priority": 9, "service": "s"},
        "behind": {"rule": "!ClientIP(`10.0.0.0/8`)", "priority": 1, "service": "s"},
    }}}));
    let nobody = Request::parse("http://a/").unwrap();
    let error = answer(&config, &nobody).unwrap_err();
    assert!(error.to_string().contains("`inside`"), "{error}");
    let outside = nobody.from(Some("192.0.2.1".parse().unwrap()));
    let matched = answer(&config, &outside).unwrap();
    assert_eq!(matched.answer.unwrap().router, "outside");
    assert_eq!(matched.also.len(), 1);
}

#[test]
fn connections_by_tcp_are_matched_by_their_name_and_every_name_comes_last() {
    let config = config(&json!({"tcp": {"routers": {
        "one": {"rule": "HostSNI(`m.org`)", "entryPoints": ["mqtt"], "tls": {}, "service": "s"},
        "wild": {"rule": "HostSNIRegexp(`^[^.]+\\.org$`)", "entryPoints": ["mqtt"], "tls": {}, "service": "s"},
        "all": {"rule": "HostSNI(`*`)", "entryPoints": ["plain"], "service": "s"},
    }, "services": {"s": {"loadBalancer": {"servers": []}}}}}));
    let of = |url: &str, entry: Option<&str>| {
        let matched = answer(&config, &Request::parse(url).unwrap().entry_point(entry.map(str::to_owned))).unwrap();
        let also: Vec<_> = matched.also.into_iter().map(|other| other.router).collect();
        (matched.answer.map(|answering| (answering.router, answering.outcome)), also)
    };
    let closed = |name: &str| Some((name.to_owned(), MatchOutcome::Closed));
    assert_eq!(of("tcp://M.org:8883", None), (closed("wild"), vec!["one".to_owned(), "all".to_owned()]));
    assert_eq!(of("tcp://m.org:8883", Some("plain")), (closed("all"), vec![]));
    assert_eq!(of("tcp://:1883", None), (closed("all"), vec![]));
}

#[test]
fn middlewares_are_judged_in_their_order_and_the_first_that_ends_the_request_decides() {
    use MiddlewareVerdict::{Asks, Passes, Refuses};
    let config = |middlewares: &[&str], service: &str| {
        config(&json!({"http": {
            "routers": {"r": {"rule": "Host(`a`)", "middlewares": middlewares, "service": service}},
            "services": {"s": {"loadBalancer": {"servers": [{"url": "http://h"}]}}, "closed": {"loadBalancer": {"servers": []}}},
            "middlewares": {
                "sites": {"ipAllowList": {"sourceRange": ["10.44.0.0/16"]}},
                "others": {"ipAllowList": {"sourceRange": ["192.0.2.0/24"]}},
                "proxied": {"ipAllowList": {"sourceRange": ["192.0.2.0/24"], "ipStrategy": {"depth": 1}}},
                "login": {"forwardAuth": {"address": "http://u:pw@auth/verify"}},
                "both": {"chain": {"middlewares": ["sites", "login@http"]}},
                "round": {"chain": {"middlewares": ["round"]}},
                "away": {"redirectRegex": {"regex": "^.*$", "replacement": "https://b"}},
                "not-away": {"redirectRegex": {"regex": "^ftp:", "replacement": "https://b"}},
                "secure": {"redirectScheme": {"scheme": "https"}},
                "page": {"errors": {"query": "/maintenance/1", "service": "x", "status": ["503"]}},
            },
        }}))
    };
    for (middlewares, service, verdicts, outcome) in [
        (&["sites"][..], "s", &[Some(Passes)][..], MatchOutcome::Routed),
        (&["others", "away"], "s", &[Some(Refuses), None], MatchOutcome::Refused),
        (&["away", "others"], "s", &[None, Some(Refuses)], MatchOutcome::Redirect),
        (&["proxied"], "s", &[None], MatchOutcome::Routed),
        (&["both"], "s@http", &[Some(Passes), Some(Asks)], MatchOutcome::Routed),
        (&["round"], "s", &[None], MatchOutcome::Routed),
        (&["not-away", "their@file"], "elsewhere@file", &[None, None], MatchOutcome::Routed),
        (&["secure"], "s", &[None], MatchOutcome::Redirect),
        (&["sites"], "closed", &[Some(Passes)], MatchOutcome::Closed),
        (&["page"], "closed", &[None], MatchOutcome::Maintenance),
        (&["others", "page"], "closed@http", &[Some(Refuses), None], MatchOutcome::Refused),
    ] {
        let answering = answer(&config(middlewares, service), &request("http://a/")).unwrap().answer.unwrap();
        let given: Vec<_> = answering.middlewares.iter().map(|judged| judged.verdict).collect();
        assert_eq!((given.as_slice(), answering.outcome), (verdicts, outcome), "{middlewares:?} {service}");
    }
    let unknown = Request::parse("http://a/").unwrap();
    let answering = answer(&config(&["sites", "login"], "s"), &unknown).unwrap().answer.unwrap();
    let shown: Vec<_> = answering.middlewares.iter().map(|one| (one.verdict, one.detail.as_deref())).collect();
    assert_eq!(shown, [(None, Some("10.44.0.0/16")), (Some(Asks), Some("http://***@auth/verify"))]);
}
