//! What was done last, and what came of it.

use std::time::Duration;

use jiff::Timestamp;

#[derive(Clone, Debug)]
pub(super) struct Deed {
    pub at: Timestamp,
    /// The same, since the boot.
    pub boot: Duration,
    pub what: String,
    /// What was seen then, or why it is not done.
    pub result: Result<String, String>,
}

impl Deed {
    /// As a finding has it.
    pub(super) fn text(&self) -> String {
        let result = match &self.result {
            Ok(seen) => format!("done: {seen}"),
            Err(why) => format!("not done: {why}"),
        };
        format!("{}: {}; {result}", self.at.strftime("%FT%TZ"), self.what)
    }
}
