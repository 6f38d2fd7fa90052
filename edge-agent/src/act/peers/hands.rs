//! Looks at an interface, and writes a plan: all at once, read back, and what did not become right taken back.

use std::{collections::BTreeSet, path::Path};

use super::{
    super::{crash_at, right::Obstacle},
    plan::Plan,
};
use crate::wireguard::{
    facts::{Device, Key, NoDevice, Unseen},
    netlink, read, write,
};

pub(crate) async fn look(sockets: &Path, interface: &str) -> Result<Device, Obstacle> {
    let links = netlink::links().await.map_err(|error| {
        Obstacle::unknown(format!("interfaces cannot be listed: {error}"), "let the agent have AF_NETLINK sockets")
    })?;
    let kind = links.get(interface).map(|link| link.kind.as_str());
    read::device(sockets, interface, kind, false).await.map_err(|none| match none {
        NoDevice::Unseen(Unseen { why, remedy }) => Obstacle::unknown(why, remedy),
        NoDevice::Absent | NoDevice::Refused => {
            Obstacle::unknown(format!("{interface} is absent, so it has no peers"), "mend that first: see wg-interface")
        }
    })
}

/// Why a plan is not carried out.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub why: String,
    /// It was made, and did not last.
    pub is_written: bool,
}

/// What was seen of it. `left`: what there would still be to do.
pub(crate) async fn carry_out(
    sockets: &Path,
    interface: &str,
    plan: &Plan,
    left: impl Fn(&Device) -> Plan,
) -> Result<String, Failed> {
    let written = write::device(sockets, interface, &plan.orders()).await;
    crash_at("peers-written");
    let is_written = written.is_ok();
    let failed = |what: &str| {
        let why = written.as_ref().err().map(|error| format!("it cannot be written: {error}"));
        Failed { why: why.unwrap_or_else(|| what.to_owned()), is_written }
    };
    let after = match look(sockets, interface).await {
        Ok(after) => after,
        Err(Obstacle { text, .. }) => {
            let Failed { why, .. } = failed("it was written");
            return Err(Failed { why: format!("{why}, and cannot be read back: {text}"), is_written });
        }
    };
    let left = left(&after);
    if left.steps == plan.steps {
        let Failed { why, .. } = failed("it was written, and taken back at once");
        return Err(Failed { why, is_written });
    }
    let ours: BTreeSet<Key> = plan.steps.iter().map(|step| step.key).collect();
    let wrong: BTreeSet<Key> = left.steps.iter().map(|step| step.key).filter(|key| ours.contains(key)).collect();
    crash_at("peers-checked");
    if wrong.is_empty() {
        return Ok(format!("{} of {interface} changed, and read back", count(plan.steps.len())));
    }
    let Failed { why, .. } = failed(&format!("{} did not become what was written", count(wrong.len())));
    let undo = plan.undo(&wrong, &after);
    if undo.steps.is_empty() {
        return Err(Failed { why, is_written });
    }
    let why = match write::device(sockets, interface, &undo.orders()).await {
        Ok(()) => format!("{why}; undone, but for what was removed"),
        Err(again) => format!("{why}; and not undone: {again}"),
    };
    Err(Failed { why, is_written })
}

/// `1 peer`, `2 peers`.
pub(crate) fn count(peers: usize) -> String {
    format!("{peers} peer{}", if peers == 1 { "" } else { "s" })
}
