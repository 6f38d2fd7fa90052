//! Stands in for Authelia: what its endpoint `/api/authz/forward-auth` (v4.38 and newer) answers to a proxy, for users who
//! are known by name alone. It can be down.

use hyper::{Response, header::HeaderValue};

use crate::{Backend, Home, Seen, Switch};

const ENDPOINT: &str = "/api/authz/forward-auth";
/// A cookie `authelia_session` with this is a session of somebody who may not have what is asked for.
pub const STRANGER: &str = "stranger";

pub struct Authelia {
    backend: Backend,
    front: Switch,
    nobody: u16,
}

impl Authelia {
    /// Sends people without a session to this URL. Sessions are `authelia_session=NAME`; NAME's name, mail and groups follow
    /// from it.
    pub async fn start(home: &Home, portal: &str) -> Self {
        let portal = portal.to_owned();
        // Each on a connection of its own, so that `down` is at once.
        let last = HeaderValue::from_static("close");
        let backend = Backend::with(home, move |request| {
            let mut response = answer(request, &portal);
            response.headers_mut().insert("connection", last.clone());
            response
        })
        .await;
        let front = Switch::to(home, backend.address().port());
        Self { backend, front, nobody: home.port() }
    }

    /// As `[access] forward_auth` has it.
    pub fn url(&self) -> String {
        format!("http://{}{ENDPOINT}", self.front.address())
    }

    /// What it was asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.backend.seen()
    }

    /// New connections to it end at once.
    pub fn down(&self) {
        self.front.turn_to(self.nobody);
    }

    pub fn up(&self) {
        self.front.turn_to(self.backend.address().port());
    }
}

fn answer(request: &Seen, portal: &str) -> Response<String> {
    let header = |name: &str| request.headers.get(name).map(String::as_str);
    let status = |status: u16| Response::builder().status(status);
    if request.path.split('?').next() != Some(ENDPOINT) {
        return status(404).body(String::new()).expect("a response");
    }
    let asked = ["x-forwarded-method", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-uri"].map(header);
    let [Some(method), Some(scheme), Some(host), Some(path)] = asked else {
        return status(400).body("a proxy says what it was asked".to_owned()).expect("a response");
    };
    // Whom it does not know by a header is asked for one; a cookie is not looked at then.
    if header("authorization").is_some() {
        let basic = status(401).header("www-authenticate", "Basic realm=\"Authorization Required\"");
        return basic.body("401 Unauthorized".to_owned()).expect("a response");
    }
    let session = header("cookie").and_then(|cookies| {
        cookies
            .split(';')
            .find_map(|cookie| cookie.trim().strip_prefix("authelia_session="))
            .filter(|it| !it.is_empty())
    });
    match session {
        Some(STRANGER) => status(403).body("403 Forbidden".to_owned()).expect("a response"),
        Some(user) => status(200)
            .header("remote-user", user)
            .header("remote-groups", "operators,staff")
            .header("remote-name", format!("{user} of the hub"))
            .header("remote-email", format!("{user}@charliehub.net"))
            .body("200 OK".to_owned())
            .expect("a response"),
        None => {
            let is_script = header("x-requested-with").is_some_and(|by| by.eq_ignore_ascii_case("XMLHttpRequest"));
            let code = match method {
                _ if is_script || !takes_html(header("accept").unwrap_or_default()) => 401,
                "GET" | "HEAD" | "OPTIONS" => 302,
                _ => 303,
            };
            let target = format!("{portal}/?rd={}&rm={method}", escaped(&format!("{scheme}://{host}{path}")));
            let body = format!("<a href=\"{}\">{code}</a>", target.replace('&', "&amp;"));
            status(code).header("location", &target).header("content-type", "text/html").body(body).expect("a response")
        }
    }
}

/// `text/html` anywhere, or all of it first.
fn takes_html(accept: &str) -> bool {
    let kinds = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
    kinds.enumerate().any(|(i, kind)| kind == "text/html" || (i == 0 && kind == "*/*"))
}

/// As the value of a query.
fn escaped(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
