//! Load by wrk, and what it measured.

use anyhow::{Context as _, ensure};
use tokio::process::Command;

const THREADS: &str = "2";
const CONNECTIONS: &str = "64";

pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Asks `url` for so long, with more arguments of wrk's.
pub(crate) async fn wrk(url: &str, time: &str, more: &[&str]) -> anyhow::Result<Measured> {
    let output = Command::new("wrk")
        .args(["-t", THREADS, "-c", CONNECTIONS, "-d", time, "--latency"])
        .args(more)
        .arg(url)
        .output()
        .await
        .context("starting wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk {url} failed: {}", String::from_utf8_lossy(&output.stderr));
    ensure!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "wrk {url} saw errors:\n{text}");
    read(&text).with_context(|| format!("wrk printed:\n{text}"))
}

/// Reads `Requests/sec`, and the 50% and 99% lines of the latency distribution, out of what wrk prints.
fn read(text: &str) -> Option<Measured> {
    let after = |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim);
    Some(Measured {
        per_second: after("Requests/sec:")?.parse().ok()?,
        p50: milliseconds(after("50%")?)?,
        p99: milliseconds(after("99%")?)?,
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)];
    units.iter().find_map(|(unit, scale)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_read() {
        let text = "  Latency Distribution\n     50%  512.00us\n     75%    1.10ms\n     99%    1.02s \nRequests/sec:  51234.50\n";
        let Measured { per_second, p50, p99 } = read(text).unwrap();
        assert_eq!((per_second, p50, p99), (51_234.5, 0.512, 1_020.0));
    }
}
