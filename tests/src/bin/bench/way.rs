//! One way of bringing a change into a Traefik, and the ruler at its end.

use std::time::{Duration, Instant};

use tokio::task::block_in_place;
use tokio_postgres::Client;

use crate::{
    edge::Traefik,
    keepalive::Poller,
    routes::{Files, SWITCH},
};

/// What is written to bring a change about.
pub(crate) enum Change<'a> {
    /// A row's backend, in a transaction of its own.
    Row { database: &'a Client, host: &'a str },
    /// The file; `port` is that of the routes that stay.
    File { files: &'a Files, port: u16 },
}

/// A change that is live.
pub(crate) struct Changed {
    /// The statement, or the file, began to be written.
    began: Instant,
    /// COMMIT, or rename, had returned.
    pub(crate) committed: Instant,
    /// The first right answer had been read.
    live: Instant,
}

impl Changed {
    pub(crate) fn took(&self) -> Duration {
        self.live - self.committed
    }

    /// With the write itself.
    pub(crate) fn took_with_the_write(&self) -> Duration {
        self.live - self.began
    }
}

pub(crate) struct Way<'a> {
    _edge: Traefik,
    change: Change<'a>,
    poller: Poller,
    /// Name and port of the backends; the first one answers now.
    answers: [(&'a str, u16); 2],
}

impl<'a> Way<'a> {
    pub(crate) fn new(edge: Traefik, change: Change<'a>, answers: [(&'a str, u16); 2]) -> Self {
        let host = match change {
            Change::Row { host, .. } => host,
            Change::File { .. } => SWITCH,
        };
        let poller = Poller::new(edge.address(), host);
        Self { _edge: edge, change, poller, answers }
    }

    /// Waits until Traefik has the routes; opens the connection that the ruler keeps.
    pub(crate) fn until_ready(&mut self) -> anyhow::Result<()> {
        let [(now, _), _] = self.answers;
        block_in_place(|| self.poller.until_answered_by(now)).map(|_| ())
    }

    /// Has the other backend answer, and waits until it does.
    pub(crate) async fn change(&mut self) -> anyhow::Result<Changed> {
        self.answers.reverse();
        let [(name, switch_port), _] = self.answers;
        let began = Instant::now();
        let committed = match &self.change {
            Change::Row { database, host } => {
                let update = "UPDATE charliehub.domains SET backend_port = $1 WHERE domain = $2";
                database.execute(update, &[&i32::from(switch_port), host]).await?;
                Instant::now()
            }
            Change::File { files, port } => files.write(*port, switch_port)?,
        };
        let live = block_in_place(|| self.poller.until_answered_by(name))?;
        Ok(Changed { began, committed, live })
    }
}
