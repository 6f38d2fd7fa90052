//! The vocabulary of the stories in `tests/`: real programs, started for one test and gone with it.
//!
//! A story reads `World::new().await`, does something to the world, and awaits what must hold with [`until`].
//! [`Home`] is the directory, the ports and the tasks of one test; every program in it is a [`Process`] whose log is
//! printed when the test fails. [`Writer`] commits during a fault, [`Watch`] polls as Traefik does and compares every
//! body with the rows of its revision.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::missing_panics_doc,
    reason = "a harness fails by panicking: the message is for the reader of the failed story"
)]

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

mod acme;
mod agent;
mod authelia;
mod backend;
mod bind;
mod broker;
mod browser;
mod cert_case;
mod client;
mod crowd;
mod debian;
mod every_option;
mod faults;
mod guest;
mod handbook;
mod home;
mod hub;
mod keyring;
mod lab;
mod mirror;
mod monitoring;
mod netns;
mod ovh;
mod packages;
mod pgbouncer;
mod pings;
mod pki;
mod podman;
mod postgres;
mod process;
mod provider;
mod row;
mod session;
mod stream;
mod switch;
mod systemd;
mod traefik;
mod watch;
mod world;
mod writer;

pub use acme::Pebble;
pub use agent::Agent;
pub use authelia::{Authelia, STRANGER};
pub use backend::{Backend, Seen};
pub use bind::Bind;
pub use broker::Broker;
pub use browser::Browser;
pub use cert_case::CertCase;
pub use client::{Answer, Client, Connection, open_tls, trusting_all};
pub use crowd::{Crowd, raise_open_files};
pub use debian::{Debian, debian_root};
pub use every_option::configuration;
pub use faults::{Link, LittleMemory, SmallDisk};
pub use guest::Guest;
pub use handbook::{Block, handbook, replaced};
pub use home::{Home, repository};
pub use hub::{Authority, Hub, trusting};
pub use keyring::{Keyring, Tally, Users};
pub use lab::{Lab, Site};
pub use mirror::mirror;
pub use monitoring::{Alertmanager, Exporter, Prometheus, deployed, deployed_files, unix_time};
pub use netns::{Alias, Netns, is_root};
pub use ovh::{Mood, Ovh};
pub use packages::{AGENT, HUB_PACKAGES, PROVIDER, deb, package, programs};
pub use pgbouncer::PgBouncer;
pub use pings::Pings;
pub use pki::{Pair, Pki};
pub use podman::Podman;
pub use postgres::{Options, Postgres, Stop};
pub use process::{Process, Signal};
pub use provider::{Output, Provider};
pub use row::Row;
pub use session::Session;
pub use stream::{Heard, Stream};
pub use switch::Switch;
pub use systemd::{Caller, Systemd};
pub use traefik::{Rendered, Traefik};
pub use watch::{Served, Watch};
pub use world::{World, unguarded};
pub use writer::{Writer, Written};

/// Shorthand for deadlines.
pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Shorthand for deadlines.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// True when the sizes that CI cannot afford were asked for (`tests/run.sh --full`).
pub fn full() -> bool {
    std::env::var_os("CHARLIEHUB_FULL").is_some_and(|v| v == "1")
}

/// Tries until it is `Ok`, and tells how long that took. Past the deadline it panics with the last value seen. An attempt
/// that hangs is given up after a second. The longer it takes the rarer it tries, within a fiftieth of the time that passed.
pub async fn until<T, E: Debug>(
    what: &str,
    deadline: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> (T, Duration) {
    let began = Instant::now();
    let mut last = None;
    loop {
        let left = deadline.saturating_sub(began.elapsed()).min(secs(1));
        match tokio::time::timeout(left, attempt()).await {
            Ok(Ok(value)) => return (value, began.elapsed()),
            Ok(Err(seen)) => last = Some(seen),
            Err(_) => {}
        }
        let passed = began.elapsed();
        assert!(passed < deadline, "not within {deadline:?}: {what}; last seen: {last:?}");
        tokio::time::sleep((passed / 50).clamp(ms(5), ms(200))).await;
    }
}

/// Prints what a story measured, so that `--no-capture` and a failure show it.
pub fn measured(what: &str, took: Duration) {
    println!("{what}: {:.1} ms", took.as_secs_f64() * 1e3);
}
