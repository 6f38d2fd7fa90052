//! A change watched from outside: a LISTEN of our own hears when Postgres told the provider, a held poll of our own sees
//! when the provider told Traefik.

use std::{
    future::poll_fn,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use charliehub_tests::Postgres;
use tokio::{sync::mpsc, time::timeout};
use tokio_postgres::{AsyncMessage, Client, NoTls};
use tokio_util::task::TaskTracker;

use crate::keepalive::Connection;

/// Nothing that works at all comes later than this.
const DEADLINE: Duration = Duration::from_secs(30);

/// Notifications of new revisions, as the provider gets them.
pub(crate) struct Listening {
    heard: mpsc::UnboundedReceiver<Instant>,
    _client: Client,
}

impl Listening {
    pub(crate) async fn start(postgres: &Postgres) -> anyhow::Result<Self> {
        let (client, mut connection) = postgres.config().connect(NoTls).await?;
        let (tell, heard) = mpsc::unbounded_channel();
        TaskTracker::new().spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if matches!(message, AsyncMessage::Notification(_)) && tell.send(Instant::now()).is_err() {
                    break;
                }
            }
        });
        client.batch_execute("LISTEN charliehub_revision").await?;
        Ok(Self { heard, _client: client })
    }

    /// When the next change was heard of.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Instant> {
        timeout(DEADLINE, self.heard.recv()).await.ok().flatten().context("no notification of the change")
    }
}

/// A poll that is always held, as Traefik's is.
pub(crate) struct HeldPoll {
    seen: mpsc::UnboundedReceiver<Seen>,
}

/// When a configuration came.
pub(crate) struct Seen {
    /// The head of the answer.
    pub(crate) began: Instant,
    pub(crate) whole: Instant,
}

impl HeldPoll {
    /// Returns once the current configuration was received.
    pub(crate) fn start(provider: SocketAddr, token: &str) -> anyhow::Result<Self> {
        let request = request(provider, token, "?wait=55s&instance=bench");
        let mut connection = Connection::plain(provider)?;
        let mut last = connection.ask(&request)?.header("etag").map(str::to_owned);
        let (tell, seen) = mpsc::unbounded_channel();
        thread::spawn(move || {
            while let Ok(answer) = connection.ask(&request) {
                let seen = Seen { began: answer.began, whole: Instant::now() };
                let etag = answer.header("etag").map(str::to_owned);
                if etag != last && tell.send(seen).is_err() {
                    break;
                }
                last = etag;
            }
        });
        Ok(Self { seen })
    }

    /// When the next configuration was received, whole.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Instant> {
        self.next_seen().await.map(|seen| seen.whole)
    }

    pub(crate) async fn next_seen(&mut self) -> anyhow::Result<Seen> {
        timeout(DEADLINE, self.seen.recv()).await.ok().flatten().context("the held poll was not answered")
    }
}

/// A request for the configuration, as Traefik writes it.
pub(crate) fn request(provider: SocketAddr, token: &str, query: &str) -> Vec<u8> {
    format!(
        "GET /traefik{query} HTTP/1.1\r\nHost: {provider}\r\nUser-Agent: Go-http-client/1.1\r\n\
         Authorization: Bearer {token}\r\nAccept-Encoding: gzip\r\n\r\n"
    )
    .into_bytes()
}
