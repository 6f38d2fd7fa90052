//! Certificates: will a certificate fail us.

use std::sync::Arc;

use charliehub_proto::expected::Expected;

use crate::{catalogue::Check, clock::Now, config, look::Look, sample::Sample};

pub const CHECKS: &[Check] = &[];

/// The group.
#[derive(Debug)]
pub struct Certificates {
    _settings: config::Certificates,
}

impl Certificates {
    pub fn new(settings: &config::Certificates) -> Self {
        Self { _settings: settings.clone() }
    }
}

impl Look for Certificates {
    const NAME: &'static str = "certificates";

    async fn look(&mut self, _expected: &Arc<Expected>, _now: Now) -> Vec<Sample> {
        Vec::new()
    }
}
