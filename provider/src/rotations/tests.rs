use proptest::prelude::*;

use super::*;

use Phase::{Committed, Going, Offered, Ready, Switching, Undone};

#[test]
fn each_says_what_it_may_when_it_is_time_and_again_what_it_said_last() {
    for (who, phase, may, again) in [
        (Who::Agent, Offered, &[Undone][..], Some(Offered)),
        (Who::Agent, Ready, &[Switching, Undone], Some(Offered)),
        (Who::Agent, Switching, &[Undone], Some(Switching)),
        (Who::Agent, Going, &[Committed, Undone], Some(Switching)),
        (Who::Agent, Committed, &[], Some(Committed)),
        (Who::Agent, Undone, &[], Some(Undone)),
        (Who::Alone, Offered, &[Switching, Undone], Some(Offered)),
        (Who::Alone, Switching, &[Committed, Undone], Some(Switching)),
        (Who::Alone, Committed, &[], Some(Committed)),
        (Who::Alone, Undone, &[], Some(Undone)),
        (Who::Follower, Offered, &[Ready, Undone], None),
        (Who::Follower, Ready, &[Undone], Some(Ready)),
        (Who::Follower, Switching, &[Going, Undone], Some(Ready)),
        (Who::Follower, Going, &[], Some(Going)),
        (Who::Follower, Committed, &[], Some(Going)),
        (Who::Follower, Undone, &[], Some(Undone)),
    ] {
        for step in Phase::ALL {
            let expected = match step {
                step if may.contains(&step) => Ok(Some(step)),
                step if again == Some(step) => Ok(None),
                _ => Err(Refused { phase, may }),
            };
            assert_eq!(next(phase, who, step), expected, "{who:?} in {phase} says {step}");
        }
    }
}

proptest! {
    /// Whatever both say in whatever order: what is final stays, and nobody goes on alone where two must.
    #[test]
    fn a_rotation_ends_once(
        is_followed in any::<bool>(), said in prop::collection::vec((any::<bool>(), 0..Phase::ALL.len()), 0..40),
    ) {
        let mut passed = vec![Offered];
        for (by_follower, step) in said {
            let who = match (is_followed, by_follower) {
                (true, true) => Who::Follower,
                (true, false) => Who::Agent,
                (false, _) => Who::Alone,
            };
            let now = passed[passed.len() - 1];
            if let Ok(Some(phase)) = next(now, who, Phase::ALL[step]) {
                prop_assert!(!now.is_final(), "{passed:?} then {phase}");
                prop_assert!(phase > now, "{passed:?} then {phase}");
                passed.push(phase);
            }
        }
        if passed.contains(&Committed) {
            let all: &[Phase] =
                if is_followed { &[Offered, Ready, Switching, Going, Committed] } else { &[Offered, Switching, Committed] };
            prop_assert_eq!(passed, all);
        }
    }
}
