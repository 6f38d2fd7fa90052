//! Small servers behind the edge: each answers with its own name and remembers who asked.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::{Read as _, Write as _},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{copy, split},
    net::{TcpListener, TcpStream},
};

use crate::{Home, Process, process::guarded, secs, until};

/// A request as the backend saw it. Header names in lower case.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

pub struct Backend {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _process: Option<Process>,
}

impl Backend {
    /// Answers 200 with its name.
    pub async fn start(home: &Home, name: &str) -> Self {
        let name = name.to_owned();
        Self::with(home, move |_| Response::new(name.clone())).await
    }

    /// Answers what `handler` says.
    pub async fn with(home: &Home, handler: impl Fn(&Seen) -> Response<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for a backend");
        let address = listener.local_addr().expect("its address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (tasks, log, handler) = (home.tasks().clone(), seen.clone(), Arc::new(handler));
        home.tasks().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, handler) = (log.clone(), handler.clone());
                let answer = service_fn(move |request: Request<Incoming>| {
                    let (log, handler) = (log.clone(), handler.clone());
                    async move {
                        let request = note(request).await;
                        let response = handler(&request).map(|text| Full::new(Bytes::from(text)));
                        log.lock().unwrap().push(request);
                        Ok::<_, Infallible>(response)
                    }
                });
                tasks.spawn(async move {
                    http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await.ok();
                });
            }
        });
        Self { address, seen, _process: None }
    }

    /// Before the API of a Traefik: answers what `first` says, else what the API does.
    pub async fn before(
        home: &Home,
        api: SocketAddr,
        first: impl Fn(&Seen) -> Option<Response<String>> + Send + Sync + 'static,
    ) -> Self {
        let refused = || Response::builder().status(502).body(String::new()).expect("a response");
        Self::with(home, move |request| first(request).unwrap_or_else(|| forward(api, request).unwrap_or_else(refused)))
            .await
    }

    /// TCP: every byte comes back.
    pub async fn echo(home: &Home) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for a backend");
        let address = listener.local_addr().expect("its address");
        let tasks = home.tasks().clone();
        home.tasks().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tasks.spawn(async move {
                    let (mut read, mut write) = split(stream);
                    copy(&mut read, &mut write).await.ok();
                });
            }
        });
        Self { address, seen: Arc::default(), _process: None }
    }

    /// The real broker, without TLS and passwords.
    pub async fn mosquitto(home: &Home) -> Self {
        let port = home.port();
        let config = home.join("mosquitto.conf");
        std::fs::write(&config, format!("listener {port} 127.0.0.1\nallow_anonymous true\n")).expect("its config");
        let mut command = guarded(None, "KILL", "mosquitto");
        command.arg("-c").arg(config);
        let process = Process::start(home, "mosquitto", command);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        until("mosquitto listens", secs(5), async || TcpStream::connect(address).await).await;
        Self { address, seen: Arc::default(), _process: Some(process) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn note(request: Request<Incoming>) -> Seen {
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let body = request.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    Seen { path, headers, body: String::from_utf8_lossy(&body).into_owned() }
}

/// Asks as `request` did, and waits: the story's own thread has nothing else to do.
fn forward(to: SocketAddr, request: &Seen) -> Option<Response<String>> {
    let mut stream = std::net::TcpStream::connect(to).ok()?;
    write!(stream, "GET {} HTTP/1.0\r\nHost: {to}\r\n\r\n", request.path).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
    Response::builder().status(status).body(body.to_owned()).ok()
}
