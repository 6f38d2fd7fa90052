//! 10,000 rows, each with a backend of its own: requests per second as we compile them, and as routers one beside the other.

use std::net::{Ipv4Addr, SocketAddr};

use charliehub_tests::Home;
use tokio::task::block_in_place;

use super::{
    ANSWER, rows,
    traefik::{load, script},
};
use crate::{
    Options,
    edge::{Source, Traefik},
    keepalive::Poller,
    nginx::Nginx,
    report::{Report, Samples},
    setup::Setup,
};

pub(super) const ROWS: u32 = 10_000;
const SECONDS: &str = "5s";

pub(super) async fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("   {ROWS} rows with backends of their own");
    let (auto, flat) = (Side::start("auto").await?, Side::start("off").await?);
    let [mut ours, mut peer]: [Samples; 2] = Default::default();
    for round in 0..=options.rounds.div_ceil(20).clamp(2, 5) {
        let time = if round == 0 { "1s" } else { SECONDS };
        let (first, second) = (auto.load(time).await?, flat.load(time).await?);
        if round > 0 {
            ours.push_ms(first);
            peer.push_ms(second);
        }
    }
    report.value("own backends: requests/s", ours.p50());
    report.value("own backends: requests/s, flat", peer.p50());
    report.at_least("10,000 rows with own backends, requests/s to flat", ours.p50() / peer.p50(), 2.5, "times");
    Ok(())
}

/// Provider and Traefik, with `coalesce` set so.
struct Side {
    _setup: Setup,
    edge: Traefik,
    script: std::path::PathBuf,
    _nginx: Nginx,
    /// Has the port of the API.
    _home: Home,
}

impl Side {
    async fn start(coalesce: &str) -> anyhow::Result<Self> {
        let api_home = Home::new();
        let api = SocketAddr::from((Ipv4Addr::LOCALHOST, api_home.port()));
        let setup = Setup::with(&rows::switch(), |provider| {
            provider
                .set("compile", "coalesce", &format!("{coalesce:?}"))
                .traefik(&format!("instance = \"live\"\napi = \"http://{api}\""))
        })
        .await?;
        let nginx = Nginx::start(&setup.home, ANSWER).await?;
        setup.postgres.sql(rows::NAMES).await;
        let host = "'127.' || 1 + n / 10000 || '.' || n / 100 % 100 || '.' || 1 + n % 100";
        setup.postgres.sql(&rows::insert_with(1, ROWS, "'default'", host, nginx.port)).await;
        setup.served().await;
        let source = Source::Hold { provider: setup.address(), token: setup.token() };
        let entry_point = format!("  traefik:\n    address: {api}\n");
        let edge = Traefik::with(&setup.home, "traefik", &source, &entry_point, "api:\n  insecure: true\n")?;
        let names: Vec<String> = setup.postgres.sql(&rows::some(ROWS)).await.into_iter().flatten().collect();
        let script = script(&setup.home, "own", &names)?;
        for name in names.iter().take(1) {
            block_in_place(|| Poller::new(edge.address(), name).until_answered_by("first"))?;
        }
        Ok(Self { _setup: setup, edge, script, _nginx: nginx, _home: api_home })
    }

    async fn load(&self, time: &str) -> anyhow::Result<f64> {
        load(self.edge.address(), &self.script, time).await
    }
}
