//! What was done last, and what came of it.

use std::time::Duration;

use charliehub_proto::finding::{Action, Outcome};

use crate::clock::Now;

#[derive(Clone, Debug)]
pub(super) struct Deed {
    /// When it began, since the boot.
    pub boot: Duration,
    pub action: Action,
}

impl Deed {
    /// `result`: what was seen of it, or why it is not done.
    pub(super) fn of(now: Now, what: String, result: Result<String, String>, is_dry: bool) -> Self {
        let (outcome, result) = match result {
            Ok(seen) if is_dry => (Outcome::DryRun, seen),
            Ok(seen) => (Outcome::Done, seen),
            Err(why) => (Outcome::Failed, why),
        };
        Self { boot: now.boot, action: Action { at: now.wall, what, outcome, result } }
    }

    /// Why it is not done.
    pub(super) fn failure(&self) -> Option<&str> {
        (self.action.outcome == Outcome::Failed).then_some(&*self.action.result)
    }
}
