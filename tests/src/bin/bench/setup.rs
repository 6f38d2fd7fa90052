//! What every bench stands on: a PostgreSQL of its own and the provider beside it, with rows.

use std::{fs, net::SocketAddr, time::Instant};

use charliehub_tests::{Home, Postgres, Provider, secs};
use tokio_postgres::Client;

pub(crate) struct Setup {
    pub(crate) home: Home,
    pub(crate) postgres: Postgres,
    provider: Provider,
    token: String,
}

impl Setup {
    /// Returns once what the statement inserts is served.
    pub(crate) async fn start(insert: &str) -> anyhow::Result<Self> {
        Self::with(insert, |provider| provider).await
    }

    /// The same, with a provider that is set so.
    pub(crate) async fn with(insert: &str, settings: impl FnOnce(Provider) -> Provider) -> anyhow::Result<Self> {
        let home = Home::new();
        let postgres = Postgres::start(&home).await;
        let provider = settings(Provider::new(&home, "provider").database(&postgres.url()));
        provider.must(&["migrate"]).await;
        let provider = provider.start().await;
        let token = provider.token("traefik").await;
        postgres.sql(insert).await;
        postgres.sql("ANALYZE").await;
        provider.until_serves(postgres.revision().await, secs(30)).await;
        Ok(Self { home, postgres, provider, token })
    }

    /// Stops the provider while rows are inserted by the million: it would read each step.
    pub(crate) fn stop(&mut self) {
        self.provider.kill();
    }

    /// A metric of the provider; NaN while it is not there.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        self.provider.metric(name).await.unwrap_or(f64::NAN)
    }

    /// By the unix socket.
    pub(crate) async fn connect(&self) -> Client {
        self.postgres.connect().await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.provider.address()
    }

    /// Of role `traefik`.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn admin_token(&self) -> String {
        self.provider.admin_token()
    }

    /// Returns once the newest revision is served.
    pub(crate) async fn served(&self) {
        self.provider.until_serves(self.postgres.revision().await, secs(300)).await;
    }

    /// Runs a command of the provider to its end.
    pub(crate) async fn command(&self, args: &[&str]) -> String {
        self.provider.must(args).await
    }

    /// From now on a COMMIT is on disk, as an operator's is.
    pub(crate) async fn with_fsync(&self) {
        self.postgres.sql("ALTER SYSTEM SET fsync = on").await;
        self.postgres.sql("SELECT pg_reload_conf()").await;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.provider.pid()
    }

    /// Stops the provider and starts it with nothing but its token on disk; returns when it was started.
    pub(crate) async fn restart_with_nothing_on_disk(&mut self) -> anyhow::Result<Instant> {
        if !self.provider.exited() {
            self.provider.stop().await;
        }
        for entry in fs::read_dir(self.provider.data())? {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(path)?;
            } else if !path.ends_with("admin.token") {
                fs::remove_file(path)?;
            }
        }
        let began = Instant::now();
        self.provider.launch();
        Ok(began)
    }

    /// How long the swaps of the provider took so far; nothing before the first one.
    pub(crate) async fn swaps(&self) -> Swaps {
        let metric = async |part: &str| {
            self.provider.metric(&format!("notify_to_swap_seconds_{part}")).await.unwrap_or_default()
        };
        Swaps { seconds: metric("sum").await, count: metric("count").await }
    }
}

/// The provider's own clock, from notification to swap.
pub(crate) struct Swaps {
    seconds: f64,
    count: f64,
}

impl Swaps {
    /// The mean of those since `before`, in milliseconds.
    pub(crate) fn mean_ms_since(&self, before: &Self) -> f64 {
        (self.seconds - before.seconds) / (self.count - before.count) * 1e3
    }
}
