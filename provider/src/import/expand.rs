//! What a router comes to, with everything that it names in its place: two that are equal here answer alike.
//!
//! Names vanish, defaults are filled in or left out, lists of networks are aggregated, chains are unrolled, and servers
//! with weights are the same as services with weights of one server each. Priorities are not part of it: how routers
//! rank among each other is judged in [`super::rank`].

use std::{collections::BTreeMap, net::IpAddr};

use charliehub_proto::traefik::{
    Duration, Kind, Piece,
    http::{self, HealthCheckMode, Strategy},
};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{Name, rule};

/// As deep as references go; beyond it is a circle.
const DEEPEST: usize = 16;

/// The regular expressions of our redirects: they match every URL, so nothing behind them is reached.
pub(super) const WHOLE: &str = "^.*$";
pub(super) const KEEP_PATH: &str = "^[^:]*://[^/?]*(.*)$";

/// A piece with everything that it names.
pub(super) fn expanded(pieces: &BTreeMap<Name, Piece>, name: &Name) -> Value {
    expand(pieces, name, 0)
}

fn expand(pieces: &BTreeMap<Name, Piece>, name: &Name, depth: usize) -> Value {
    let Some(piece) = pieces.get(name).filter(|_| depth < DEEPEST) else { return json!("missing") };
    let piece = normal(piece);
    let mut body = serde_json::to_value(&piece).unwrap_or_default();
    for reference in piece.references() {
        let target = (reference.kind, reference.name);
        let elsewhere = target.1.contains('@')
            || (target.0 == Kind::TlsOption && target.1 == "default" && !pieces.contains_key(&target));
        if !elsewhere {
            set(&mut body, &reference.path, expand(pieces, &target, depth + 1));
        }
    }
    finish(&piece, &mut body);
    body
}

/// Puts a value where [`charliehub_proto::traefik::Reference`] says that a name stands.
pub(super) fn set(body: &mut Value, path: &str, value: Value) {
    let pointer = format!("/{}", path.replace(']', "").replace(['[', '.'], "/"));
    if let Some(place) = body.pointer_mut(&pointer) {
        *place = value;
    }
}

/// The same meaning, in one notation.
fn normal(piece: &Piece) -> Piece {
    let mut piece = piece.clone();
    if let Piece::HttpRouter(router) = &mut piece {
        router.priority = None;
        router.entry_points.sort();
        if let (Some(spot), Some(tls)) = (rule::spot(&router.rule), &mut router.tls) {
            // What ACME finds in the rule by itself.
            if tls.domains.iter().all(|domain| domain.main == spot.host && domain.sans.is_empty())
                && !spot.host.contains('*')
            {
                tls.domains.clear();
            }
        }
        router.rule = canonical(&router.rule);
    } else if let Piece::TcpRouter(router) = &mut piece {
        router.priority = None;
        router.entry_points.sort();
        if let (Some(spot), Some(tls)) = (rule::spot(&router.rule), &mut router.tls)
            && tls.domains.iter().all(|domain| domain.main == spot.host && domain.sans.is_empty())
            && !spot.host.contains('*')
        {
            tls.domains.clear();
        }
        router.rule = canonical(&router.rule);
    } else if let Piece::HttpService(service) = &mut piece {
        if let Some(balancer) = &mut service.load_balancer {
            normal_balancer(balancer);
        }
        let sticky = service.weighted.as_mut().and_then(|weighted| weighted.sticky.as_mut());
        sticky.into_iter().for_each(normal_sticky);
    } else if let Piece::HttpMiddleware(middleware) = &mut piece {
        normal_middleware(middleware);
    } else if let Piece::TcpMiddleware(middleware) = &mut piece
        && let Some(list) = &mut middleware.ip_allow_list
    {
        list.source_range = aggregated(&list.source_range);
    }
    piece
}

/// The rule as a row would say it; else as it stands.
fn canonical(text: &str) -> String {
    rule::spot(text).map_or_else(|| text.to_owned(), |spot| format!("{} {}", spot.host, spot.path))
}

fn normal_balancer(balancer: &mut http::LoadBalancer) {
    balancer.pass_host_header = balancer.pass_host_header.filter(|pass| !pass);
    balancer.strategy = balancer.strategy.filter(|strategy| *strategy != Strategy::Wrr);
    let flush = balancer.response_forwarding.as_ref().and_then(|forwarding| forwarding.flush_interval);
    if flush == Some(Duration::from_millis(100)) {
        balancer.response_forwarding = None;
    }
    for server in &mut balancer.servers {
        if let Some((scheme, host, port)) = address(&server.url) {
            server.url = format!("{scheme}://{host}:{port}");
        }
    }
    balancer.sticky.iter_mut().for_each(normal_sticky);
    if let Some(check) = &mut balancer.health_check {
        check.follow_redirects = check.follow_redirects.filter(|follow| !follow);
        check.mode = check.mode.filter(|mode| *mode != HealthCheckMode::Http);
        if check.method == "GET" {
            check.method.clear();
        }
    }
}

fn normal_sticky(sticky: &mut http::Sticky) {
    if let Some(cookie) = &mut sticky.cookie {
        cookie.path = cookie.path.take().filter(|path| path != "/");
    }
}

