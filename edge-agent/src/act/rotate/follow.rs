//! Follows a rotation that the other end decides: in one order the peer with its old key is removed and the one with the new key
//! made, with all that the old one had. Until the decision is heard, what works counts: see [`machine`](super::machine).

use std::{collections::BTreeSet, fs, net::SocketAddr, pin::pin, time::Duration};

use charliehub_proto::{
    expected::Expected,
    rotation::{Phase, Rotation},
    site::Tunnel,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::{
    super::{crash_at, run_dir::RunDir},
    conf::Conf,
    ground::{Ground, tunnel_of},
    machine::{Action, Heard, Machine, Which},
    talk::{Talk, Trouble},
};
use crate::{
    clock::boot,
    wireguard::{
        facts::Key,
        write::{Change, Order},
    },
};

/// After it said that it goes: so that the other end, which hears that, has its new key first. What we begin then is a handshake
/// that succeeds; what it begins before is lost, and it begins again only after 5 s.
const LEAD: Duration = Duration::from_millis(300);

/// Whoever hears us answers within so long.
const ANSWER: Duration = Duration::from_secs(1);

/// The other end, which waits for us for some seconds, says within so long that it is to be done.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at whether the other end answers.
const LOOK: Duration = Duration::from_secs(1);

/// What is known of the peer, whatever becomes of the rows and of it meanwhile.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Note {
    pub id: Uuid,
    pub agent: String,
    pub site: String,
    pub interface: String,
    /// Public keys of the other end.
    pub old: String,
    pub new: String,
    /// The other end inside the tunnel.
    pub end: Option<std::net::IpAddr>,
    pub endpoint: Option<SocketAddr>,
    pub keepalive: u16,
    pub allowed_ips: BTreeSet<IpNet>,
    /// The new key was here once.
    pub has_tried: bool,
    /// The new key stays. Until the rows say so here too, nobody else changes the peer.
    #[serde(default)]
    pub is_decided: bool,
}

impl Note {
    pub(super) fn key(&self, which: Which) -> Option<Key> {
        Key::read(match which {
            Which::Old => &self.old,
            Which::New => &self.new,
        })
    }
}

const NAME: &str = "follow-";

pub(super) fn name(interface: &str) -> String {
    format!("{NAME}{interface}")
}

/// All that there are, by interface.
pub(super) fn notes(dir: &RunDir) -> Vec<Note> {
    let Ok(files) = fs::read_dir(dir.path()) else { return Vec::new() };
    let mut names: Vec<String> = files.flatten().filter_map(|file| file.file_name().into_string().ok()).collect();
    names.sort();
    let names = names.iter().filter_map(|name| name.strip_suffix(".json").filter(|name| name.starts_with(NAME)));
    names.filter_map(|name| dir.remembered(name)).collect()
}

/// Follows one rotation.
pub(super) struct Follow<'a> {
    pub ground: &'a Ground,
    pub talk: &'a Talk,
}

