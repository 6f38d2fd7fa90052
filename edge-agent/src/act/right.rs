//! Whether an actor may act: the kernel lets it, and no other agent does the same.

use std::{fmt, fs::File, net::IpAddr};

use charliehub_proto::{
    expected::Expected,
    finding::Status,
    site::{Site, Tunnel},
};
use rustix::thread::{CapabilitySet, capabilities};

use super::run_dir::RunDir;
use crate::{sample::Sample, wireguard::facts::Key};

/// Why nothing can be done, though it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub status: Status,
    pub text: String,
    pub remedy: String,
}

impl Obstacle {
    pub(super) fn unknown(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Unknown, text: text.into(), remedy: remedy.into() }
    }

    pub(super) fn warning(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Warning, ..Self::unknown(text, remedy) }
    }

    pub(super) fn sample(self, check: &'static str, target: impl Into<String>) -> Sample {
        Sample::new(check, target, self.status, self.text).remedy(self.remedy).confirmed_by(1)
    }
}

/// In a line, for a command.
impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.text, self.remedy)
    }
}

/// The far end of a tunnel: its key, and where it is inside the tunnel.
pub(super) fn far_end(tunnel: &Tunnel, site: &str) -> Result<(Key, IpAddr), Obstacle> {
    Key::read(&tunnel.public_key).zip(tunnel.peer_address).ok_or_else(|| {
        Obstacle::unknown(
            format!("the row of site {site} says too little of {}", tunnel.interface),
            "give the tunnel its `peer_address`, the far end inside it, and the site's `public_key` as `wg show` writes it",
        )
    })
}

/// The row of a site whose tunnels end here, as `[[act.KEY]]` names it.
pub(super) fn site<'e>(expected: &'e Expected, name: &str, key: &str) -> Result<&'e Site, Obstacle> {
    let mut rows = expected.sites.iter().filter(|site| site.agent == expected.agent);
    rows.find(|site| site.name == name).ok_or_else(|| {
        Obstacle::unknown(
            format!("site {name} is not expected on this host"),
            format!(
                "`charliehub-provider sites list`, or [[sites]] in the agent's own file; [[act.{key}]] names it by `site`"
            ),
        )
    })
}

/// Routes and tunnels can be changed.
pub(super) fn may_set_networks() -> Result<(), Obstacle> {
    let may = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN));
    if may {
        return Ok(());
    }
    Err(Obstacle::unknown(
        "mode is act, and the agent may not set routes or tunnels",
        "run it with CAP_NET_ADMIN: the drop-in acting.conf beside its manual",
    ))
}

/// That nobody but us does this here, for as long as it is held.
#[derive(Debug)]
pub(super) struct Alone {
    run_dir: RunDir,
    what: String,
    lock: Option<File>,
}

impl Alone {
    /// `what`: as the lock is called.
    pub(super) fn with(run_dir: &RunDir, what: impl Into<String>) -> Self {
        Self { run_dir: run_dir.clone(), what: what.into(), lock: None }
    }

    pub(super) fn is_so(&mut self) -> Result<(), Obstacle> {
        if self.lock.is_some() {
            return Ok(());
        }
        let (what, dir) = (&self.what, self.run_dir.path().display());
        match self.run_dir.lock(what) {
            Ok(Some(lock)) => {
                self.lock = Some(lock);
                Ok(())
            }
            Ok(None) => Err(Obstacle::unknown(
                format!("another agent does this on this host: it holds {dir}/{what}.lock"),
                "stop one of them",
            )),
            Err(error) => Err(Obstacle::unknown(
                format!("mode is act, and {dir} cannot be written: {error}"),
                "give the agent its run directory: the drop-in acting.conf beside its manual",
            )),
        }
    }
}
