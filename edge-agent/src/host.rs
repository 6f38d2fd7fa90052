//! The host: files and their modes, units, containers, gateways, room and backups.
//!
//! Between the policy and what systemd, Docker, the broker and the file systems say. The parts look side by side, each
//! with a limit of its own, so that a dead network file system or a daemon that does not answer is unknown by itself.
//! In each part, `read` asks and returns facts; `judge` is pure.

mod containers;
mod disks;
pub mod files;
mod gateways;
mod glob;
mod patient;
mod recent;
mod restarts;
mod units;

use std::sync::Arc;

use charliehub_proto::expected::Expected;

use crate::{catalogue::Check, clock::Now, config, look::Look, sample::Sample};

pub const CHECKS: &[Check] = &[
    Check {
        name: "file-mode",
        what: "mode, owner, group and kind of the files and directories that the policy names",
        why: "Code and settings that nobody may change, secrets that nobody else may read, data that its service can write. \
              Critical: a link in place of a file, what everyone may write, a secret that everyone may read, a named path that \
              is not there. Warning: any other difference, a glob that matches nothing. The remedy is the exact command. Right \
              paths of globs share one finding; of wrong ones up to 100 a rule are named.",
    },
    Check {
        name: "unit",
        what: "services and timers of systemd: active, enabled, not failed, not restarting",
        why: "Critical: not running, failed, or not there. Warning: not enabled, so that it is gone after the next reboot; \
              restarted by itself twice or more within `host.restart_window`; a timer without a next run. See `systemctl \
              status` and `journalctl -u`.",
    },
    Check {
        name: "container",
        what: "containers: running, healthy where they have a health check, not restarting",
        why: "Critical: not there, not running, unhealthy. Warning: restarted by itself twice or more within \
              `host.restart_window`. Read from Docker's socket (`host.docker`), podman's too. See `docker logs`.",
    },
    Check {
        name: "mqtt-broker",
        what: "the broker of the gateways takes a connection and our subscription",
        why: "Critical: no connection, or a certificate that is not valid. Unknown: it does not let us in. While it is not ok, \
              the gateways are unknown.",
    },
    Check {
        name: "gateway",
        what: "the age of the last message of each MQTT gateway",
        why: "Warning: silent for more than `max_age`; critical: for twice as long. Only the time that we listened counts, and \
              retained messages do not. Unknown after a start until the first message, or until `max_age` is over.",
    },
    Check {
        name: "disk",
        what: "free room and free inodes of the file system of a path",
        why: "A full disk ends databases and renewals. Warning and critical: less free than so many percent, as `df` counts; \
              critical: the kernel made it read-only.",
    },
    Check {
        name: "recent",
        what: "the age of the newest file of a glob: the last backup, the last rotation of secrets",
        why: "Warning: older than `max_age`; critical: half as old again, or no file at all. Empty files do not count. Unknown \
              while the hour cannot be believed.",
    },
];

/// The group.
#[derive(Debug)]
pub struct Host {
    files: files::Files,
    units: units::Units,
    containers: containers::Containers,
    gateways: gateways::Gateways,
    disks: disks::Disks,
    recent: recent::Recents,
}

impl Host {
    pub fn new(settings: &config::Host) -> Self {
        Self {
            files: files::Files::new(settings),
            units: units::Units::new(settings),
            containers: containers::Containers::new(settings),
            gateways: gateways::Gateways::new(settings),
            disks: disks::Disks::new(settings),
            recent: recent::Recents::new(settings),
        }
    }
}

impl Look for Host {
    const NAME: &'static str = "host";

    async fn look(&mut self, expected: &Arc<Expected>, now: Now) -> Vec<Sample> {
        let policy = &expected.policy;
        let (files, units, containers, gateways, disks, recent) = tokio::join!(
            self.files.look(&policy.files, now),
            self.units.look(&policy.units, now),
            self.containers.look(&policy.containers, now),
            self.gateways.look(&policy.gateways),
            self.disks.look(&policy.disks),
            self.recent.look(&policy.recent, now),
        );
        [files, units, containers, gateways, disks, recent].concat()
    }
}
