//! Keeps the login for the database what its files and commands say now, so that a rotated password needs no restart.
//!
//! Files are looked at every second, a command is asked once a minute; both also when the server has refused what we have.
//! What cannot be read or understood changes nothing: the login that we have may still be good.

use std::time::Duration;

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{config, postgres::Database};

const LOOK: Duration = Duration::from_secs(1);
const ASK: Duration = Duration::from_mins(1);
/// Between two looks because of a refusal.
const PAUSE: Duration = Duration::from_millis(500);

/// Follows the settings for ever.
pub(super) async fn follow(settings: config::Database, database: Database) {
    let mut known = settings.connection_string();
    let mut tick = interval(if settings.is_asked_for() { ASK } else { LOOK });
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut complained = None;
    loop {
        tokio::select! { _ = tick.tick() => {}, () = database.refused() => {} }
        let asked = settings.clone();
        let read = match spawn_blocking(move || asked.read_again()).await {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let taken = match read {
            Ok(now) if now == known => Ok(()),
            Ok(None) => Ok(()),
            Ok(Some(now)) => {
                let taken = database.renew(now.reveal()).map_err(|error| error.to_string());
                if taken.is_ok() {
                    known = Some(now);
                    tracing::info!(database = %database.display(), "the login for the database is a new one");
                }
                taken
            }
            Err(error) => Err(error),
        };
        let complaint = taken.err();
        if let Some(error) = complaint.as_ref().filter(|_| complaint != complained) {
            tracing::warn!(%error, "the login for the database cannot be read again; the old one is used");
        }
        complained = complaint;
        sleep(PAUSE).await;
    }
}
