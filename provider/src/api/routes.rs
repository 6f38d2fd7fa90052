//! `GET /api/routes`: what the newest rows and fragments compile to, each with its routers, and why one is closed.

use axum::{
    extract::{Request, State as With},
    response::Response,
};
use charliehub_proto::{
    domain::Protocol,
    instance::Owner,
    route::{CompiledRoute, RouteState},
};

use super::{Api, Problem, kept, query::Parameters};
use crate::{
    compile::{Compiler, State, StateKind},
    publish::owner,
    row::{Key, Row},
};

/// `GET /api/routes`: an entry for each row and fragment, as a bare array.
#[utoipa::path(get, operation_id = "list_routes", path = "/api/routes", tag = "routes",
    responses((status = 200, body = Vec<CompiledRoute>, description = "What the rows and fragments compile to"), Problem))]
pub(super) async fn list(With(api): With<Api>, request: Request) -> Result<Response, Problem> {
    Parameters::of(request.uri())?.done(&[])?;
    kept::of_rows(&api, &api.kept.routes, routes).await
}

fn routes(compiler: &Compiler) -> Vec<CompiledRoute> {
    let routes = compiler.rows().iter().filter_map(|(key, row)| shown(key, row, compiler));
    let mut routes: Vec<CompiledRoute> = routes.collect();
    routes.sort_by(|a, b| (&a.name, &a.kind, a.id).cmp(&(&b.name, &b.kind, b.id)));
    routes
}

fn shown(key: &Key, row: &Row, compiler: &Compiler) -> Option<CompiledRoute> {
    let route = compiler.route(key)?;
    let Owner { id, kind, name } = owner(*key, row);
    let of_kind = kind.split_once('.').map(|(protocol, _)| protocol).filter(|protocol| *protocol != "tls");
    Some(CompiledRoute {
        id,
        protocol: route.protocol.map(Protocol::as_str).or(of_kind).map(str::to_owned),
        kind,
        name,
        routers: compiler.routers(key).iter().map(|(_, name)| name.to_string()).collect(),
        state: match route.state.kind() {
            StateKind::Live => RouteState::Live,
            StateKind::Maintenance => RouteState::Maintenance,
            StateKind::Closed => RouteState::Closed,
            StateKind::Off => RouteState::Off,
        },
        reason: match &route.state {
            State::Closed { reason } => Some(reason.clone()),
            State::Live | State::Maintenance | State::Off => None,
        },
        warnings: compiler.warnings(key),
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use charliehub_proto::route::CompiledRoute;
    use http::Request;
    use serde_json::json;

    use crate::{api::tests::World, postgres::tests::cluster::Cluster};

    #[tokio::test]
    async fn each_row_and_fragment_tells_its_routers_and_why_it_is_closed() {
        let (cluster, client) = Cluster::migrated().await;
        let world = World::with(&cluster, &client).await;
        client
            .batch_execute(
                "INSERT INTO domains (domain, tls_mode, backend_host, backend_port, access_tier, status) VALUES
                 ('a.org', 'none', 'h', 80, 'public', 'active'), ('b.org', 'none', 'h', 80, 'internal', 'active'),
                 ('c.org', 'none', 'h', 80, 'public', 'draft'), ('d.org', 'none', 'h', 80, 'public', 'maintenance');
                 INSERT INTO fragments (kind, name, body) VALUES
                 ('http.router', 'raw', '{\"rule\": \"Host(`r.org`)\", \"service\": \"a.org\"}'),
                 ('tls.option', 'strict', '{\"minVersion\": \"VersionTLS13\"}')",
            )
            .await
            .unwrap();
        let request = |path: &str| Request::get(path).header("authorization", format!("Bearer {}", world.reader));
        let (status, _, body) = world.send(request("/api/routes"), Body::empty()).await;
        assert_eq!(status, 200, "{body}");
        let routes: Vec<CompiledRoute> = serde_json::from_str(&body).unwrap();
        let short: Vec<_> = routes
            .iter()
            .filter(|one| one.kind != "tls.store" && one.kind != "tls.certificate")
            .map(|one| json!([one.kind, one.name, one.protocol, one.routers, one.state]))
            .collect();
        assert_eq!(
            short,
            [
                json!(["domain", "a.org", "http", ["a.org"], "live"]),
                json!(["domain", "b.org", "http", ["b.org"], "closed"]),
                json!(["domain", "c.org", "http", [], "off"]),
                json!(["domain", "d.org", "http", ["d.org"], "maintenance"]),
                json!(["http.router", "raw", "http", ["raw"], "live"]),
                json!(["tls.option", "strict", null, [], "live"]),
            ]
        );
        let reason = routes[1].reason.as_deref().unwrap();
        assert!(reason.contains("set [access] internal_networks"), "{reason}");
        let (status, _, body) = world.send(request("/api/routes?limit=1"), Body::empty()).await;
        assert!(status == 400 && body.contains("limit"), "{body}");
    }
}
