//! A group of checks that look together, such as those of WireGuard; what runs them is [`rounds`](crate::rounds).

use std::{future::Future, sync::Arc};

use charliehub_proto::expected::Expected;

use crate::{clock::Now, sample::Sample};

/// A group of checks.
///
/// A look may take its time (it is given up at its deadline, and the group begins anew from `Default`-like state), may
/// fail in any way it likes, and never changes anything on the host.
pub trait Look: Send + 'static {
    /// Of the group, in logs and in `check_duration_seconds`: `wireguard`.
    const NAME: &'static str;

    /// Looks once at everything that is expected, and says something of each target each time: what is not mentioned any
    /// more is forgotten.
    fn look(&mut self, expected: &Arc<Expected>, now: Now) -> impl Future<Output = Vec<Sample>> + Send;

    /// Returns when there is reason to look before the interval is over, such as a file that changed. Dropped and called
    /// again at will.
    fn wake(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}
