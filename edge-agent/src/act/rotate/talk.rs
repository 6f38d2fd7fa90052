//! What both ends say to each other, through the provider.

use std::time::Duration;

use charliehub_proto::rotation::{Followed, Phase, Rotation, Step};
use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{expect::refused, provider::Provider};

/// An answer that is not held comes within so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question is held so long, and a little is on top for the way.
const HOLD: Duration = Duration::from_secs(20);
const MARGIN: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// It knows of no such rotation.
    #[error("the provider does not know this rotation")]
    Unknown,
    #[error("the provider refuses: {0}")]
    Refused(String),
    #[error("{0}")]
    Away(String),
}

/// One agent's talk with the provider.
#[derive(Clone)]
pub(super) struct Talk {
    pub provider: Provider,
    pub agent: String,
}

impl Talk {
    /// Says how far we are. The same again changes nothing.
    pub(super) async fn say(&self, id: Uuid, step: &Step) -> Result<Rotation, Trouble> {
        let path = format!("/api/agents/{}/rotations/{id}", self.agent);
        let body = serde_json::to_vec(step).map_err(|error| Trouble::Away(error.to_string()))?;
        let answer = self.provider.put(&path, body.into(), PATIENCE).await;
        read(answer)
    }

    /// Says that it is in this phase.
    pub(super) async fn is(&self, id: Uuid, phase: Phase) -> Result<Rotation, Trouble> {
        self.say(id, &Step { phase, offer: None, why: None }).await
    }

    pub(super) async fn undone(&self, id: Uuid, why: &str) -> Result<Rotation, Trouble> {
        self.say(id, &Step { phase: Phase::Undone, offer: None, why: Some(why.to_owned()) }).await
    }

    /// The rotation as soon as its phase is not `phase` any more, or after a while as it is.
    pub(super) async fn news(&self, id: Uuid, phase: Option<Phase>, hold: Duration) -> Result<Rotation, Trouble> {
        let hold = hold.min(HOLD);
        let not =
            phase.map_or_else(String::new, |phase| format!("?wait={}ms&not={}", hold.as_millis(), phase.as_str()));
        let path = format!("/api/agents/{}/rotations/{id}{not}", self.agent);
        read(self.provider.get(&path, hold + MARGIN).await)
    }

    /// Waits until it is `phase` or final. None: it is not by then.
    pub(super) async fn until(&self, id: Uuid, phase: Phase, by: Instant) -> Result<Option<Rotation>, Trouble> {
        let mut seen = None;
        loop {
            let left = by.saturating_duration_since(Instant::now());
            let rotation = self.news(id, seen, left).await?;
            if rotation.phase >= phase {
                return Ok(Some(rotation));
            }
            if left.is_zero() {
                return Ok(None);
            }
            seen = Some(rotation.phase);
        }
    }

    /// Those that we are to follow, as soon as there is one.
    pub(super) async fn offered(&self) -> Result<Vec<Rotation>, Trouble> {
        let path = format!("/api/agents/{}/rotations?wait={}s", self.agent, HOLD.as_secs());
        read(self.provider.get(&path, HOLD + MARGIN).await).map(|Followed { rotations }| rotations)
    }
}

fn read<T: for<'de> Deserialize<'de>>(
    answer: Result<http::Response<bytes::Bytes>, crate::provider::Error>,
) -> Result<T, Trouble> {
    let answer = answer.map_err(|error| Trouble::Away(error.to_string()))?;
    match answer.status().as_u16() {
        200 | 201 => serde_json::from_slice(answer.body())
            .map_err(|error| Trouble::Away(format!("the provider's answer is not understood: {error}"))),
        404 => Err(Trouble::Unknown),
        status @ 400..500 => Err(Trouble::Refused(refused(status, answer.body()))),
        status => Err(Trouble::Away(refused(status, answer.body()))),
    }
}
