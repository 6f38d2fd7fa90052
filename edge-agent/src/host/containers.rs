//! Containers: running, healthy, not restarting, by Docker's API on its socket. Podman speaks the same.
//!
//! Only `GET /containers/NAME/json`, without a version, which every daemon has in its newest. What health checks print may
//! hold secrets and is not read.

use std::{io, path::PathBuf, time::Duration};

use bytes::Bytes;
use charliehub_proto::{finding::Status, policy};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::UnixStream, time::timeout};

use super::restarts::{Restarts, TOO_MANY};
use crate::{clock::Now, config, sample::Sample};

const CHECK: &str = "container";

/// What is said of one container is some 10 kB.
const MOST_BODY: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Containers {
    socket: PathBuf,
    timeout: Duration,
    window: Duration,
    restarts: Restarts,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Connect(#[from] io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("it did not answer within {0:?}")]
    Hangs(Duration),
    #[error("it closed the connection")]
    Closed,
    #[error("it answered {0}")]
    Refused(StatusCode),
    #[error("its answer is cut short or too long")]
    Body,
    #[error("its answer is not that of Docker: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    fn remedy(&self, socket: &str) -> String {
        match self {
            Self::Connect(error) if error.kind() == io::ErrorKind::NotFound => {
                "systemctl start docker; or set `host.docker` to where the socket is".to_owned()
            }
            Self::Connect(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                format!("let the agent use {socket}: `SupplementaryGroups=docker` in a drop-in of its unit")
            }
            Self::Connect(_) | Self::Closed | Self::Hangs(_) => {
                "see `systemctl status docker`; systemctl start docker".to_owned()
            }
            Self::Http(_) | Self::Refused(_) | Self::Body | Self::Json(_) => {
                format!("see that {socket} is Docker's or podman's, and its log")
            }
        }
    }
}

