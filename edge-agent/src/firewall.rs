//! The firewall: are the rules there, and will they survive a reboot.

use std::sync::Arc;

use charliehub_proto::expected::Expected;

use crate::{catalogue::Check, clock::Now, config, look::Look, sample::Sample};

pub const CHECKS: &[Check] = &[];

/// The group.
#[derive(Debug)]
pub struct Firewall {
    _settings: config::Firewall,
}

impl Firewall {
    pub fn new(settings: &config::Firewall) -> Self {
        Self { _settings: settings.clone() }
    }
}

impl Look for Firewall {
    const NAME: &'static str = "firewall";

    async fn look(&mut self, _expected: &Arc<Expected>, _now: Now) -> Vec<Sample> {
        Vec::new()
    }
}
