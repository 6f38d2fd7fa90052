//! The host: files and their modes, units, containers, gateways, room and backups.

use std::sync::Arc;

use charliehub_proto::expected::Expected;

use crate::{catalogue::Check, clock::Now, config, look::Look, sample::Sample};

pub const CHECKS: &[Check] = &[];

/// The group.
#[derive(Debug)]
pub struct Host {
    _settings: config::Host,
}

impl Host {
    pub fn new(settings: &config::Host) -> Self {
        Self { _settings: settings.clone() }
    }
}

impl Look for Host {
    const NAME: &'static str = "host";

    async fn look(&mut self, _expected: &Arc<Expected>, _now: Now) -> Vec<Sample> {
        Vec::new()
    }
}
