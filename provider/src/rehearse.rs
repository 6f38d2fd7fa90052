//! Rehearses a configuration before it goes live: a throw-away real Traefik loads it, and what it says is the answer.
//!
//! Between whoever has a candidate (a command, the API, a write) and the Traefik binary of `[rehearse]`. In order:
//! [`harmless`] takes from the candidate what would reach out or stumble over what only the real edge has; [`stage`] is
//! the static configuration, all of it on loopback; [`actor`] is the process, and never outlives us; [`prompt`] hands
//! it the candidate by HTTP, so that it is decoded as in production; [`ask`] reads its API; [`play`] lets these act
//! together; [`report`] is what came of it.
//!
//! Nothing is asked of the Traefik under rehearsal, so no backend and no login is contacted.

mod actor;
mod ask;
mod harmless;
mod play;
mod prompt;
pub mod report;
mod stage;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Mutex, time::timeout};

pub use self::{
    actor::{DIE_WITH, die_with, version},
    report::{Report, Verdict},
};
use crate::{
    compile::{self, Compiler},
    config,
    row::Rows,
    snapshot::encode::Draft,
};

/// Time that every rehearsal has, however short the last one was.
const LEAST: Duration = Duration::from_secs(5);

/// What a rehearsal has to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Traefik to start; `None`: rehearsals are off.
    pub traefik: Option<PathBuf>,
    /// The longest that one may take; `None`: as the last one suggests.
    pub timeout: Option<Duration>,
    /// How rows compile, and which entry points and resolvers the real edge has.
    pub compile: Arc<compile::Settings>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("rehearsals are off: no Traefik is configured for them")]
    Off,
    #[error("other rehearsals took all of {} s", .0.as_secs_f32())]
    Busy(Duration),
    #[error("the rehearsal did not come to an end in {} s", .0.as_secs_f32())]
    Late(Duration),
    #[error("cannot run {}", .0.display())]
    Launch(PathBuf, #[source] io::Error),
    #[error("Traefik ended before it had read the configuration: {0}")]
    Ended(String),
    #[error("Traefik's API says what we do not understand: {0}")]
    Api(String),
    #[error("the stage for a rehearsal cannot be set")]
    Stage(#[from] io::Error),
}

impl Error {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Off => "set `rehearse.traefik` to the Traefik binary that the edge runs, such as /usr/bin/traefik",
            Self::Busy(_) => "try again in a moment",
            Self::Late(_) => "set `rehearse.timeout` higher, or look why this machine is slow",
            Self::Launch(..) | Self::Ended(_) | Self::Api(_) => "run: charliehub-provider check",
            Self::Stage(_) => "look at the space and rights of the directory for temporary files",
        }
    }

    /// True when the same may go well a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::Late(_))
    }
}

/// Rehearses one candidate at a time; the others wait in the order in which they came.
#[derive(Debug)]
pub struct Rehearsal {
    settings: Settings,
    turn: Mutex<()>,
    /// How long the last one took, in milliseconds.
    last: AtomicU64,
}

impl Rehearsal {
    pub fn new(settings: Settings) -> Self {
        Self { settings, turn: Mutex::new(()), last: AtomicU64::new(0) }
    }

    /// As the configuration has it; `compile` is what the compiler is told.
    pub fn configured(config: &config::Rehearse, compile: Arc<compile::Settings>) -> Self {
        Self::new(Settings { traefik: config.traefik.clone(), timeout: config.timeout, compile })
    }

    /// False when every rehearsal is answered by [`Error::Off`].
    pub fn is_on(&self) -> bool {
        self.settings.traefik.is_some()
    }

    /// What Traefik would get for these rows.
    pub fn candidate(&self, rows: Rows) -> Bytes {
        let compiler = Compiler::of(&self.settings.compile, rows);
        Draft::new(compiler.pieces()).finish().identity()
    }

    /// Lets a Traefik load `candidate`, the JSON that [`candidate`](Self::candidate) makes or anybody else's. It ends
    /// with its Traefik when it is dropped.
    pub async fn run(&self, candidate: &[u8]) -> Result<Report, Error> {
        let binary = self.settings.traefik.as_deref().ok_or(Error::Off)?;
        let limit = self.limit();
        let _turn = timeout(limit, self.turn.lock()).await.map_err(|_| Error::Busy(limit))?;
        let report = timeout(limit, play::play(binary, &self.settings.compile, candidate))
            .await
            .map_err(|_| Error::Late(limit))??;
        self.last.store(report.took_ms, Ordering::Relaxed);
        Ok(report)
    }

    fn limit(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.settings.timeout.unwrap_or(LEAST.max(last.saturating_mul(3)))
    }
}

/// Rehearses one candidate alone.
pub async fn rehearse(candidate: &[u8], settings: &Settings) -> Result<Report, Error> {
    Rehearsal::new(settings.clone()).run(candidate).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rehearsal(traefik: Option<&str>, timeout: Option<Duration>) -> Rehearsal {
        Rehearsal::new(Settings { traefik: traefik.map(PathBuf::from), timeout, compile: Arc::default() })
    }

    #[tokio::test]
    async fn without_a_binary_it_says_which_key_to_set() {
        let error = rehearsal(None, None).run(b"{}").await.unwrap_err();
        assert!(matches!(error, Error::Off) && error.remedy().contains("`rehearse.traefik`"), "{error}");
    }

    #[tokio::test]
    async fn who_waits_for_a_turn_longer_than_one_may_take_is_told_that_it_is_busy() {
        let rehearsal = rehearsal(Some("/bin/false"), Some(Duration::from_millis(20)));
        let _turn = rehearsal.turn.lock().await;
        let error = rehearsal.run(b"{}").await.unwrap_err();
        assert!(matches!(error, Error::Busy(_)) && error.is_transient(), "{error}");
    }

    #[test]
    fn the_limit_follows_the_last_one_but_not_what_was_configured() {
        for (configured, last, limit) in
            [(None, 0, 5_000), (None, 1_000, 5_000), (None, 4_000, 12_000), (Some(7), 9_000, 7)]
        {
            let rehearsal = rehearsal(None, configured.map(Duration::from_millis));
            rehearsal.last.store(last, Ordering::Relaxed);
            assert_eq!(rehearsal.limit(), Duration::from_millis(limit), "{configured:?} {last}");
        }
    }
}
