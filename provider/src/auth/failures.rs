//! Slows down an address that sends wrong tokens: ten at once, then one a second.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::Refusal;

const BURST: u32 = 10;
const REFILL: Duration = Duration::from_secs(1);
/// Addresses remembered; with more, those that have waited long enough are forgotten.
const REMEMBERED: usize = 10_000;

/// For each address the moment at which all its failures are forgiven.
#[derive(Debug, Default)]
pub(super) struct Failures {
    forgiven: BTreeMap<IpAddr, Instant>,
}

impl Failures {
    /// Counts a wrong token, and refuses it when there were too many.
    pub(super) fn one_more(&mut self, address: IpAddr, now: Instant) -> Result<(), Refusal> {
        if self.forgiven.len() >= REMEMBERED {
            self.forgiven.retain(|_, forgiven| *forgiven > now);
        }
        if self.forgiven.len() >= REMEMBERED && !self.forgiven.contains_key(&address) {
            return Err(Refusal::Slow { seconds: 1 });
        }
        let forgiven = self.forgiven.entry(address).or_insert(now);
        let next = (*forgiven).max(now) + REFILL;
        match (next - now).checked_sub(REFILL * BURST) {
            Some(over) if !over.is_zero() => Err(Refusal::Slow { seconds: over.as_secs() + 1 }),
            _ => {
                *forgiven = next;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_at_once_then_one_a_second_and_others_are_not_slowed() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        let address = IpAddr::from([192, 0, 2, 1]);
        for count in 0..10 {
            assert_eq!(failures.one_more(address, now), Ok(()), "{count}");
        }
        assert_eq!(failures.one_more(address, now), Err(Refusal::Slow { seconds: 2 }));
        assert_eq!(failures.one_more(IpAddr::from([192, 0, 2, 2]), now), Ok(()));
        assert_eq!(failures.one_more(address, now + REFILL), Ok(()));
        assert_eq!(failures.one_more(address, now + REFILL), Err(Refusal::Slow { seconds: 2 }));
    }
}
