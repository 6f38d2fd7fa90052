//! The earlier version of a row that may be served again in place of the newest: never one that is more open.

use std::sync::Arc;

use charliehub_proto::{domain::Domain, fragment::Fragment};
use serde_json::Value;

use crate::{guard::tighten, row::Row};

/// What of a fragment decides who gets where: when it changed, only the newest may be served.
const ACCESS: [&str; 6] = ["entryPoints", "middlewares", "parentRefs", "tls", "clientAuth", "sniStrict"];
/// Middlewares that let in or keep out.
const GATES: [&str; 9] = [
    "ipAllowList",
    "ipWhiteList",
    "basicAuth",
    "digestAuth",
    "forwardAuth",
    "inFlightReq",
    "passTLSClientCert",
    "chain",
    "plugin",
];

/// `earlier`, as narrow as `newest`. None: it may not be served again.
pub(super) fn earlier(earlier: &Arc<Row>, newest: &Row) -> Option<Arc<Row>> {
    match (&**earlier, newest) {
        (Row::Domain(earlier), Row::Domain(newest)) => {
            // Elsewhere, or by another way, it would be a place that nobody asks for any more.
            let place =
                |row: &Domain| (row.protocol, row.domain.clone(), row.path_prefix.clone(), row.tcp_entrypoint.clone());
            let served = earlier.is_served() && newest.is_served();
            let same = place(earlier) == place(newest) && served && earlier.middlewares == newest.middlewares;
            same.then(|| Arc::new(Row::Domain(tighten(earlier, newest))))
        }
        (Row::Fragment(was), Row::Fragment(is)) => may_return(was, is).then(|| Arc::clone(earlier)),
        _ => None,
    }
}

fn may_return(was: &Fragment, is: &Fragment) -> bool {
    let named = was.kind == is.kind && was.name == is.name && was.enabled && is.enabled;
    let same = |field: &&str| was.body.get(field) == is.body.get(field);
    let is_gate = |body: &Value| GATES.iter().any(|gate| body.get(gate).is_some());
    let is_middleware = was.kind.ends_with(".middleware");
    named && ACCESS.iter().all(same) && !(is_middleware && (is_gate(&was.body) || is_gate(&is.body)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::compile::tests::domain_with;

    fn may(kind: &str, was: &Value, is: &Value) -> bool {
        let [was, is] = [was, is].map(|body| {
            let row = json!({
                "id": uuid::Uuid::nil(), "kind": kind, "name": "x", "body": body, "enabled": true, "notes": null,
                "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "version": 1,
            });
            Arc::new(Row::Fragment(serde_json::from_value(row).unwrap()))
        });
        earlier(&was, &is).is_some()
    }

    #[test]
    fn what_decides_who_gets_in_never_goes_back() {
        let router =
            |rule: &str, middlewares: &[&str]| json!({ "rule": rule, "service": "s", "middlewares": middlewares });
        assert!(may("http.router", &router("Host(`a`)", &["m"]), &router("Host(`b`)", &["m"])));
        assert!(!may("http.router", &router("Host(`a`)", &[]), &router("Host(`a`)", &["auth"])));
        let list = |range: &str| json!({ "ipAllowList": { "sourceRange": [range] } });
        assert!(!may("http.middleware", &list("0.0.0.0/0"), &list("10.0.0.0/8")));
        assert!(!may("http.middleware", &json!({ "compress": {} }), &list("10.0.0.0/8")), "it became a gate");
        assert!(may("http.middleware", &json!({ "compress": {} }), &json!({ "retry": { "attempts": 2 } })));
        let option = |auth: &str| json!({ "clientAuth": { "clientAuthType": auth } });
        assert!(!may("tls.option", &option("NoClientCert"), &option("RequireAnyClientCert")));
        assert!(may("tls.option", &json!({ "minVersion": "VersionTLS12" }), &json!({ "minVersion": "VersionTLS13" })));
    }

    #[test]
    fn a_row_goes_back_as_narrow_as_it_is_now_and_nowhere_else() {
        let row = |columns: Value| Arc::new(Row::Domain(domain_with("a.test", &columns)));
        let was = row(json!({ "backend_port": 80 }));
        let back = earlier(&was, &row(json!({ "backend_port": 81, "auth_required": true })));
        assert!(matches!(back.as_deref(), Some(Row::Domain(row)) if row.auth_required && row.backend_port == Some(80)));
        assert_eq!(earlier(&was, &row(json!({ "path_prefix": "/elsewhere" }))), None);
        assert_eq!(earlier(&was, &row(json!({ "status": "disabled" }))), None);
    }
}
