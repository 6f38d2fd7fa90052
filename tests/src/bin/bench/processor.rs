//! The processor time that programs take.

use std::fs;

use anyhow::Context as _;

/// That a process and its ended children have had, in hundredths of a second.
pub(crate) fn ticks(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no stat")?;
    let times = rest.split_whitespace().skip(11).take(4).map(str::parse::<f64>);
    Ok(times.collect::<Result<Vec<f64>, _>>()?.iter().sum())
}
