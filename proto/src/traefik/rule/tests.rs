use proptest::prelude::*;

use super::*;

fn matcher(name: Name, values: &[&str]) -> Expr {
    Expr::Matcher(Matcher { name, values: values.iter().map(|&value| value.to_owned()).collect() })
}

#[test]
fn a_rule_reads_as_a_tree() {
    let (a, b) = (|| matcher(Name::Host, &["a"]), || matcher(Name::Path, &["/b"]));
    let table = [
        ("Host(`a`)", a()),
        ("host(`a`)", a()),
        ("!Host(\"a\",)", Expr::Not(Box::new(a()))),
        ("Host(`a`) || Path(`/b`) && Host(`a`)", Expr::Any(vec![a(), Expr::All(vec![b(), a()])])),
        (
            "(Host(`a`) || Path(`/b`)) && !HOST(`a`) // why",
            Expr::All(vec![Expr::Any(vec![a(), b()]), Expr::Not(Box::new(a()))]),
        ),
        ("Host(\n`a`) &&\n /* x */ Path(`/b`)\n\n", Expr::All(vec![a(), b()])),
        (r#"Host("\x61"...)"#, a()),
    ];
    for (rule, expected) in table {
        assert_eq!(parse(rule, Dialect::Http), Ok(expected), "{rule}");
    }
}

#[test]
fn a_refusal_names_the_place_and_the_remedy() {
    let table = [
        (Dialect::Http, "", 1, "the rule ends"),
        (Dialect::Http, "hOST(`a`)", 1, "did you mean Host?"),
        (Dialect::Http, "Hots(`a`)", 1, "did you mean Host?"),
        (Dialect::Http, "Host(`a`) && PathPrefx(`/`)", 14, "did you mean PathPrefix?"),
        (Dialect::Http, "HostSNI(`a`)", 1, "of this kind of router, which has: Host,"),
        (Dialect::Http, "Host(`a`, `b`)", 1, "||"),
        (Dialect::Http, "Host(`a`", 9, "expected , or )"),
        (Dialect::Http, "Host(`a", 6, "back-tick"),
        (Dialect::Http, "Host('a')", 6, "back-ticks or quotes"),
        (Dialect::Http, "Host(`a`) & Host(`b`)", 11, "&& or ||"),
        (Dialect::Http, "Host(`a`)\n&& Host(`b`)", 11, "&& or ||"),
        (Dialect::Http, "Path(`a`)", 6, "slash"),
        (Dialect::Http, "Host(``)", 6, "empty"),
        (Dialect::Http, "Host(`bücher.de`)", 6, "xn--"),
        (Dialect::Http, "ClientIP(`10.0.0.0/33`)", 10, "network"),
        (Dialect::Http, "HostRegexp(`a(`)", 12, "without its )"),
        (Dialect::HttpV2, "Query(`a`)", 7, "a name and a value"),
        (Dialect::HttpV2, "Headers(`a`)", 1, "pairs"),
        (Dialect::HttpV2, "Path(`/{a`)", 6, "pairs"),
        (Dialect::Tcp, "HostSNI(`a b`)", 9, "host name"),
        (Dialect::Tcp, "ALPN(`acme-tls/1`)", 6, "Traefik's own"),
        (Dialect::TcpV2, "HostSNI(`*.a`)", 9, "host name"),
    ];
    for (dialect, rule, at, part) in table {
        let error = parse(rule, dialect).expect_err(rule);
        assert!(error.reason.contains(part), "{rule}: {error}");
        assert_eq!(error.at, at, "{rule}: {error}");
    }
    let deep = format!("{}Host(`a`)", "!".repeat(100_000));
    assert!(parse(&deep, Dialect::Http).expect_err("deep").reason.contains("flatter"));
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z`\"\\\\\r\n\t \u{feff}é\u{7f}]{1,8}", any::<String>()]
        .prop_filter("empty", |value| !value.is_empty())
}

fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        value().prop_map(|value| matcher(Name::Method, &[&value])),
        (value(), value()).prop_map(|(name, value)| matcher(Name::Header, &[&name, &value])),
        value().prop_map(|path| matcher(Name::Path, &[&format!("/{path}")])),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Expr::Not(Box::new(inner))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::All),
            prop::collection::vec(inner, 2..4).prop_map(Expr::Any),
        ]
    })
}

proptest! {
    #[test]
    fn printed_and_read_it_is_the_same(expr in expr()) {
        prop_assert_eq!(parse(&expr.to_string(), Dialect::Http), Ok(expr));
    }

    #[test]
    fn nothing_makes_it_panic(rule in prop_oneof![any::<String>(), "(Host|PathRegexp|[(`)!&|,\"\\\\ a\n./*{}])*"]) {
        for dialect in [Dialect::Http, Dialect::HttpV2, Dialect::Tcp, Dialect::TcpV2] {
            drop(parse(&rule, dialect));
        }
    }
}
