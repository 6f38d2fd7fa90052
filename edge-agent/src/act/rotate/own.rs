//! Exchanges the key of this end, and decides: the new one stays when it is proven, and the old one comes back when not.
//!
//! ```text
//! made       a draft of the file has the new key; nothing is changed
//! switching  the other end is told; from here on an undo sets the old key
//! decided    the new key is proven: from here on every start goes forward
//! undone     the old key is set; the provider is still to be told
//! ```
//!
//! The private key is in the file and its draft alone. A note says how far it is: who dies in between is followed by the agent of
//! this host, which goes back before the decision and forward behind it.

use std::time::Duration;

use charliehub_proto::rotation::{Offer, Phase, Rotation, Step as Said};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    super::{crash_at, run_dir::RunDir},
    conf::Conf,
    ground::Ground,
    plan::Plan,
    talk::{Talk, Trouble},
};
use crate::wireguard::{
    facts::Key,
    write::{Order, Secret},
};

/// The other end says within so long that it is ready, and that it goes.
const READY: Duration = Duration::from_secs(10);

/// The answer to that it goes reaches the other end within so long, by the old session, where it comes through the tunnel. Less
/// than the other end waits with its exchange.
const LEAVE: Duration = Duration::from_millis(100);

/// The new key is proven within so long.
const PROOF: Duration = Duration::from_secs(30);

/// So many probes are answered for that.
const PROBES: usize = 5;

/// The provider is told of the end within so long, or by the agent later.
const FAREWELL: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Note {
    pub id: Uuid,
    pub site: String,
    pub step: Step,
    /// Why it is undone.
    #[serde(default)]
    pub why: Option<String>,
    /// Public keys.
    pub old: String,
    pub new: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    #[default]
    Made,
    Switching,
    Decided,
    Undone,
}

/// What was done last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Rotated {
    pub at: Timestamp,
    pub old: String,
    pub new: String,
}

pub(super) fn note(notes: &RunDir, interface: &str) -> Option<Note> {
    notes.remembered(&name(interface))
}

pub(super) fn rotated(notes: &RunDir, interface: &str) -> Option<Rotated> {
    notes.remembered::<Option<Rotated>>(&format!("rotated-{interface}")).flatten()
}

pub(super) fn name(interface: &str) -> String {
    format!("rotation-{interface}")
}

/// One rotation of one interface.
pub(super) struct Own<'a> {
    pub ground: &'a Ground,
    pub talk: &'a Talk,
    pub interface: &'a str,
    /// Told what is done, as it is done.
    pub told: &'a (dyn Fn(&str) + Sync),
}

