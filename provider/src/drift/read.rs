//! Asks a Traefik's API for all that it runs.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{LISTED, Running};
use crate::running::{Api, Error};

/// For all questions to one Traefik.
const PATIENCE: Duration = Duration::from_secs(3);
/// So long a change may be on its way.
const UNDERWAY: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(25);
/// Lists of two configs have nothing to do with each other: they are read so often.
const TRIES: usize = 3;

/// What runs, of one moment. Waits for the config of digest `served`, where that is on its way.
pub async fn running(api: &mut Api, served: &str) -> Result<Running, Error> {
    let late = || Error::Unreachable(format!("not all was answered in {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, settled(api, served)).await.map_err(|_| late())?
}

async fn settled(api: &mut Api, served: &str) -> Result<Running, Error> {
    let until = Instant::now() + UNDERWAY;
    while api.digest().await?.as_deref() != Some(served) && Instant::now() < until {
        sleep(AGAIN).await;
    }
    for _ in 0..TRIES {
        let before = api.digest().await?;
        let running = all(api).await?;
        if api.digest().await? == before && running.digest() == before.as_deref() {
            return Ok(running);
        }
    }
    Err(Error::Unreachable("its config changed whenever it was read".to_owned()))
}

async fn all(api: &mut Api) -> Result<Running, Error> {
    let mut running = Running::default();
    for section in LISTED {
        running.lists.insert(section, api.list::<Value>(section.path()).await?);
    }
    running.entry_points = api.entry_points().await?;
    Ok(running)
}
