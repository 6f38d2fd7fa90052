//! Hands Traefik its configuration by HTTP, as `GET /traefik` does: the decoder is that of production.
//!
//! The first request of a connection is answered at once, a later one when there is another body to hand out.

use std::{convert::Infallible, future::pending, io};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, watch},
};

use super::stage::HEADER;

/// Serves what `script` holds to who has the token, until it is dropped.
pub(super) async fn serve(listener: TcpListener, token: &str, script: watch::Receiver<Bytes>) -> io::Error {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.push(connection(stream, token, script.clone())),
                Err(error) => return error,
            },
            Some(()) = connections.next() => {}
        }
    }
}

async fn connection(stream: TcpStream, token: &str, mut script: watch::Receiver<Bytes>) {
    script.mark_changed();
    let script = Mutex::new(script);
    let service =
        service_fn(async |request: Request<Incoming>| Ok::<_, Infallible>(answer(&request, token, &script).await));
    // A connection that breaks is one that Traefik opens again.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

async fn answer(
    request: &Request<Incoming>,
    token: &str,
    script: &Mutex<watch::Receiver<Bytes>>,
) -> Response<Full<Bytes>> {
    if request.headers().get(HEADER).is_none_or(|given| given != token) {
        let mut refusal = Response::new(Full::default());
        *refusal.status_mut() = StatusCode::FORBIDDEN;
        return refusal;
    }
    let mut script = script.lock().await;
    match script.changed().await {
        Ok(()) => Response::new(Full::new(script.borrow_and_update().clone())),
        Err(_) => pending().await, // the play is over
    }
}
