//! The usual set: a PostgreSQL, a provider on it, and by `traefik` a real Traefik that polls it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use hyper::Method;

use crate::{Backend, Home, Postgres, Provider, Row, Traefik, Watch, Writer, secs, until};

/// Fields are dropped in this order: the provider before its database.
pub struct World {
    pub provider: Provider,
    pub postgres: Postgres,
    pub home: Home,
}

impl World {
    /// A database without rows and a provider that follows it.
    pub async fn new() -> Self {
        Self::with(|provider| provider).await
    }

    /// The same with a Traefik, and the routes `first.test` and `second.test` live to a backend `hello`, so that every
    /// change is one of a running edge.
    pub async fn running() -> (Self, Traefik, Backend) {
        let world = Self::new().await;
        let traefik = world.traefik("hub2").await;
        let hello = world.backend("hello").await;
        for name in ["first.test", "second.test"] {
            world.insert(&Row::http(name, hello.address())).await;
            traefik.until_answers(&format!("http://{name}/"), "hello").await;
        }
        (world, traefik, hello)
    }

    /// The same as `new` with other settings: `World::with(|provider| provider.set("guard", "max_removed", "3"))`.
    pub async fn with(settings: impl FnOnce(Provider) -> Provider) -> Self {
        let home = Home::new();
        let postgres = Postgres::start(&home).await;
        Self::over(home, postgres, settings).await
    }

    /// A running edge whose provider reads back what its Traefik `hub2` runs, with the route `first.test`.
    pub async fn acking(settings: impl FnOnce(Provider) -> Provider) -> (Self, Traefik, Backend) {
        let home = Home::new();
        let api = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let postgres = Postgres::start(&home).await;
        let known = format!("instance = \"hub2\"\napi = \"http://{api}\"");
        let world = Self::over(home, postgres, |provider| settings(provider.traefik(&known))).await;
        let token = world.provider.token("traefik").await;
        let traefik = Traefik::start_at(&world.home, "hub2", world.provider.address(), &token, api).await;
        let hello = world.backend("hello").await;
        world.insert(&Row::http("first.test", hello.address())).await;
        traefik.until_answers("http://first.test/", "hello").await;
        (world, traefik, hello)
    }

    /// What `/api/instances` says of `hub2`, once that is right.
    pub async fn until_instance(&self, what: &str, right: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        until(what, secs(20), async || {
            let answer = self.provider.get("/api/instances").await.json();
            let hub2 = answer.as_array().and_then(|all| all.iter().find(|one| one["name"] == "hub2")).cloned();
            hub2.filter(&right).ok_or(answer)
        })
        .await
        .0
    }

    /// On a cluster that is there already.
    pub async fn over(home: Home, postgres: Postgres, settings: impl FnOnce(Provider) -> Provider) -> Self {
        let provider = settings(Provider::new(&home, "provider").database(&postgres.url())).start().await;
        let world = Self { provider, postgres, home };
        world.until_followed().await;
        world
    }

    /// For faults: the guard lets a writer delete what it likes.
    pub async fn for_faults() -> Self {
        Self::with(unguarded).await
    }

    /// Waits until the provider has read the database and listens.
    pub async fn until_followed(&self) {
        self.provider.until_metric("database_connected", secs(20), |v| v >= 1.0).await;
    }

    /// A Traefik that polls the provider under this name with a token of its own.
    pub async fn traefik(&self, instance: &str) -> Traefik {
        let token = self.provider.token("traefik").await;
        Traefik::start(&self.home, instance, self.provider.address(), &token).await
    }

    pub async fn backend(&self, name: &str) -> Backend {
        Backend::start(&self.home, name).await
    }

    pub async fn psql(&self, sql: &str) -> Vec<Vec<String>> {
        self.postgres.sql(sql).await
    }

    pub async fn insert(&self, row: &Row) {
        self.psql(&row.insert()).await;
    }

    /// Inserts a row and waits until it is served; its revision.
    pub async fn serve(&self, row: &Row) -> u64 {
        self.insert(row).await;
        let revision = self.postgres.revision().await;
        self.provider.until_serves(revision, secs(5)).await;
        revision
    }

    /// `POST /api/domains`.
    pub async fn post(&self, row: &Row) -> crate::Answer {
        self.provider.send(Method::POST, "/api/domains", &row.json().to_string()).await
    }

    /// Something that writes, and a poller that has been given what it wrote first.
    pub async fn busy(&self) -> (Writer, Watch) {
        let watch = self.provider.watch();
        let writer = Writer::start(&self.home, &self.postgres).await;
        writer.commits(5, secs(5)).await;
        watch.until(self.postgres.revision().await.saturating_sub(5), secs(5)).await;
        (writer, watch)
    }

    /// Ends a fault's story: the time until the newest revision is served, then every body that was is checked.
    pub async fn settle(&self, writer: Writer, watch: Watch, back: Duration) -> Duration {
        let newest = self.postgres.revision().await;
        let took = watch.until(newest, back).await;
        let written = writer.stop().await;
        watch.until(self.postgres.revision().await, secs(5)).await;
        let compared = watch.audit(&self.postgres).await;
        println!("back after {took:?}; {written:?}; {compared} bodies compared with their rows");
        took
    }
}

/// Settings of a provider whose guard never withholds.
pub fn unguarded(provider: Provider) -> Provider {
    provider.set("guard", "max_removed", "100000").set("guard", "max_removed_percent", "100")
}
