//! Decides whether a freshly compiled configuration may replace the one that runs.
//!
//! Between `compile`, which does what the rows say, and `snapshot`, which Traefik will run. In order: nothing never
//! replaces something; a fall of more routes than the limit waits for an operator, and so do many small falls within the
//! window; more newly quarantined rows than their limit wait too, and where it is asked for also what opens a protected
//! place or drops a login; the rest goes through. What is withheld never keeps an
//! open route open: [`tighten`] puts the newest restrictions on top of the rows that run.
//!
//! Pure: time is an argument. With nothing running, every configuration that has a route is accepted.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use charliehub_proto::{
    change::Impact,
    domain::{AccessTier, Domain},
};
use ipnet::IpNet;

/// How much may change in one step before an operator has to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Routes that may go at once, whatever their share.
    pub max_removed: usize,
    /// Share of the routes that may go at once, in percent. The larger of the two counts.
    pub max_removed_percent: usize,
    pub max_quarantined: usize,
    pub max_quarantined_percent: usize,
    /// Falls within this time count as one.
    pub window: Duration,
    /// An operator has to agree to what opens a protected place to the internet.
    pub hold_opening: bool,
    /// An operator has to agree to what drops the login of a place.
    pub hold_login_loss: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_removed: 10,
            max_removed_percent: 30,
            max_quarantined: 10,
            max_quarantined_percent: 10,
            window: Duration::from_mins(10),
            hold_opening: false,
            hold_login_loss: false,
        }
    }
}

impl Limits {
    fn removable(&self, routes: usize) -> usize {
        self.max_removed.max(routes * self.max_removed_percent / 100)
    }

    fn quarantinable(&self, routes: usize) -> usize {
        self.max_quarantined.max(routes * self.max_quarantined_percent / 100)
    }
}

/// What of a configuration the guard looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub routes: usize,
    pub quarantined: usize,
}

/// Why a configuration waits for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Empty { before: usize },
    Shrink { removed: usize, allowed: usize },
    Quarantine { rows: usize, allowed: usize },
    Opening { places: usize },
    LoginLoss { places: usize },
}