impl Own<'_> {
    /// What was seen of it, or why the old key stays. `by_hand`: where no agent is at the other end, has an operator do that with
    /// the new public key; why not, where it is not to be done.
    pub(super) async fn rotate(
        &self,
        plan: &Plan,
        by_hand: impl AsyncFn(Key) -> Result<(), String>,
    ) -> Result<String, String> {
        let began = Instant::now();
        let (interface, dir) = (self.interface, &self.ground.config.act.conf_dir);
        // Until we were alone, somebody else may have exchanged it.
        let conf = Conf::read(dir, interface)?;
        if conf.own_key().map(|key| key.public()) != Some(plan.old) || note(&self.ground.notes, interface).is_some() {
            return Err(format!("the key of {interface} was exchanged meanwhile; look again"));
        }
        let key = Secret::random();
        let mut note = Note {
            id: Uuid::new_v4(),
            site: plan.site.clone(),
            step: Step::Made,
            why: None,
            old: plan.old.to_string(),
            new: key.public().to_string(),
        };
        self.remember(&note)?;
        crash_at("rotate-noted");
        let made = conf.with_own_key(&key).write_draft();
        crash_at("rotate-made");
        let proven = match made {
            Ok(()) => self.prove(plan, &key, &mut note, by_hand).await,
            Err(error) => Err(format!("{}.new cannot be written: {error}", Conf::path(dir, interface).display())),
        };
        match proven {
            Ok(seen) => {
                let told = self.finish(&note).await?;
                Ok(format!("{seen}; {told}; all in {:.1} s", began.elapsed().as_secs_f64()))
            }
            Err(why) => match self.undo(&mut note, &why).await {
                Ok(()) => Err(format!("{why}; the old key stays")),
                Err(again) => Err(format!("{why}; and not undone yet: {again}")),
            },
        }
    }

    /// Ends what another process began and did not end. None: there is nothing of that.
    pub(super) async fn resume(&self) -> Option<Result<String, String>> {
        let mut note = note(&self.ground.notes, self.interface)?;
        Some(match note.step {
            Step::Decided => self.finish(&note).await,
            Step::Made | Step::Switching | Step::Undone => {
                let why = note.why.clone().unwrap_or_else(|| "it was interrupted".to_owned());
                self.undo(&mut note, &why).await.map(|()| format!("{why}; the old key stays"))
            }
        })
    }

    /// The new key is set, and works: what was seen of that.
    async fn prove(
        &self,
        plan: &Plan,
        key: &Secret,
        note: &mut Note,
        by_hand: impl AsyncFn(Key) -> Result<(), String>,
    ) -> Result<String, String> {
        let (id, interface) = (note.id, self.interface);
        let offer = Offer {
            site: plan.site.clone(),
            interface: interface.to_owned(),
            old_key: note.old.clone(),
            new_key: note.new.clone(),
        };
        let offered = self.talk.say(id, &Said { phase: Phase::Offered, offer: Some(offer), why: None }).await;
        let follower = offered.map_err(|error| error.to_string())?.follower;
        crash_at("rotate-offered");
        match &follower {
            Some(agent) => {
                (self.told)(&format!("offered to agent {agent}"));
                self.until(id, Phase::Ready, agent, "is ready").await?;
            }
            None => by_hand(key.public()).await?,
        }
        crash_at("rotate-ready");
        self.step(note, Step::Switching)?;
        self.talk.is(id, Phase::Switching).await.map_err(|error| error.to_string())?;
        crash_at("rotate-switching");
        if let Some(agent) = &follower {
            self.until(id, Phase::Going, agent, "goes").await?;
            sleep(LEAVE).await;
        }
        crash_at("rotate-going");
        // Read before the key is set: the other end may shake hands at that very moment.
        let before = self.handshake(plan).await?;
        self.set(key).await?;
        crash_at("rotate-switched");
        (self.told)(&format!("{interface} has the new key"));
        let seen = self.answered(plan, before).await?;
        crash_at("rotate-proven");
        self.step(note, Step::Decided)?;
        crash_at("rotate-decided");
        (self.told)(&seen);
        Ok(seen)
    }

    async fn until(&self, id: Uuid, phase: Phase, agent: &str, is: &str) -> Result<Rotation, String> {
        let by = Instant::now() + READY;
        let rotation = self.talk.until(id, phase, by).await.map_err(|error| error.to_string())?;
        let rotation = rotation.ok_or_else(|| {
            let seconds = READY.as_secs();
            format!("agent {agent} did not say within {seconds} s that it {is}; see its log, and that [[act.rotate]] there has `mode = \"act\"`")
        })?;
        if rotation.phase != phase {
            let why = rotation.why.unwrap_or_else(|| format!("the rotation is {} already", rotation.phase));
            return Err(format!("agent {agent}: {why}"));
        }
        (self.told)(&format!("agent {agent} {is}"));
        Ok(rotation)
    }

    /// Sets a private key, and reads it back.
    async fn set(&self, key: &Secret) -> Result<(), String> {
        self.ground.write(self.interface, &[Order::OwnKey(*key)]).await?;
        let device = self.ground.device(self.interface).await?;
        match device.and_then(|device| device.own_key) {
            Some(own) if own == key.public() => Ok(()),
            _ => Err(format!("{} has not the key that was set", self.interface)),
        }
    }

    async fn handshake(&self, plan: &Plan) -> Result<Option<Duration>, String> {
        Ok(self.ground.peer(self.interface, plan.peer).await?.and_then(|peer| peer.handshake))
    }

    /// Waits for answers by a session that is newer than the key: what is sent once a key is set begins one.
    async fn answered(&self, plan: &Plan, before: Option<Duration>) -> Result<String, String> {
        let began = Instant::now();
        let mut answered = 0;
        loop {
            answered = if self.ground.answers(self.interface, plan.end).await? { answered + 1 } else { 0 };
            if answered >= PROBES && self.handshake(plan).await? != before {
                let took = began.elapsed().as_secs_f64();
                return Ok(format!("{} answered {PROBES} probes within {took:.1} s, by the new key", plan.end));
            }
            if began.elapsed() >= PROOF {
                let seconds = PROOF.as_secs();
                return Err(format!("{} did not answer with the new key within {seconds} s", plan.end));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Forward: the new key is in the file, in the tunnel and in the rows.
    async fn finish(&self, note: &Note) -> Result<String, String> {
        let (interface, dir) = (self.interface, &self.ground.config.act.conf_dir);
        let path = Conf::path(dir, interface);
        Conf::save_draft(dir, interface)
            .map_err(|error| format!("{} cannot be replaced: {error}; the agent tries again", path.display()))?;
        crash_at("rotate-saved");
        self.keep(&Conf::read(dir, interface)?).await?;
        self.tell(note).await?;
        crash_at("rotate-told");
        let rotated = Rotated { at: Timestamp::now(), old: note.old.clone(), new: note.new.clone() };
        self.ground
            .notes
            .remember(&format!("rotated-{interface}"), &rotated)
            .and_then(|()| self.ground.notes.forget(&name(interface)))
            .map_err(|error| format!("it cannot be noted: {error}"))?;
        Ok(format!("{} and the rows have it", path.display()))
    }

    /// Back: the tunnel has the key of the file.
    async fn undo(&self, note: &mut Note, why: &str) -> Result<(), String> {
        let (interface, dir) = (self.interface, &self.ground.config.act.conf_dir);
        self.keep(&Conf::read(dir, interface)?).await?;
        crash_at("rotate-unset");
        Conf::remove_draft(dir, interface).map_err(|error| format!("the draft cannot be removed: {error}"))?;
        note.why = Some(why.to_owned());
        self.step(note, Step::Undone)?;
        self.tell(note).await?;
        self.ground.notes.forget(&name(interface)).map_err(|error| format!("it cannot be noted: {error}"))
    }

    /// The tunnel has the key that the file has, where there is a tunnel.
    async fn keep(&self, conf: &Conf) -> Result<(), String> {
        let key = conf.own_key().ok_or_else(|| "the file has no PrivateKey any more".to_owned())?;
        match self.ground.device(self.interface).await? {
            Some(device) if device.own_key != Some(key.public()) => self.set(&key).await,
            Some(_) | None => Ok(()),
        }
    }

    /// What the provider will never take is no reason to go on asking.
    async fn tell(&self, note: &Note) -> Result<(), String> {
        let by = Instant::now() + FAREWELL;
        loop {
            let said = if note.step == Step::Decided {
                self.talk.is(note.id, Phase::Committed).await
            } else {
                self.talk.undone(note.id, note.why.as_deref().unwrap_or_default()).await
            };
            match said {
                Ok(_) | Err(Trouble::Unknown) => return Ok(()),
                Err(Trouble::Refused(why)) => {
                    tracing::warn!(interface = self.interface, why, "the provider does not take how a rotation ended");
                    return Ok(());
                }
                Err(Trouble::Away(why)) if Instant::now() >= by => {
                    return Err(format!("the provider is not told yet: {why}; the agent tells it"));
                }
                Err(Trouble::Away(_)) => sleep(Duration::from_millis(500)).await,
            }
        }
    }

    fn step(&self, note: &mut Note, step: Step) -> Result<(), String> {
        note.step = step;
        self.remember(note)
    }

    fn remember(&self, note: &Note) -> Result<(), String> {
        let noted = self.ground.notes.remember(&name(self.interface), note);
        noted.map_err(|error| format!("{} cannot be written: {error}", self.ground.notes.path().display()))
    }
}

#[cfg(test)]
mod tests;
