//! What the routes cost a real Traefik: how long a change takes to be live in it, and its requests per second, beside the same
//! Traefik with 23 routers of its file provider, in turn under the same load.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use charliehub_tests::Home;
use tokio::task::block_in_place;

use super::rows;
use crate::{
    Options,
    edge::{Source, Traefik},
    keepalive::Poller,
    live::default_certificate,
    nginx::Nginx,
    report::Samples,
    routes::{Files, ROUTES, SWITCH},
    setup::Setup,
    way::{Change, Way},
    wrk::wrk,
};

const RELOADS: u32 = 5;
const SECONDS: &str = "5s";

pub(super) struct Edge {
    /// Milliseconds from commit to live, the median.
    pub(super) live: f64,
    pub(super) per_second: f64,
    /// With the yardstick's routers.
    pub(super) peer: f64,
}

pub(super) async fn measure(
    setup: &Setup,
    rows: u32,
    nginx: &Nginx,
    answers: [(&str, u16); 2],
    options: &Options,
) -> anyhow::Result<Edge> {
    let home = &setup.home;
    let names: Vec<String> = setup.postgres.sql(&rows::some(rows)).await.into_iter().flatten().collect();
    let source = Source::Hold { provider: setup.address(), token: setup.token() };
    let ours = Traefik::start(home, "traefik-ours", &source)?;
    let (address, database) = (ours.address(), setup.connect().await);
    let mut way = Way::new(ours, Change::Row { database: &database, host: SWITCH }, answers);
    way.until_ready()?;
    let mut live = Samples::default();
    // An even number: then the first backend answers again.
    for _ in 0..RELOADS.next_multiple_of(2) {
        live.push(way.change().await?.took());
    }

    let peer = Yardstick::start(home, nginx.port)?;
    let [mut per_second, mut of_peer]: [Samples; 2] = Default::default();
    let ours = script(home, "ours", &names)?;
    for round in 0..=options.rounds.div_ceil(20).clamp(2, 5) {
        let time = if round == 0 { "1s" } else { SECONDS };
        let (first, second) = (load(address, &ours, time).await?, load(peer.address, &peer.script, time).await?);
        if round > 0 {
            per_second.push_ms(first);
            of_peer.push_ms(second);
        }
    }
    Ok(Edge { live: live.p50(), per_second: per_second.p50(), peer: of_peer.p50() })
}

/// The same Traefik with 23 routers, which it reads from a file.
struct Yardstick {
    address: SocketAddr,
    script: PathBuf,
    _traefik: Traefik,
}

impl Yardstick {
    fn start(home: &Home, port: u16) -> anyhow::Result<Self> {
        let certificate = home.join("default.pem");
        default_certificate(&certificate)?;
        let files = Files::new(&home.join("yardstick"), Some(&certificate))?;
        files.write(port, port)?;
        let source = Source::Files { watched: files.watched(), throttle: Some("10ms") };
        let traefik = Traefik::start(home, "traefik-yardstick", &source)?;
        let address = traefik.address();
        block_in_place(|| Poller::new(address, SWITCH).until_answered_by("first"))?;
        let names: Vec<String> = (1..ROUTES).map(|n| format!("app{n:02}.bench.test")).collect();
        Ok(Self { address, script: script(home, "yardstick", &names)?, _traefik: traefik })
    }
}

/// A script of wrk's that asks one name after the other.
pub(super) fn script(home: &Home, name: &str, names: &[String]) -> anyhow::Result<PathBuf> {
    let mut text = String::from("local requests, at = {}, 0\nlocal names = {\n");
    for name in names {
        writeln!(text, "  \"{name}\",")?;
    }
    text.push_str(
        "}\ninit = function()\n  for i, name in ipairs(names) do\n    \
         requests[i] = wrk.format('GET', '/', { Host = name })\n  end\nend\n\
         request = function()\n  at = at % #requests + 1\n  return requests[at]\nend\n",
    );
    let path = home.join(format!("{name}.lua"));
    fs::write(&path, text)?;
    Ok(path)
}

/// Requests per second.
pub(super) async fn load(address: SocketAddr, script: &Path, time: &str) -> anyhow::Result<f64> {
    let script = script.display().to_string();
    Ok(wrk(&format!("https://{address}/"), time, &["-s", &script]).await?.per_second)
}
