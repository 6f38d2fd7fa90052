//! The database of a command: the configured one, or the private one of the data directory.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::{
    author::Author,
    config::Config,
    postgres::{
        self, Connection, Database, migrate,
        private::{self, Private},
    },
};

/// How long a command waits for the server of a provider that has just started.
const STARTING: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);

/// Does a command's work on the database, with a schema that is up to date where it is ours alone.
pub(super) async fn with<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Opened) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    as_it_is(config, async |opened| {
        if opened.started && config.database.migrate {
            opened.run_as_owner(async |client| Ok(migrate::migrate(client).await?)).await?;
        }
        work(opened).await
    })
    .await
}

/// Does a command's work on the database.
///
/// With none configured it is the private one: that of the provider that runs, else it is started for the command and
/// stopped again however the work ends.
pub(super) async fn as_it_is<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Opened) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if let Some(url) = config.database.connection_string() {
        return work(&Opened::reached(Database::parse(url.reveal())?)).await;
    }
    let (settings, began) = (&config.database, Instant::now());
    let (mut private, database) = loop {
        if let Some(database) = Private::attach(&config.serve.data_dir) {
            return work(&Opened::reached(database)).await;
        }
        match Private::prepare(&config.serve.data_dir, &settings.run_as, settings.bin_dir.as_deref()) {
            Err(private::Error::InUse(_)) if began.elapsed() < STARTING => sleep(LOOK).await,
            prepared => break prepared?,
        }
    };
    let done = match private.start().await {
        Ok(()) => work(&Opened { database, started: true }).await,
        Err(error) => Err(error.into()),
    };
    private.stop().await;
    done
}

/// A database that can be reached.
pub(super) struct Opened {
    pub(super) database: Database,
    /// It is the private one, and runs for this command alone.
    started: bool,
}

impl Opened {
    /// A database that somebody else runs.
    pub(super) fn reached(database: Database) -> Self {
        Self { database, started: false }
    }

    /// Does something on one connection with the rights of a running provider.
    pub(super) async fn run<T>(&self, work: impl AsyncFnOnce(&mut Client) -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.run_as_owner(async |client| {
            postgres::assume_role(client).await?;
            work(client).await
        })
        .await
    }

    /// The same with the rights of the user who logs in, as migrations need them.
    pub(super) async fn run_as_owner<T>(
        &self,
        work: impl AsyncFnOnce(&mut Client) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let (mut client, connection) = self.database.connect("charliehub-provider command").await?;
        driven(connection, work(&mut client)).await
    }
}

/// Runs a connection for as long as the work on it takes.
async fn driven<T>(connection: Connection, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        ended = connection => {
            ended.map_err(postgres::Error::from)?;
            Err(anyhow::anyhow!("PostgreSQL closed the connection")).context("try again")
        }
    }
}

/// A query's error in our words.
pub(super) fn explain(error: tokio_postgres::Error) -> anyhow::Error {
    let missing = error.code().is_some_and(|code| matches!(code.code(), "42P01" | "3F000" | "42703"));
    let error = anyhow::Error::from(postgres::Error::from(error));
    if missing { error.context("the schema is missing or old; run: charliehub-provider migrate") } else { error }
}

/// Who types this command, for the audit.
pub(super) fn actor() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

/// The author of what this command writes.
pub(super) fn author(source: &'static str) -> Author {
    Author { actor: actor(), source, ..Author::default() }
}