/// What we need of a container; Docker says much more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Facts {
    state: State,
    #[serde(default)]
    restart_count: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`; podman has `stopped` too.
    status: String,
    exit_code: i64,
    #[serde(rename = "OOMKilled")]
    out_of_memory: bool,
    /// Without a health check: none, or without a status (podman).
    health: Option<Health>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Health {
    /// `starting`, `healthy`, `unhealthy` or `none`.
    status: String,
    failing_streak: u64,
}

impl Containers {
    pub(super) fn new(settings: &config::Host) -> Self {
        Self {
            socket: settings.docker.clone(),
            timeout: settings.timeout,
            window: settings.restart_window,
            restarts: Restarts::default(),
        }
    }

    pub(super) async fn look(&mut self, containers: &[policy::Container], now: Now) -> Vec<Sample> {
        if containers.is_empty() {
            return Vec::new();
        }
        let facts = timeout(self.timeout, self.read(containers)).await.unwrap_or(Err(Error::Hangs(self.timeout)));
        self.restarts.keep(containers.iter().map(|container| container.name.as_str()));
        let facts = match facts {
            Ok(facts) => facts,
            Err(error) => return self.unknown(containers, &error),
        };
        let judged = containers.iter().zip(facts).map(|(container, facts)| {
            let count = facts.as_ref().map_or(0, |facts| facts.restart_count);
            judge(&container.name, facts.as_ref(), self.restarts.note(&container.name, count, now.boot, self.window))
        });
        judged.collect()
    }

    fn unknown(&self, containers: &[policy::Container], error: &Error) -> Vec<Sample> {
        let socket = self.socket.display().to_string();
        let unknown = |container: &policy::Container| {
            let text = format!("{} could not be looked at: {socket}: {error}", container.name);
            Sample::unknown(CHECK, &container.name, text).source(&socket).remedy(error.remedy(&socket))
        };
        containers.iter().map(unknown).collect()
    }

    /// None: there is no such container.
    async fn read(&self, containers: &[policy::Container]) -> Result<Vec<Option<Facts>>, Error> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        let asked = async {
            let mut facts = Vec::with_capacity(containers.len());
            for container in containers {
                facts.push(ask(&mut sender, &container.name).await?);
            }
            Ok(facts)
        };
        // The connection goes on as long as we ask.
        tokio::select! {
            biased;
            facts = asked => facts,
            ended = connection => Err(ended.map_or_else(Error::Http, |()| Error::Closed)),
        }
    }
}

async fn ask(sender: &mut SendRequest<Empty<Bytes>>, name: &str) -> Result<Option<Facts>, Error> {
    // What no container can be called is not there, and must not become another path.
    let is_right = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) || !name.bytes().all(is_right) {
        return Ok(None);
    }
    let mut request = Request::new(Empty::new());
    let path = format!("/containers/{name}/json").parse();
    let Ok(path) = path else { return Ok(None) };
    *request.uri_mut() = path;
    request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("docker"));
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MOST_BODY).collect().await.map_err(|_| Error::Body)?.to_bytes();
    match status {
        StatusCode::OK => Ok(Some(serde_json::from_slice(&body)?)),
        StatusCode::NOT_FOUND => Ok(None),
        other => Err(Error::Refused(other)),
    }
}

fn judge(name: &str, facts: Option<&Facts>, restarts: u64) -> Sample {
    let say = |status, text: &str| Sample::new(CHECK, name, status, format!("{name} {text}")).source("Docker's API");
    let Some(Facts { state, .. }) = facts else {
        return say(Status::Critical, "does not exist").remedy("bring it up: `docker compose up -d` where its file is");
    };
    let health = state.health.as_ref().filter(|health| !matches!(health.status.as_str(), "" | "none"));
    let seen = match health {
        Some(health) => format!("{}, {}", state.status, health.status),
        None => state.status.clone(),
    };
    let bad = |status, text: &str, remedy: String| {
        say(status, text).observed(&seen).expected("running, healthy, not restarting").remedy(remedy)
    };
    let logs = format!("docker logs --tail 50 {name}");
    match state.status.as_str() {
        "running" => {}
        "paused" => return bad(Status::Critical, "is paused", format!("docker unpause {name}")),
        "restarting" => {
            return bad(Status::Critical, "ends and is restarted, again and again", format!("see why: `{logs}`"));
        }
        other => {
            let memory = if state.out_of_memory { ", out of memory" } else { "" };
            let text = format!("does not run: {other}, exit code {}{memory}", state.exit_code);
            return bad(Status::Critical, &text, format!("docker start {name}"));
        }
    }
    if let Some(health) = health.filter(|health| health.status == "unhealthy") {
        let text = format!("is unhealthy: its health check failed {} times in a row", health.failing_streak);
        let remedy = format!(
            "see `docker inspect -f '{{{{json .State.Health}}}}' {name}` and `{logs}`; then `docker restart {name}`"
        );
        return bad(Status::Critical, &text, remedy);
    }
    if restarts >= TOO_MANY {
        return bad(
            Status::Warning,
            &format!("restarted by itself {restarts} times lately"),
            format!("see why: `{logs}`"),
        );
    }
    say(Status::Ok, &format!("is {seen}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In the form in which Docker and podman answer, but for what we do not read.
    fn facts(state: &str, restarts: u64) -> Facts {
        serde_json::from_str(&format!(r#"{{"Id":"9f","Name":"/x","RestartCount":{restarts},"State":{state}}}"#))
            .unwrap()
    }

    #[test]
    fn states_as_docker_and_podman_say_them() {
        let running = r#"{"Status":"running","Running":true,"OOMKilled":false,"ExitCode":0}"#;
        let health = |status: &str| {
            format!(
                r#"{{"Status":"running","ExitCode":0,"Health":{{"Status":"{status}","FailingStreak":3,"Log":null}}}}"#
            )
        };
        for (state, restarts, status, text) in [
            (running, 0, Status::Ok, "x is running"),
            (running, 1, Status::Ok, "x is running"),
            (running, 2, Status::Warning, "x restarted by itself 2 times lately"),
            (&health(""), 0, Status::Ok, "x is running"),
            (&health("none"), 0, Status::Ok, "x is running"),
            (&health("healthy"), 0, Status::Ok, "x is running, healthy"),
            (&health("starting"), 0, Status::Ok, "x is running, starting"),
            (&health("unhealthy"), 0, Status::Critical, "x is unhealthy: its health check failed 3 times in a row"),
            (r#"{"Status":"paused"}"#, 0, Status::Critical, "x is paused"),
            (
                r#"{"Status":"restarting","Restarting":true}"#,
                0,
                Status::Critical,
                "x ends and is restarted, again and again",
            ),
            (
                r#"{"Status":"exited","ExitCode":137,"OOMKilled":true}"#,
                0,
                Status::Critical,
                "x does not run: exited, exit code 137, out of memory",
            ),
            (r#"{"Status":"created"}"#, 0, Status::Critical, "x does not run: created, exit code 0"),
            (r"{}", 0, Status::Critical, "x does not run: , exit code 0"),
        ] {
            let sample = judge("x", Some(&facts(state, 9)), restarts);
            assert_eq!((sample.status, sample.text.as_str()), (status, text), "{state}");
            assert_eq!(sample.remedy.is_some(), status != Status::Ok, "{state}");
        }
        assert_eq!(judge("x", None, 0).status, Status::Critical);
    }

    #[tokio::test]
    async fn without_a_socket_it_is_unknown_and_says_what_would_let_us() {
        let settings = config::Host { docker: "/nowhere/docker.sock".into(), ..config::Host::default() };
        let now = Now { boot: Duration::ZERO, wall: jiff::Timestamp::UNIX_EPOCH, is_trusted: true };
        let samples = Containers::new(&settings).look(&[policy::Container { name: "x".into() }], now).await;
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].status, Status::Unknown);
        assert!(samples[0].remedy.as_ref().unwrap().contains("host.docker"));
    }

    proptest! {
        #[test]
        fn no_answer_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(facts) = serde_json::from_slice::<Facts>(&body) {
                judge("x", Some(&facts), 0);
            }
        }
    }
}
