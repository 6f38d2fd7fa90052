//! A stand-in for the part of OVH's API that keeps zones: it checks every signature as theirs does, by a clock that is not
//! ours, keeps records apart from what is published, and publishes at a refresh, in a real BIND.
//!
//! It fails as it is told: with a status, with something that is no JSON, by silence, or by publishing nothing.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Collected, Full};
use hyper::{Method, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::Home;

/// Seconds that its clock is ahead of ours.
const AHEAD: i64 = 4_000;
/// Seconds that a signature may be off its clock.
const OFF: i64 = 30;

/// How it answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Mood {
    Well,
    /// With this status, and a `Retry-After` where there is one.
    Refusing(u16, Option<u32>),
    Nonsense,
    /// It does at once what it is asked by this method, and does not answer.
    Mute(Method),
    /// A refresh is taken, and nothing comes of it.
    Idle,
}

#[derive(Clone, Debug)]
struct Record {
    kind: String,
    sub_domain: String,
    target: String,
    ttl: u32,
}

struct State {
    zone: String,
    keys: [String; 3],
    records: BTreeMap<u64, Record>,
    mood: Mood,
    /// Of what was signed as it should be: method and path.
    asked: Vec<String>,
    /// Where it publishes, and with which key.
    primary: (IpAddr, String),
}

pub struct Ovh {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Ovh {
    /// Keeps `zone` for an application with this key, this secret and this consumer key, and publishes at `primary`, which
    /// takes updates by `key` (`NAME:SECRET`).
    pub async fn start(home: &Home, zone: &str, keys: [&str; 3], primary: IpAddr, key: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(Mutex::new(State {
            zone: zone.to_owned(),
            keys: keys.map(str::to_owned),
            records: BTreeMap::new(),
            mood: Mood::Well,
            asked: Vec::new(),
            primary: (primary, key.to_owned()),
        }));
        let (tasks, shared) = (home.tasks().clone(), state.clone());
        home.tasks().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                let service = service_fn(move |request| answer(address, shared.clone(), request));
                tasks.spawn(async move {
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
                });
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}/1.0", self.address)
    }

