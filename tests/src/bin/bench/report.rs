//! What a bench says: samples become percentiles, percentiles are held against goals, and all of it is a table for people
//! and one JSON document for programs.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use serde::Serialize;

/// Times of one kind, in milliseconds. May be negative: a notification can arrive before its COMMIT returns.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, took: Duration) {
        self.push_ms(took.as_secs_f64() * 1e3);
    }

    pub(crate) fn push_ms(&mut self, ms: f64) {
        self.0.push(ms);
    }

    /// The smallest sample that `percent` of all samples do not exceed (nearest rank); NaN without samples.
    pub(crate) fn percentile(&self, percent: u32) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent as usize).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn p50(&self) -> f64 {
        self.percentile(50)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.percentile(99)
    }
}

/// A promise with its number.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    what: String,
    measured: f64,
    /// `<=` or `>=`.
    must_be: &'static str,
    limit: f64,
    unit: &'static str,
    pass: bool,
}

/// All that one bench has to say.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Milliseconds, by what was timed, in the order of the table.
    #[serde(skip)]
    order: Vec<String>,
    samples_ms: BTreeMap<String, Samples>,
    values: BTreeMap<String, f64>,
    goals: Vec<Goal>,
}

impl Report {
    pub(crate) fn samples(&mut self, what: &str, samples: Samples) {
        self.order.push(what.to_owned());
        self.samples_ms.insert(what.to_owned(), samples);
    }

    pub(crate) fn value(&mut self, what: &str, value: f64) {
        self.values.insert(what.to_owned(), value);
    }

    pub(crate) fn at_most(&mut self, what: &str, measured: f64, limit: f64, unit: &'static str) {
        self.goal(what, measured, "<=", limit, unit, measured <= limit);
    }

    pub(crate) fn at_least(&mut self, what: &str, measured: f64, limit: f64, unit: &'static str) {
        self.goal(what, measured, ">=", limit, unit, measured >= limit);
    }

    fn goal(&mut self, what: &str, measured: f64, must_be: &'static str, limit: f64, unit: &'static str, pass: bool) {
        self.goals.push(Goal { what: what.to_owned(), measured, must_be, limit, unit, pass });
    }

    /// The table for people.
    pub(crate) fn table(&self, name: &str) -> String {
        let mut out = format!("\n== {name}\n");
        if !self.order.is_empty() {
            let head = format!("{:<58} {:>5} {:>9} {:>9} {:>9} {:>9}", "milliseconds", "n", "p50", "p90", "p99", "max");
            line(&mut out, &head);
        }
        for what in &self.order {
            let Some(samples) = self.samples_ms.get(what) else { continue };
            let _ = write!(out, "{what:<58} {:>5}", samples.0.len());
            for percent in [50, 90, 99, 100] {
                let _ = write!(out, " {:>9.2}", samples.percentile(percent));
            }
            out.push('\n');
        }
        for (what, value) in &self.values {
            line(&mut out, &format!("{what:<58} {value:>15.2}"));
        }
        for Goal { what, measured, must_be, limit, unit, pass } in &self.goals {
            let verdict = if *pass { "PASS" } else { "MISS" };
            line(&mut out, &format!("{verdict}  {what}: {measured:.2} {must_be} {limit:.2} {unit}"));
        }
        out
    }

    pub(crate) fn misses(&self) -> usize {
        self.goals.iter().filter(|goal| !goal.pass).count()
    }
}

/// Milliseconds from `begin` to `end`, negative when `end` came first.
pub(crate) fn milliseconds(begin: Instant, end: Instant) -> f64 {
    let late = end.saturating_duration_since(begin).as_secs_f64();
    let early = begin.saturating_duration_since(end).as_secs_f64();
    (late - early) * 1e3
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut samples = Samples::default();
        assert!(samples.p50().is_nan());
        for ms in (1..=100).rev() {
            samples.push_ms(f64::from(ms));
        }
        let seen = [50, 90, 99, 100].map(|percent| samples.percentile(percent));
        assert_eq!(format!("{seen:?}"), "[50.0, 90.0, 99.0, 100.0]");
    }
}
