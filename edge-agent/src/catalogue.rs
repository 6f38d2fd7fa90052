//! Every check: its name, what it looks at, and why. `explain CHECK` prints it.

/// A check.
#[derive(Debug)]
pub struct Check {
    pub name: &'static str,
    /// What it looks at, in a line.
    pub what: &'static str,
    /// Why it matters, when it is a warning and when critical, and what to do.
    pub why: &'static str,
}