fn normal_middleware(middleware: &mut http::Middleware) {
    if let Some(list) = &mut middleware.ip_allow_list {
        list.source_range = aggregated(&list.source_range);
        list.reject_status_code = list.reject_status_code.filter(|code| *code != 403);
    }
    if let Some(limit) = &mut middleware.rate_limit {
        limit.burst = limit.burst.filter(|burst| *burst != 1);
        limit.period = limit.period.filter(|period| Some(*period) != Duration::from_secs(1));
    }
    if let Some(auth) = &mut middleware.forward_auth {
        auth.trust_forward_header = auth.trust_forward_header.filter(|trust| *trust);
        auth.max_response_body_size = auth.max_response_body_size.filter(|size| *size != -1);
    }
}

/// Scheme, host and port of a server that is nothing more; the port is that of the scheme where none is given.
pub(super) fn address(url: &str) -> Option<(&str, &str, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let standard = if scheme == "https" { 443 } else { 80 };
    let (host, port) = split_port(rest).unwrap_or((rest, standard));
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let plain = bare.unwrap_or(host);
    let fine = !plain.is_empty() && !plain.contains(['/', '?', '#', '@']) && (bare.is_some() || !plain.contains(':'));
    fine.then_some((scheme, host, port))
}

/// `host:1883`, `[fd00::1]:1883`.
pub(super) fn split_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

/// Networks and addresses as the networks that they come to.
pub(super) fn networks(ranges: &[String]) -> Option<Vec<IpNet>> {
    let one = |text: &String| text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
    let nets: Vec<IpNet> = ranges.iter().map(|range| one(range).map(|net| net.trunc())).collect::<Option<_>>()?;
    Some(IpNet::aggregate(&nets))
}

fn aggregated(ranges: &[String]) -> Vec<String> {
    networks(ranges).map_or_else(|| ranges.to_vec(), |nets| nets.iter().map(ToString::to_string).collect())
}

/// What shows only once the references stand in their places.
fn finish(piece: &Piece, body: &mut Value) {
    match piece.kind() {
        Kind::HttpRouter => {
            let Some(router) = body.as_object_mut() else { return };
            let mut chain = Vec::new();
            unroll(router.remove("middlewares").unwrap_or_default(), &mut chain);
            if let Some(last) = chain.iter().position(takes_all) {
                chain.truncate(last + 1);
                router.remove("service");
            }
            router.insert("middlewares".to_owned(), Value::Array(chain));
        }
        Kind::HttpService | Kind::TcpService => {
            if let Some(balancer) = one_balancer(body) {
                *body = balancer;
            }
        }
        Kind::HttpMiddleware
        | Kind::HttpServersTransport
        | Kind::HttpModel
        | Kind::TcpRouter
        | Kind::TcpMiddleware
        | Kind::TcpServersTransport
        | Kind::UdpRouter
        | Kind::UdpService
        | Kind::TlsOption
        | Kind::TlsStore
        | Kind::TlsCertificate => {}
    }
}

/// Chains within chains to one list.
fn unroll(middlewares: Value, into: &mut Vec<Value>) {
    let Value::Array(items) = middlewares else { return };
    for mut item in items {
        match item.pointer_mut("/chain/middlewares").map(Value::take) {
            Some(inner) => unroll(inner, into),
            None => into.push(item),
        }
    }
}

/// True for a redirect of ours: it answers every request itself.
fn takes_all(middleware: &Value) -> bool {
    let regex = middleware.pointer("/redirectRegex/regex").and_then(Value::as_str);
    regex.is_some_and(|regex| regex == WHOLE || regex == KEEP_PATH)
}

/// A service as one list of servers with weights, where it is that.
fn one_balancer(body: &Value) -> Option<Value> {
    if let Some(balancer) = body.get("loadBalancer").and_then(Value::as_object) {
        let mut balancer = balancer.clone();
        for server in balancer.get_mut("servers")?.as_array_mut()? {
            server.as_object_mut()?.entry("weight").or_insert_with(|| 1.into());
        }
        let mut body = body.as_object()?.clone();
        body.insert("loadBalancer".to_owned(), balancer.into());
        return Some(body.into());
    }
    let weighted = body.as_object().filter(|body| body.len() == 1)?.get("weighted")?.as_object()?;
    let mut servers = Vec::new();
    let mut rest: Option<Map<String, Value>> = None;
    for share in weighted.get("services")?.as_array()? {
        let mut child = share.pointer("/name/loadBalancer")?.as_object()?.clone();
        let own = child.remove("servers")?;
        let [server] = own.as_array()?.as_slice() else { return None };
        let mut server = server.as_object()?.clone();
        if server.get("weight") != Some(&json!(1)) || child.contains_key("sticky") {
            return None;
        }
        server.insert("weight".to_owned(), share.get("weight").cloned().unwrap_or_else(|| 1.into()));
        servers.push(server.into());
        if *rest.get_or_insert_with(|| child.clone()) != child {
            return None;
        }
    }
    let mut balancer = rest?;
    if balancer.contains_key("healthCheck") != weighted.contains_key("healthCheck") {
        return None;
    }
    balancer.insert("servers".to_owned(), Value::Array(servers));
    if let Some(sticky) = weighted.get("sticky") {
        balancer.insert("sticky".to_owned(), sticky.clone());
    }
    Some(json!({ "loadBalancer": balancer }))
}
