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

/// All of them, group by group.
pub fn all() -> impl Iterator<Item = &'static Check> {
    [crate::wireguard::CHECKS, crate::firewall::CHECKS, crate::certificates::CHECKS, crate::host::CHECKS, CHECKS]
        .into_iter()
        .flatten()
}

/// Those of the agent itself.
const CHECKS: &[Check] = &[];
