//! `serve`: GET /traefik against nginx serving the same bytes, each tuned, in turn under the same load.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::{Context as _, ensure};
use charliehub_tests::{Home, Process, Signal, is_root, ms, secs, until};
use tokio::process::Command;

use crate::{
    Options,
    keepalive::{Connection, pause},
    report::{Report, Samples},
    routes,
    setup::Setup,
    watch::request,
};

const THREADS: &str = "2";
const CONNECTIONS: &str = "64";
const SECONDS: &str = "5s";

pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    let setup = Setup::start(&routes::insert(1)).await?;
    let (provider, token) = (setup.address(), setup.token());
    let answer = Connection::plain(provider)?.ask(&request(provider, token, ""))?;
    ensure!(answer.status == 200, "GET /traefik answered {}", answer.status);
    ensure!(answer.header("content-encoding") == Some("gzip"), "GET /traefik came without gzip");

    let nginx = Nginx::start(&setup.home, &answer.body).await?;
    let authorization = format!("Authorization: Bearer {token}");
    let ways = [("ours", format!("http://{provider}/traefik")), ("nginx", nginx.url.clone())];

    let mut report = Report::default();
    let mut results = [Load::default(), Load::default()];
    for (_, url) in &ways {
        wrk(url, &authorization, "1s").await?; // warm
    }
    for _ in 0..options.rounds.div_ceil(20).max(3) {
        for ((name, url), load) in ways.iter().zip(&mut results) {
            let Measured { per_second, p50, p99 } = wrk(url, &authorization, SECONDS).await?;
            println!("   {name:<6} {per_second:>9.0} requests/s   p50 {p50:.2} ms   p99 {p99:.2} ms");
            load.per_second.push_ms(per_second);
            load.p50.push_ms(p50);
            load.p99.push_ms(p99);
        }
    }
    let [ours, nginx] = results;
    for ((name, _), load) in ways.iter().zip([&ours, &nginx]) {
        report.value(&format!("{name}: requests/s (median of rounds)"), load.per_second.p50());
        report.value(&format!("{name}: p50 ms"), load.p50.p50());
        report.value(&format!("{name}: p99 ms"), load.p99.p50());
    }
    report.at_least("requests/s, ours to nginx", ours.per_second.p50() / nginx.per_second.p50(), 1.0, "times");
    report.at_most("p99, ours to nginx", ours.p99.p50() / nginx.p99.p50(), 1.0, "times");
    Ok(report)
}

/// What rounds of wrk gave, a sample each.
#[derive(Default)]
struct Load {
    per_second: Samples,
    p50: Samples,
    p99: Samples,
}

struct Measured {
    per_second: f64,
    p50: f64,
    p99: f64,
}

async fn wrk(url: &str, authorization: &str, time: &str) -> anyhow::Result<Measured> {
    let output = Command::new("wrk")
        .args(["-t", THREADS, "-c", CONNECTIONS, "-d", time, "--latency"])
        .args(["-H", authorization, "-H", "Accept-Encoding: gzip", url])
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

/// An nginx that serves one gzipped body, as fast as it can be made to.
struct Nginx {
    url: String,
    process: Process,
}

impl Nginx {
    async fn start(home: &Home, gzip: &[u8]) -> anyhow::Result<Self> {
        let root = home.join("nginx");
        fs::create_dir_all(&root)?;
        fs::write(root.join("traefik.gz"), gzip)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let user = if is_root() { "user root;" } else { "" };
        let dir = root.display();
        let config = root.join("nginx.conf");
        let text = format!(
            "daemon off; {user} worker_processes 2; pid {dir}/pid; error_log {dir}/error.log;
             events {{ worker_connections 1024; }}
             http {{
               access_log off; sendfile on; gzip_static always; default_type application/json;
               keepalive_requests 1000000000; keepalive_timeout 1h;
               open_file_cache max=16 inactive=1h; open_file_cache_valid 1h; open_file_cache_min_uses 1;
               client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};
               uwsgi_temp_path {dir}; scgi_temp_path {dir};
               server {{ listen {address} reuseport; root {dir}; }}
             }}"
        );
        fs::write(&config, text)?;
        let mut command = std::process::Command::new("nginx");
        command.arg("-e").arg(root.join("error.log")).arg("-c").arg(&config);
        let nginx = Self { url: format!("http://{address}/traefik"), process: Process::start(home, "nginx", command) };
        let served =
            until("nginx answers", secs(5), async || Connection::plain(address)?.ask(&request(address, "", "")));
        ensure!(served.await.0.body == gzip, "nginx does not serve the same bytes: {}", nginx.process.log());
        Ok(nginx)
    }
}

impl Drop for Nginx {
    /// Its workers outlive a master that is killed.
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        while self.process.exit().is_none() {
            pause(ms(5));
        }
    }
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
