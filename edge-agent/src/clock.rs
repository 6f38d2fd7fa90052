//! The time: how long things last by a clock that nobody sets, and what hour it is by one that may be wrong.
//!
//! Durations run on CLOCK_BOOTTIME, which goes on while the machine sleeps. CLOCK_REALTIME is believed while it keeps pace
//! with it: after a jump, not before two calm readings.

use std::{sync::Mutex, time::Duration};

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};

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

impl Now {
    /// The hour, since 1970, as WireGuard writes when there was a handshake.
    pub fn hour(&self) -> Duration {
        Duration::try_from(self.wall.as_duration()).unwrap_or_default()
    }
}

/// The hour may be moved so far between two readings, as it is slewed, and no further.
const JUMP: SignedDuration = SignedDuration::from_secs(2);

/// Readings that are nearer than this count as one.
const APART: Duration = Duration::from_millis(900);

/// After a jump, so many calm readings make the hour believable again.
const CALM: u32 = 2;

/// The clocks of this machine.
#[derive(Debug, Default)]
pub struct Clock {
    pace: Mutex<Pace>,
}

impl Clock {
    pub fn now(&self) -> Now {
        let wall = Timestamp::now();
        let boot = boot();
        let mut pace = self.pace.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Now { boot, wall, is_trusted: pace.read(boot, wall) }
    }
}

/// Since the boot, the time in which the machine slept too.
pub fn boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// How the two clocks went beside each other.
#[derive(Debug, Default)]
struct Pace {
    last: Option<(Duration, Timestamp)>,
    /// When it was found calm last.
    counted: Duration,
    /// Calm readings that are missing until the hour is believed.
    missing: u32,
}

impl Pace {
    fn read(&mut self, boot: Duration, wall: Timestamp) -> bool {
        if let Some((boot_then, wall_then)) = self.last.replace((boot, wall)) {
            let passed = SignedDuration::try_from(boot.saturating_sub(boot_then)).unwrap_or(SignedDuration::MAX);
            if (wall.duration_since(wall_then) - passed).abs() > JUMP {
                self.missing = CALM;
                self.counted = boot;
            } else if self.missing > 0 && boot.saturating_sub(self.counted) >= APART {
                self.missing -= 1;
                self.counted = boot;
            }
        }
        self.missing == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_hour_is_distrusted_until_two_calm_readings() {
        let mut pace = Pace::default();
        let mut read = |boot, wall| pace.read(Duration::from_secs(boot), Timestamp::from_second(wall).unwrap());
        assert!(read(10, 1_000));
        assert!(read(15, 1_006), "slewed");
        assert!(!read(20, 2_000), "set");
        assert!(!read(20, 2_000), "the same moment says nothing new");
        assert!(!read(25, 2_005));
        assert!(read(30, 2_010));
        assert!(!read(35, 1_000), "set back");
        assert!(!read(3_000, 3_965), "asleep, and the hour went on");
        assert!(read(3_005, 3_970));
    }
}
