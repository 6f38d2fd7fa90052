//! The end of a write with `wait=live`: what each Traefik did with it.

use charliehub_proto::{
    change::InstanceAck,
    instance::{InstanceState, InstanceStatus},
};
use tokio::time::{Instant, timeout_at};

use crate::{api::Api, instances::Instance};

/// Waits until every Traefik that polls and has an API runs `revision`, and says which do not.
pub(super) async fn until_live(api: &Api, revision: i64, until: Instant) -> Vec<InstanceAck> {
    let mut heard = api.instances.subscribe();
    let runs = |instance: &Instance| {
        api.current.load_for(&instance.name).is_some_and(|given| instance.runs(revision, given.digest()))
    };
    // Who is given nothing, since no row is in its part, has nothing to run.
    let polling =
        |status: &InstanceStatus| status.state != InstanceState::Gone && api.current.load_for(&status.name).is_some();
    let all = loop {
        heard.mark_unchanged();
        let all: Vec<_> = api.instances.all().into_iter().map(|one| (one.status(), runs(&one))).collect();
        // Refused is an answer too: waiting does not help.
        let waits = |(status, runs): &(InstanceStatus, bool)| {
            polling(status) && status.api.is_some() && !runs && status.state != InstanceState::Refused
        };
        if !all.iter().any(waits) || timeout_at(until, heard.changed()).await.is_err() {
            break all;
        }
    };
    let told = all.into_iter().filter(|(status, _)| polling(status)).map(|(status, runs)| {
        let held = status.held_back.iter().any(|held| held.revision >= revision);
        let live = runs && status.api.is_some() && !held;
        let detail = match (status.held_back.first(), status.trouble) {
            (Some(first), _) if held => Some(format!("{} is held back: {}", first.owner.name, first.reason)),
            (_, trouble) => trouble.filter(|_| !live),
        };
        InstanceAck { name: status.name, live, state: status.state, detail }
    });
    told.collect()
}
