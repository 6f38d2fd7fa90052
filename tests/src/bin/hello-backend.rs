//! Backends for the quickstart: small real HTTP servers that say who they are and what reached them.
//!
//! `hello-backend NAME...` binds a loopback port for each name, prints `NAME PORT` lines, and serves until it is stopped.
//! An answer is plain text: `hello from NAME`, the request line, then the headers by which one sees what Traefik did. The
//! backend named `auth` also stands in for Authelia's forward-auth endpoint: a cookie `authelia_session=USER` is let in as
//! that user, anything else gets 401.
#![allow(clippy::print_stdout, reason = "the ports are this program's result")]

use std::convert::Infallible;
use std::fmt::Write as _;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{COOKIE, HOST};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

const FORWARD_AUTH: &str = "/api/authz/forward-auth";
const SHOWN: [&str; 5] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "remote-user"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    anyhow::ensure!(!names.is_empty(), "usage: hello-backend NAME...");
    let tasks = TaskTracker::new();
    for name in names {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no free loopback port")?;
        println!("{name} {}", listener.local_addr()?.port());
        tasks.spawn(serve(name.into(), listener, tasks.clone()));
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

async fn serve(name: std::sync::Arc<str>, listener: TcpListener, tasks: TaskTracker) {
    while let Ok((stream, _)) = listener.accept().await {
        let name = name.clone();
        tasks.spawn(async move {
            let answer = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&name, &request))));
            // a client that hangs up is no concern of a sample backend
            let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

fn answer(name: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if name == "auth" && request.uri().path() == FORWARD_AUTH {
        return forward_auth(request.headers());
    }
    let mut body = format!("hello from {name}\n{} {}\n", request.method(), request.uri());
    for header in std::iter::once(HOST.as_str()).chain(SHOWN) {
        if let Some(value) = request.headers().get(header) {
            let _infallible = writeln!(body, "{header}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
    }
    Response::new(Full::from(body))
}

fn forward_auth(headers: &HeaderMap) -> Response<Full<Bytes>> {
    let user = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split("; "))
        .find_map(|cookie| cookie.strip_prefix("authelia_session="));
    let mut answer = Response::new(Full::from("sign in first: send the cookie authelia_session=YOUR-NAME\n"));
    *answer.status_mut() = StatusCode::UNAUTHORIZED;
    if let Some(user) = user.and_then(|user| user.parse().ok()) {
        answer = Response::new(Full::default());
        answer.headers_mut().insert("Remote-User", user);
    }
    answer
}
