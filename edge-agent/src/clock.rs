//! The time: how long things last by a clock that nobody sets, and what hour it is by one that may be wrong.
//!
//! Durations run on CLOCK_BOOTTIME, which goes on while the machine sleeps. CLOCK_REALTIME is believed while it keeps pace
//! with it and the kernel says that it is synchronised; after a jump, not before two calm looks.

use std::time::Duration;

use jiff::Timestamp;

/// One moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since the boot.
    pub boot: Duration,
    /// The hour.
    pub wall: Timestamp,
    /// The hour can be believed. While it is false, what is judged by the hour is unknown.
    pub is_trusted: bool,
}