impl Follow<'_> {
    /// What must be here before we say that we are ready, and what is noted of it.
    pub(super) async fn ready(&self, rotation: &Rotation, site: String, tunnel: Tunnel) -> Result<Note, String> {
        let interface = tunnel.interface;
        let end = tunnel.peer_address.ok_or_else(|| {
            format!("the row of site {site} does not say where the far end of {interface} is; give the tunnel its `peer_address`")
        })?;
        let wrong = || format!("the keys of the rotation of {} are none", rotation.agent);
        let (old, _) =
            (Key::read(&rotation.old_key).ok_or_else(wrong)?, Key::read(&rotation.new_key).ok_or_else(wrong)?);
        let peer = self.ground.peer(&interface, old).await?;
        let peer = peer.ok_or_else(|| format!("{interface} has no peer {old}"))?;
        if !Conf::read(&self.ground.config.act.conf_dir, &interface)?.has_peer(old) {
            return Err(format!("the file of {interface} has no peer {old}: wg-quick save {interface}"));
        }
        Ok(Note {
            id: rotation.id,
            agent: rotation.agent.clone(),
            site,
            interface,
            old: rotation.old_key.clone(),
            new: rotation.new_key.clone(),
            end: Some(end),
            endpoint: peer.endpoint,
            keepalive: peer.keepalive,
            allowed_ips: peer.allowed_ips,
            has_tried: false,
            is_decided: false,
        })
    }

    /// Says that we are ready, and waits until it is to be done. False: it is not to be done any more.
    pub(super) async fn wait(&self, note: &Note) -> Result<bool, String> {
        let failed = |error: Trouble| error.to_string();
        self.talk.is(note.id, Phase::Ready).await.map_err(failed)?;
        crash_at("follow-ready");
        let told = self.talk.until(note.id, Phase::Switching, Instant::now() + PATIENCE).await.map_err(failed)?;
        let told = told.ok_or_else(|| format!("nothing came of it within {} s", PATIENCE.as_secs()))?;
        Ok(told.phase == Phase::Switching)
    }

    /// Does it, until the decision is heard: what came of it.
    pub(super) async fn go(&self, mut note: Note) -> Result<String, String> {
        self.remember(&note)?;
        crash_at("follow-noted");
        let began = Instant::now();
        let mut going = pin!(self.talk.is(note.id, Phase::Going));
        match timeout(ANSWER, &mut going).await {
            Ok(Ok(rotation)) if rotation.phase == Phase::Going => {
                crash_at("follow-going");
                sleep(LEAD.saturating_sub(began.elapsed())).await;
                self.swap(&mut note, Which::New).await?;
            }
            // It was not said, or not taken: what works, and what is heard next, tells.
            Ok(_) => {}
            // It was heard, it seems: the other end has its new key, and the answer does not come through the tunnel.
            Err(_) => {
                self.swap(&mut note, Which::New).await?;
                going.await.ok();
            }
        }
        self.decide(note).await
    }

    /// From what a note says, until the decision is heard: what came of it.
    pub(super) async fn decide(&self, mut note: Note) -> Result<String, String> {
        let (Some(end), Some(old), Some(new)) = (note.end, note.key(Which::Old), note.key(Which::New)) else {
            self.forget(&note)?;
            return Err(format!("the note of a rotation of {} is nonsense", note.interface));
        };
        let has = match self.ground.peer(&note.interface, new).await? {
            Some(_) => Which::New,
            None => Which::Old,
        };
        let mut machine = Machine::new(has, note.has_tried || has == Which::New, boot());
        let (mut heard, mut seen) = (Heard::Nothing, None);
        loop {
            let looked = Instant::now();
            let answers = self.ground.answers(&note.interface, end).await?;
            match machine.on(heard, answers, boot()) {
                Action::Nothing => {}
                Action::Swap(which) => {
                    self.swap(&mut note, which).await?;
                    machine.swapped(which, boot());
                    continue;
                }
                Action::Finish => return self.finish(note, machine.has, old, new),
            }
            let hold = LOOK.saturating_sub(looked.elapsed());
            match timeout(LOOK * 2, self.talk.news(note.id, seen, hold)).await {
                Ok(Ok(rotation)) => (heard, seen) = (Heard::Phase(rotation.phase), Some(rotation.phase)),
                Ok(Err(error)) => {
                    heard = if matches!(error, Trouble::Unknown) { Heard::Unknown } else { Heard::Nothing };
                    sleep(LOOK.saturating_sub(looked.elapsed())).await;
                }
                Err(_) => heard = Heard::Nothing,
            }
        }
    }

    /// In one order, so that the tunnel is never without a peer.
    async fn swap(&self, note: &mut Note, which: Which) -> Result<(), String> {
        let wrong = || format!("the note of a rotation of {} is nonsense", note.interface);
        let (from, to) = (note.key(which.other()).ok_or_else(wrong)?, note.key(which).ok_or_else(wrong)?);
        // Where it was heard from last.
        if let Some(peer) = self.ground.peer(&note.interface, from).await? {
            note.endpoint = peer.endpoint.or(note.endpoint);
            note.allowed_ips = peer.allowed_ips;
        }
        note.has_tried |= which == Which::New;
        self.remember(note)?;
        let conf = Conf::read(&self.ground.config.act.conf_dir, &note.interface)?;
        let shared = conf.preshared(from).or_else(|| conf.preshared(to));
        let networks = &note.allowed_ips;
        let mut changes = vec![Change::AllowedIps { networks, is_replacing: true }, Change::Keepalive(note.keepalive)];
        changes.extend(note.endpoint.map(Change::Endpoint));
        changes.extend(shared.map(Change::PresharedKey));
        self.ground.write(&note.interface, &[Order::Remove(from), Order::Make(to, changes)]).await?;
        crash_at(if which == Which::New { "follow-switched" } else { "follow-unswitched" });
        match self.ground.peer(&note.interface, to).await? {
            Some(peer) if peer.allowed_ips == note.allowed_ips => {}
            _ => return Err(format!("{} has not the peer that was set", note.interface)),
        }
        tracing::warn!(interface = note.interface, key = %to, which = ?which, "the other end's key is exchanged");
        Ok(())
    }

    fn finish(&self, mut note: Note, has: Which, old: Key, new: Key) -> Result<String, String> {
        if has == Which::Old {
            self.forget(&note)?;
            return Ok(format!("{} has the old key of {}, as before", note.interface, note.agent));
        }
        let conf = Conf::read(&self.ground.config.act.conf_dir, &note.interface)?;
        let saved = conf.with_peer(old, new).save();
        saved.map_err(|error| format!("the file of {} cannot be written: {error}", note.interface))?;
        crash_at("follow-saved");
        note.is_decided = true;
        self.remember(&note)?;
        Ok(format!("{} has the new key of {}, and so has its file", note.interface, note.agent))
    }

    /// Forgets what is decided, once the rows know it here.
    pub(super) fn settle(&self, expected: &Expected) -> Result<(), String> {
        let decided = notes(&self.ground.notes).into_iter().filter(|note| note.is_decided);
        let mut settled = decided.filter(|note| tunnel_of(expected, &note.old).is_none());
        settled.try_for_each(|note| self.forget(&note))
    }

    fn remember(&self, note: &Note) -> Result<(), String> {
        let noted = self.ground.notes.remember(&name(&note.interface), note);
        noted.map_err(|error| format!("{} cannot be written: {error}", self.ground.notes.path().display()))
    }

    fn forget(&self, note: &Note) -> Result<(), String> {
        let forgot = self.ground.notes.forget(&name(&note.interface));
        forgot.map_err(|error| format!("{} cannot be written: {error}", self.ground.notes.path().display()))
    }
}
