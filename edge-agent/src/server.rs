//! `/metrics`, `/healthz` and `/findings`, to read without a token: by default on loopback.
//!
//! A request must name an address, `localhost` or this host, so that no web page reads it through a name of its own.

use std::{convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{metrics, rounds::Shared};

/// Of who connects and asks nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// At once.
const CONNECTIONS: usize = 64;

/// What requests are answered from.
pub struct Server {
    pub shared: Arc<Shared>,
    pub metrics: PrometheusHandle,
    /// Our name, which a `Host` header may hold.
    pub name: String,
}

/// Answers until `stop`.
pub async fn serve(listener: TcpListener, server: Arc<Server>, tasks: TaskTracker, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let server = server.clone();
        let stop = stop.clone();
        tasks.spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let answer = server.answer(request.method(), request.uri().path(), request.headers());
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), answer);
            tokio::select! { _ = connection => {}, () = stop.cancelled() => {} }
            drop(permit);
        });
    }
}

/// Out of file descriptors, say: without a pause the same error comes at once.
async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

impl Server {
    fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        if !self.is_us(headers) {
            let text = "the Host header names somebody else: ask by address\n";
            return response(StatusCode::MISDIRECTED_REQUEST, TEXT, text.to_owned());
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET only\n".to_owned());
        }
        match path {
            "/healthz" => self.health(),
            "/metrics" => {
                metrics::found(&self.shared.findings.all());
                response(StatusCode::OK, PROMETHEUS, self.metrics.render())
            }
            "/findings" => {
                let json = serde_json::to_string(&self.shared.findings.all()).unwrap_or_default();
                response(StatusCode::OK, JSON, json)
            }
            _ => response(StatusCode::NOT_FOUND, TEXT, "there are /findings, /metrics and /healthz\n".to_owned()),
        }
    }

    /// 200 while every group of checks ends its looks.
    fn health(&self) -> Response<Full<Bytes>> {
        let still = self.shared.beats.still();
        if still.is_empty() {
            return response(StatusCode::OK, TEXT, "ok\n".to_owned());
        }
        response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("no look lately: {}\n", still.join(", ")))
    }

    fn is_us(&self, headers: &HeaderMap) -> bool {
        let Some(host) = headers.get(header::HOST) else { return true };
        let Ok(host) = host.to_str() else { return false };
        let name = match host.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        name.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || name.eq_ignore_ascii_case(&self.name)
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
