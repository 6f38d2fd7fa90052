//! What we speak TLS with, as its files are now: our certificate, our key, and the authorities whose clients we believe.
//!
//! Between the files of `[serve]` and each new handshake. [`Tls::follow`] looks at the files each second, and at once when
//! it is asked to: what can be used replaces what was used, what cannot is told and changes nothing. Connections that are
//! open stay open; [`Presented`] asks again whether their certificates are good.

mod client;
mod files;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use metrics::{counter, gauge};
use tokio::{sync::Notify, task::spawn_blocking, time::sleep};
use tokio_rustls::{TlsAcceptor, rustls::ServerConnection};

use self::files::{Stamps, stamps};
pub use self::{
    client::{Fault, Kind, Named, Presented, is_forwarded},
    files::{Error, Loaded, Own},
};
use crate::{config, metrics as name, status::Status};

/// Between two looks at the files. A pair of which one file is not written yet is looked at twice before it is told.
const EVERY: Duration = Duration::from_secs(1);

/// What new handshakes use.
#[derive(Debug)]
pub struct Tls {
    files: config::Tls,
    loaded: ArcSwap<Loaded>,
    wanted: Notify,
    /// What cannot be used, once it is believed.
    refused: Mutex<Option<Refused>>,
}

/// Files that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    stamps: Stamps,
    /// None: it was seen once, and may be half of a renewal.
    why: Option<String>,
}

impl Tls {
    /// Reads the files; `Err` when they cannot be used.
    pub fn open(files: &config::Tls) -> Result<Self, Error> {
        let loaded = Loaded::read(files)?;
        tell(&loaded);
        counter!(name::TLS_RELOADS, "outcome" => "loaded").absolute(0);
        counter!(name::TLS_RELOADS, "outcome" => "refused").absolute(0);
        gauge!(name::TLS_FILES_REFUSED).set(0);
        counter!(name::TLS_REFUSED).absolute(0);
        Ok(Self {
            files: files.clone(),
            loaded: ArcSwap::from_pointee(loaded),
            wanted: Notify::new(),
            refused: Mutex::default(),
        })
    }

    /// For one handshake; give the second to [`Tls::presented`] when it is done.
    pub fn acceptor(&self) -> (TlsAcceptor, Arc<Loaded>) {
        let loaded = self.loaded.load_full();
        (TlsAcceptor::from(Arc::clone(&loaded.config)), loaded)
    }

    /// Who the client is by its certificate; none when it brought none.
    pub fn presented(self: &Arc<Self>, connection: &ServerConnection, with: &Loaded) -> Option<Presented> {
        let chain = connection.peer_certificates().filter(|chain| !chain.is_empty())?;
        let presented = Presented::new(chain, with, Arc::clone(self))?;
        if let Ok(Named { role, name: subject }) = &presented.named {
            gauge!(name::TLS_CLIENT_NOT_AFTER, "role" => role.as_str(), "name" => subject.clone())
                .set(seconds(presented.not_after));
        }
        Some(presented)
    }

    /// Has the files read again now.
    pub fn again(&self) {
        self.wanted.notify_one();
    }

    /// Keeps up with the files for ever.
    pub async fn follow(self: Arc<Self>, status: Arc<Status>) {
        loop {
            let asked = tokio::select! { () = sleep(EVERY) => false, () = self.wanted.notified() => true };
            let this = Arc::clone(&self);
            // A file system may be slow: this is off the runtime.
            drop(spawn_blocking(move || this.look(asked)).await);
            status.tls(self.trouble(Timestamp::now()));
        }
    }

    /// What is not as it should be.
    fn trouble(&self, now: Timestamp) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = self.loaded.load();
        let why = refused.as_ref().and_then(|refused| refused.why.as_ref());
        gauge!(name::TLS_FILES_REFUSED).set(f64::from(u8::from(why.is_some())));
        if let Some(why) = why {
            return Some(format!("tls: the files changed and cannot be used, so the old ones are: {why}"));
        }
        let ended = loaded.own.not_after < now;
        ended.then(|| format!("tls: our certificate ended at {}; renew it", loaded.own.not_after))
    }

    /// Reads the files when they changed, or when somebody asked.
    fn look(&self, asked: bool) {
        let loaded = self.loaded.load();
        let stamps = stamps(&self.files);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if !asked && stamps == loaded.stamps {
            *refused = None;
            return;
        }
        let before = refused.as_ref().filter(|refused| refused.stamps == stamps);
        if !asked && before.is_some_and(|refused| refused.why.is_some()) {
            return;
        }
        let (is_second, generation) = (before.is_some(), loaded.generation + 1);
        match Loaded::read(&self.files) {
            Ok(mut next) => {
                next.generation = generation;
                tracing::info!(
                    subject = next.own.subject, serial = next.own.serial, until = %next.own.not_after,
                    "new handshakes use the certificate as its files are now"
                );
                counter!(name::TLS_RELOADS, "outcome" => "loaded").increment(1);
                tell(&next);
                self.loaded.store(Arc::new(next));
                *refused = None;
            }
            Err(error) => {
                let why = (asked || is_second).then(|| error.to_string());
                if let Some(why) = &why {
                    tracing::error!(why, "the files of TLS changed and cannot be used: the old ones are");
                    counter!(name::TLS_RELOADS, "outcome" => "refused").increment(1);
                }
                *refused = Some(Refused { stamps, why });
            }
        }
    }
}

/// Has the metrics say what is used.
fn tell(loaded: &Loaded) {
    gauge!(name::TLS_NOT_AFTER).set(seconds(loaded.own.not_after));
    if let Some(clients) = &loaded.clients {
        gauge!(name::TLS_CLIENT_CA_NOT_AFTER).set(seconds(clients.not_after));
    }
    if loaded.own.not_after < Timestamp::now() {
        tracing::warn!(until = %loaded.own.not_after, "our certificate has ended: clients refuse it; renew it");
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests;