impl Reason {
    /// The word that history keeps.
    pub fn code(self) -> &'static str {
        match self {
            Self::Empty { .. } => "guard:empty",
            Self::Shrink { .. } => "guard:shrink",
            Self::Quarantine { .. } => "guard:quarantine",
            Self::Opening { .. } => "guard:opening",
            Self::LoginLoss { .. } => "guard:login_loss",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { before } => write!(f, "it has no route and {before} run"),
            Self::Shrink { removed, allowed } => write!(f, "{removed} routes would go, {allowed} may go at once"),
            Self::Quarantine { rows, allowed } => {
                write!(f, "{rows} more rows do not compile, {allowed} may fail at once")
            }
            Self::Opening { places } => write!(f, "{places} protected places would be open to the internet"),
            Self::LoginLoss { places } => write!(f, "{places} places would lose their login"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Withhold(Reason),
}

/// Judges `next` against what runs and the largest configuration that ran within the window.
pub fn judge(running: Option<Size>, peak: usize, next: Size, limits: &Limits) -> Verdict {
    let Some(running) = running else { return Verdict::Accept };
    if next.routes == 0 && running.routes > 0 {
        return Verdict::Withhold(Reason::Empty { before: running.routes });
    }
    let before = peak.max(running.routes);
    let (removed, allowed) = (before.saturating_sub(next.routes), limits.removable(before));
    if next.routes < running.routes && removed > allowed {
        return Verdict::Withhold(Reason::Shrink { removed, allowed });
    }
    let (rows, allowed) = (next.quarantined.saturating_sub(running.quarantined), limits.quarantinable(running.routes));
    if rows > allowed {
        return Verdict::Withhold(Reason::Quarantine { rows, allowed });
    }
    Verdict::Accept
}

/// Judges what a step does to places that are protected now. A new name is not one: it was never closed to anybody.
pub fn judge_impact(impact: &Impact, limits: &Limits) -> Verdict {
    match (impact.opened.len(), impact.login_lost.len()) {
        (places, _) if limits.hold_opening && places > 0 => Verdict::Withhold(Reason::Opening { places }),
        (_, places) if limits.hold_login_loss && places > 0 => Verdict::Withhold(Reason::LoginLoss { places }),
        _ => Verdict::Accept,
    }
}

/// Remembers what ran within the window, so that many small falls count as one.
#[derive(Debug)]
pub struct Guard {
    limits: Limits,
    running: Option<Size>,
    /// When a configuration was replaced by a smaller one, and how many routes it had.
    peaks: VecDeque<(Instant, usize)>,
}

impl Guard {
    pub fn new(limits: Limits) -> Self {
        Self { limits, running: None, peaks: VecDeque::new() }
    }

    pub fn judge(&mut self, next: Size, now: Instant) -> Verdict {
        while self.peaks.front().is_some_and(|(at, _)| now.duration_since(*at) > self.limits.window) {
            self.peaks.pop_front();
        }
        let peak = self.peaks.iter().map(|(_, routes)| *routes).max().unwrap_or(0);
        judge(self.running, peak, next, &self.limits)
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// True when so few rows may go on their own, even while a larger removal is withheld.
    pub fn may_remove(&self, rows: usize) -> bool {
        rows <= self.limits.removable(self.running.map_or(0, |size| size.routes))
    }

    /// `size` runs from now on.
    pub fn runs(&mut self, size: Size, now: Instant) {
        if let Some(before) = self.running.replace(size)
            && size.routes < before.routes
        {
            self.peaks.push_back((now, before.routes));
        }
    }

    /// An operator agreed to `size`: it is the measure from now on.
    pub fn agreed(&mut self, size: Size) {
        self.peaks.clear();
        self.running = Some(size);
    }
}

/// The row that runs, with whatever the newest version of it says about access where that is narrower.
///
/// Where neither list holds the other, their intersection is left; an empty one compiles to 503, never to open.
#[must_use]
pub fn tighten(runs: &Domain, newest: &Domain) -> Domain {
    use AccessTier::{Internal, Public, Restricted};
    let mut row = runs.clone();
    row.auth_required |= newest.auth_required;
    (row.access_tier, row.ip_allowlist) = match (runs.access_tier, newest.access_tier) {
        (_, Public) => (runs.access_tier, runs.ip_allowlist.clone()),
        (Public, _) => (newest.access_tier, newest.ip_allowlist.clone()),
        (Restricted, Restricted) => (Restricted, intersection(&runs.ip_allowlist, &newest.ip_allowlist)),
        (Internal, _) | (_, Internal) => match (all_internal(runs), all_internal(newest)) {
            (true, true) => (Internal, Vec::new()),
            (true, false) => internal(newest.ip_allowlist.clone()),
            (false, true) => internal(runs.ip_allowlist.clone()),
            (false, false) => internal(intersection(&runs.ip_allowlist, &newest.ip_allowlist)),
        },
    };
    row
}

/// True for all of the internal networks: no list narrows them.
fn all_internal(row: &Domain) -> bool {
    row.access_tier == AccessTier::Internal && row.ip_allowlist.is_empty()
}

/// The internal networks narrowed by `list`: by an empty one to nobody, which without a list would be all of them.
fn internal(list: Vec<IpNet>) -> (AccessTier, Vec<IpNet>) {
    if list.is_empty() { (AccessTier::Restricted, list) } else { (AccessTier::Internal, list) }
}

/// The addresses in both lists, as the narrower network of each overlapping pair.
pub fn intersection(a: &[IpNet], b: &[IpNet]) -> Vec<IpNet> {
    let mut both: Vec<IpNet> = a
        .iter()
        .flat_map(|x| {
            b.iter().filter_map(move |y| match () {
                () if x.contains(y) => Some(*y),
                () if y.contains(x) => Some(*x),
                () => None,
            })
        })
        .collect();
    both.sort_unstable();
    both.dedup();
    both
}

#[cfg(test)]
mod tests;
