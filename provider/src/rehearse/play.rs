//! One rehearsal, from the stage to the report.
//!
//! Traefik's API shows routers before its log says everything (unknown resolvers come last), so a second, tiny
//! configuration follows the candidate. Traefik takes one after the other: when the second one runs, all was said.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    pin::pin,
    time::Instant,
};

use bytes::Bytes;
use tokio::{net::TcpListener, sync::watch};
use uuid::Uuid;

use super::{
    Error,
    actor::Actor,
    ask::Api,
    harmless::{self, harmless},
    prompt,
    report::{Found, Heard, Report},
    stage::{Ports, Stage, Tokens, entry_points},
};
use crate::compile::Settings;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(super) async fn play(traefik: &Path, settings: &Settings, candidate: &[u8]) -> Result<Report, Error> {
    let began = Instant::now();
    let (body, config) = harmless(candidate, settings.cert_resolvers.as_ref());
    let token = || Uuid::new_v4().simple().to_string();
    let tokens = Tokens { api: token(), prompt: token() };
    let listener = TcpListener::bind(LOOPBACK).await?;
    let ports = Ports { api: free_port().await?, prompt: listener.local_addr()?.port() };
    let stage = Stage::set(&entry_points(&config, settings.entry_points.as_ref()), ports, &tokens)?;
    let actor = Actor::enter(traefik, &stage.configuration())?;
    let (script, lines) = watch::channel(Bytes::from(body));
    let api = Api::on(ports.api, &tokens.api)?;
    let report = tokio::select! {
        error = prompt::serve(listener, &tokens.prompt, lines) => return Err(error.into()),
        report = perform(Listener { actor, heard: Heard::default() }, api, &script, stage) => report?,
    };
    Ok(Report { took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), ..report })
}

/// A port that was free a moment ago; Traefik cannot be handed one that is open.
async fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind(LOOPBACK).await?.local_addr()?.port())
}

async fn perform(
    mut listener: Listener,
    mut api: Api,
    script: &watch::Sender<Bytes>,
    stage: Stage,
) -> Result<Report, Error> {
    let version = listener.until(api.until_up()).await?;
    drop(stage); // it was read
    let found = match listener.until_refused_or(api.until_runs(harmless::CANDIDATE)).await? {
        Some(()) => {
            let found = listener.until(api.found()).await??;
            script.send_replace(harmless::last().into());
            listener.until(api.until_runs(harmless::LAST)).await?;
            found
        }
        None => Found::default(),
    };
    Ok(Report::new(version, found, listener.hear_the_rest().await?))
}

/// Hears all that the actor says, whatever else is waited for.
struct Listener {
    actor: Actor,
    heard: Heard,
}

impl Listener {
    async fn until<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Error> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                said = self.actor.says() => self.hear(said?)?,
            }
        }
    }

    /// None when Traefik refuses the whole configuration before the work is done.
    async fn until_refused_or<T>(&mut self, work: impl Future<Output = T>) -> Result<Option<T>, Error> {
        let mut work = pin!(work);
        while self.heard.body_error.is_none() {
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                said = self.actor.says() => self.hear(said?)?,
            }
        }
        Ok(None)
    }

    fn hear(&mut self, said: Option<String>) -> Result<(), Error> {
        let line = said.ok_or_else(|| Error::Ended(self.heard.last_words()))?;
        self.heard.hear(&line);
        Ok(())
    }

    /// Ends the process, and hears what is left to hear.
    async fn hear_the_rest(mut self) -> Result<Heard, Error> {
        self.actor.kill().await?;
        while let Some(line) = self.actor.says().await? {
            self.heard.hear(&line);
        }
        Ok(self.heard)
    }
}
