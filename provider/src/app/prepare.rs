//! Before the database is followed: its schema, its first token, its default certificate, and what it knows to be good.

use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::{sync::oneshot, time::sleep};

use crate::{
    auth, certificate,
    config::{Config, Selector},
    postgres::{self, Database, assume_role, migrate, private},
    publish::{Division, Parts},
    snapshot::history,
    store::{read, sync::Held},
};

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Gets the database ready, trying again for as long as that may help. Returns what was last known good.
///
/// An error that waiting does not mend (a wrong password, too old a server) ends the start, unless there is a last known
/// good config to serve: then an edge that works is worth more than a clean exit.
pub(super) async fn prepare(
    database: &Database,
    config: &Config,
    started: Option<oneshot::Receiver<Result<(), private::Error>>>,
    started_with: Option<Held>,
    publisher: &mut Parts,
) -> anyhow::Result<Option<Held>> {
    if let Some(Ok(Err(error))) = maybe(started).await
        && started_with.is_none()
    {
        return Err(error.into());
    }
    let (mut wait, mut said) = (FIRST_WAIT, String::new());
    loop {
        match once(database, config, started_with, publisher).await {
            Ok(held) => return Ok(held),
            Err(error) => {
                let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<postgres::Error>());
                let transient = causes.any(postgres::Error::is_transient);
                if !transient && started_with.is_none() {
                    return Err(error);
                }
                let text = format!("{error:#}");
                if text != said {
                    tracing::warn!(error = text, "the database cannot be used yet; trying again");
                    said = text;
                }
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Our own PostgreSQL, if we have one, has started or failed to.
async fn maybe<T>(started: Option<oneshot::Receiver<T>>) -> Option<Result<T, oneshot::error::RecvError>> {
    Some(started?.await)
}

async fn once(
    database: &Database,
    config: &Config,
    started_with: Option<Held>,
    publisher: &mut Parts,
) -> anyhow::Result<Option<Held>> {
    let (mut client, connection) = database.connect("charliehub-provider").await?;
    let work = async {
        if config.database.migrate {
            let applied = migrate::migrate(&mut client).await?;
            tracing::info!(?applied, "the schema is up to date");
        }
        assume_role(&client).await?;
        if config.compile.default_certificate.is_none() {
            certificate::ensure(&mut client, Timestamp::now()).await?;
        }
        if let Some(path) = auth::ensure_admin(&mut client, &config.serve.data_dir).await? {
            tracing::info!(path = %path.display(), "the first admin token was made");
        }
        resume_parts(&client, publisher).await?;
        if started_with.is_some() {
            return Ok(started_with);
        }
        let Some(mut good) = history::newest_served(&client, None).await.map_err(postgres::Error::from)? else {
            return Ok(None);
        };
        let held = good.held;
        // Those of the newest revision are about to be read, and to take them from history too would take as long again. Rows
        // that are not kept any more leave the guard with the count of routes alone.
        if held != read::newest_revision(&client).await.map_err(postgres::Error::from)?
            && let Ok(rows) = read::as_of(&client, held.revision).await
        {
            good.rows = read::by_key(rows);
        }
        tracing::info!(revision = held.revision, "serving the last good config of the database");
        publisher.resume(None, good);
        Ok(Some(held))
    };
    tokio::select! {
        biased;
        done = work => done,
        ended = connection => {
            ended.map_err(postgres::Error::from).context("the connection ended")?;
            anyhow::bail!("the connection ended")
        }
    }
}

/// Serves the last good config of the database in each part of which the disk had none. Other parts wait for nobody.
async fn resume_parts(client: &tokio_postgres::Client, publisher: &mut Parts) -> Result<(), postgres::Error> {
    let selectors: Vec<&Selector> = publisher.parts().iter().map(|part| &part.selector).collect();
    history::only_parts(client, &selectors).await?;
    for (at, part) in publisher.unserved() {
        let Some(mut good) = history::newest_served(client, Some(&part.selector)).await? else { continue };
        // Without its rows the guard would have nothing to hold the first reading against.
        let Ok(rows) = read::as_of(client, good.held.revision).await else { continue };
        good.rows = Division::select(&part.selector, &read::by_key(rows));
        tracing::info!(revision = good.held.revision, part = %part.selector, "serving the last good config of the database");
        publisher.resume(Some(at), good);
    }
    Ok(())
}
