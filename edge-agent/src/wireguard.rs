//! WireGuard tunnels: are the tunnels really up.

use std::sync::Arc;

use charliehub_proto::expected::Expected;

use crate::{catalogue::Check, clock::Now, config, look::Look, sample::Sample};

pub const CHECKS: &[Check] = &[];

/// The group.
#[derive(Debug)]
pub struct WireGuard {
    _settings: config::WireGuard,
}

impl WireGuard {
    pub fn new(settings: &config::WireGuard) -> Self {
        Self { _settings: settings.clone() }
    }
}

impl Look for WireGuard {
    const NAME: &'static str = "wireguard";

    async fn look(&mut self, _expected: &Arc<Expected>, _now: Now) -> Vec<Sample> {
        Vec::new()
    }
}
