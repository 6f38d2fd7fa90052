//! How far the rotations of tunnels' keys are: who may say what of one, and who waits to hear it.
//!
//! Between `api`, which takes what both ends say, and [`store`], which keeps it. The one whose key it is decides: it offers,
//! has it exchanged, and commits or undoes. The other end follows: it says that it can, and that it does. Who did not hear our
//! answer says the same again: that counts once, also when the other has gone on meanwhile.

pub mod store;

use charliehub_proto::rotation::{Phase, Rotation};
use tokio::sync::watch;

/// Who says something of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whose key it is.
    Agent,
    /// Whose key it is, and there is no agent at the other end.
    Alone,
    Follower,
}

impl Who {
    /// What `name` is to `rotation`, if anything.
    pub fn of(rotation: &Rotation, name: &str) -> Option<Self> {
        match &rotation.follower {
            _ if rotation.agent != name => (rotation.follower.as_deref() == Some(name)).then_some(Self::Follower),
            Some(_) => Some(Self::Agent),
            None => Some(Self::Alone),
        }
    }
}

/// It is not the time to say that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub phase: Phase,
    /// What may be said instead.
    pub may: &'static [Phase],
}

/// The phase that `step` of `who` leads to. `None`: it was said before.
pub fn next(phase: Phase, who: Who, step: Phase) -> Result<Option<Phase>, Refused> {
    let may = may_say(phase, who);
    if may.contains(&step) {
        Ok(Some(step))
    } else if said(phase, who) == Some(step) {
        Ok(None)
    } else {
        Err(Refused { phase, may })
    }
}

/// What `who` may say next.
fn may_say(phase: Phase, who: Who) -> &'static [Phase] {
    match (who, phase) {
        (Who::Agent, Phase::Offered | Phase::Switching) | (Who::Follower, Phase::Ready) => &[Phase::Undone],
        (Who::Agent, Phase::Ready) | (Who::Alone, Phase::Offered) => &[Phase::Switching, Phase::Undone],
        (Who::Agent, Phase::Going) | (Who::Alone, Phase::Switching) => &[Phase::Committed, Phase::Undone],
        // It may not be able to; once it goes, the other end decides.
        (Who::Follower, Phase::Offered) => &[Phase::Ready, Phase::Undone],
        (Who::Follower, Phase::Switching) => &[Phase::Going, Phase::Undone],
        (Who::Agent | Who::Alone, Phase::Committed | Phase::Undone)
        | (Who::Alone, Phase::Ready | Phase::Going)
        | (Who::Follower, Phase::Going | Phase::Committed | Phase::Undone) => &[],
    }
}

/// What `who` said last.
fn said(phase: Phase, who: Who) -> Option<Phase> {
    match (who, phase) {
        (Who::Agent | Who::Alone, Phase::Offered | Phase::Ready) => Some(Phase::Offered),
        (Who::Agent | Who::Alone, Phase::Switching | Phase::Going) => Some(Phase::Switching),
        (Who::Agent | Who::Alone, Phase::Committed) | (_, Phase::Undone) => Some(phase),
        (Who::Follower, Phase::Ready | Phase::Switching) => Some(Phase::Ready),
        (Who::Follower, Phase::Going | Phase::Committed) => Some(Phase::Going),
        (Who::Follower, Phase::Offered) => None,
    }
}

/// Who waits for a change hears of it here: of one of ours at once, of another provider's by the database.
#[derive(Debug, Default)]
pub struct Rotations {
    news: watch::Sender<u64>,
}

impl Rotations {
    pub fn changed(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }
}

#[cfg(test)]
mod tests;
