//! `serve`: GET /traefik against nginx serving the same bytes, each tuned, in turn under the same load.

use std::fs;

use anyhow::ensure;

use crate::{
    Options,
    keepalive::Connection,
    nginx::Nginx,
    report::{Report, Samples},
    routes,
    setup::Setup,
    watch::request,
    wrk::{Measured, wrk},
};

const SECONDS: &str = "5s";

pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    let setup = Setup::start(&routes::insert(1)).await?;
    let (provider, token) = (setup.address(), setup.token());
    let answer = Connection::plain(provider)?.ask(&request(provider, token, ""))?;
    ensure!(answer.status == 200, "GET /traefik answered {}", answer.status);
    ensure!(answer.header("content-encoding") == Some("gzip"), "GET /traefik came without gzip");

    let root = setup.home.join("nginx");
    fs::create_dir_all(&root)?;
    fs::write(root.join("traefik.gz"), &answer.body)?;
    let nginx = Nginx::start(&setup.home, "gzip_static always; default_type application/json;").await?;
    let address = (std::net::Ipv4Addr::LOCALHOST, nginx.port).into();
    let same = Connection::plain(address)?.ask(&request(address, "", ""))?.body == answer.body;
    ensure!(same, "nginx does not serve the same bytes");
    let authorization = format!("Authorization: Bearer {token}");
    let headers = ["-H", authorization.as_str(), "-H", "Accept-Encoding: gzip"];
    let ways = [("ours", format!("http://{provider}/traefik")), ("nginx", format!("http://{address}/traefik"))];

    let mut report = Report::default();
    let mut results = [Load::default(), Load::default()];
    for (_, url) in &ways {
        wrk(url, "1s", &headers).await?; // warm
    }
    for _ in 0..options.rounds.div_ceil(20).max(3) {
        for ((name, url), load) in ways.iter().zip(&mut results) {
            let Measured { per_second, p50, p99 } = wrk(url, SECONDS, &headers).await?;
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