    pub fn is(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// Has a record, as its manager makes one; not published.
    pub fn has(&self, kind: &str, sub_domain: &str, target: &str, ttl: u32) {
        let mut state = self.state.lock().unwrap();
        let (kind, sub_domain, target) = (kind.to_owned(), sub_domain.to_owned(), target.to_owned());
        state.records.retain(|_, record| record.kind != kind || record.sub_domain != sub_domain);
        let id = state.records.keys().max().unwrap_or(&5_000_000_000) + 1;
        state.records.insert(id, Record { kind, sub_domain, target, ttl });
    }

    /// What was asked and signed as it should be since this was asked last.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

async fn answer(
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let body = String::from_utf8_lossy(&body).into_owned();
    let mood = state.lock().unwrap().mood.clone();
    let mut response = Response::builder().header("content-type", "application/json");
    let (status, text) = match mood {
        Mood::Refusing(status, retry) => {
            if let Some(seconds) = retry {
                response = response.header("retry-after", seconds);
            }
            (status, json!({ "class": "Server::Trouble", "message": "try again later" }).to_string())
        }
        Mood::Nonsense => (200, "<html>maintenance</html>".to_owned()),
        Mood::Mute(method) if method == parts.method && !parts.uri.path().ends_with("/auth/time") => {
            handled(address, &state, &parts, &body);
            std::future::pending().await
        }
        Mood::Well | Mood::Idle | Mood::Mute(_) => handled(address, &state, &parts, &body),
    };
    Ok(response.status(status).body(Full::new(Bytes::from(text))).expect("a response"))
}

fn handled(
    address: SocketAddr,
    state: &Mutex<State>,
    parts: &hyper::http::request::Parts,
    body: &str,
) -> (u16, String) {
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let now = Timestamp::now().as_second() + AHEAD;
    if path == "/1.0/auth/time" {
        return (200, now.to_string());
    }
    let mut state = state.lock().unwrap();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let refused =
        |status: u16, message: &str| (status, json!({ "class": "Client::Refused", "message": message }).to_string());
    let [application, secret, consumer] = &state.keys;
    if header("x-ovh-application") != application {
        return refused(403, "This application key is invalid");
    }
    if header("x-ovh-consumer") != consumer {
        return refused(403, "This credential is not valid");
    }
    let time: i64 = header("x-ovh-timestamp").parse().unwrap_or_default();
    if (time - now).abs() > OFF {
        return refused(400, "Query out of time");
    }
    let signed = format!("{secret}+{consumer}+{}+http://{address}{path}+{body}+{time}", parts.method);
    let mut signature = "$1$".to_owned();
    for byte in ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, signed.as_bytes()).as_ref() {
        write!(signature, "{byte:02x}").expect("text");
    }
    if header("x-ovh-signature") != signature {
        return refused(400, "Invalid signature");
    }
    let path = path.trim_start_matches("/1.0").to_owned();
    state.asked.push(format!("{} {path}", parts.method));
    let zone = format!("/domain/zone/{}", state.zone);
    let Some(rest) = path.strip_prefix(&zone) else { return refused(404, "This service does not exist") };
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    let ttl = || u32::try_from(body["ttl"].as_u64().unwrap_or(3_600)).expect("a TTL");
    match (&parts.method, rest.strip_prefix("/record")) {
        (&Method::POST, None) if rest == "/refresh" => {
            if state.mood != Mood::Idle {
                publish(&state);
            }
            (200, "null".to_owned())
        }
        (&Method::GET, Some(query)) if query.starts_with('?') => {
            let asked = |key: &str| query[1..].split('&').find_map(|pair| pair.strip_prefix(key)).unwrap_or_default();
            let (kind, sub_domain) = (asked("fieldType="), asked("subDomain="));
            let found = state.records.iter().filter(|(_, one)| one.kind == kind && one.sub_domain == sub_domain);
            (200, json!(found.map(|(id, _)| id).collect::<Vec<_>>()).to_string())
        }
        (&Method::POST, Some("")) => {
            let id = state.records.keys().max().unwrap_or(&5_000_000_000) + 1;
            let record =
                Record { kind: text("fieldType"), sub_domain: text("subDomain"), target: text("target"), ttl: ttl() };
            state.records.insert(id, record);
            (200, json!({ "id": id }).to_string())
        }
        (method, Some(id)) => {
            let Some(record) = id.strip_prefix('/').and_then(|id| state.records.get_mut(&id.parse().ok()?)) else {
                return refused(404, "The requested object does not exist");
            };
            if *method == Method::PUT {
                (record.target, record.ttl) = (text("target"), ttl());
                return (200, "null".to_owned());
            }
            let Record { kind, sub_domain, target, ttl } = record;
            (200, json!({ "fieldType": kind, "subDomain": sub_domain, "target": target, "ttl": ttl }).to_string())
        }
        _ => refused(404, "Got an invalid (or empty) URL"),
    }
}

/// All records as they are now, and none else of their names and types.
fn publish(state: &State) {
    use std::io::Write as _;
    let (server, key) = &state.primary;
    let mut script = format!("server {server}\n");
    for Record { kind, sub_domain, target, ttl } in state.records.values() {
        let name = format!("{sub_domain}.{}.", state.zone);
        writeln!(script, "del {name} {kind}\nadd {name} {ttl} {kind} {target}").expect("text");
    }
    script.push_str("send\n");
    let mut child = Command::new("nsupdate")
        .arg("-y")
        .arg(format!("hmac-sha256:{key}"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("nsupdate");
    child.stdin.take().expect("its input").write_all(script.as_bytes()).expect("its input");
    assert!(child.wait().expect("nsupdate").success(), "{script}");
}
