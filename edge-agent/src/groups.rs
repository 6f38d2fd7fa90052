//! All groups of checks, and how often each looks: the one place that knows them by name.

use std::{sync::Arc, time::Duration};

use charliehub_proto::expected::Expected;
use tokio::time::{Instant, sleep_until};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    act::{Acting, Board, failover, peers, re_resolve, restart, rotate},
    certificates::Certificates,
    config::{Config, Mode},
    dns::Dns,
    firewall::Firewall,
    host::Host,
    look::Look,
    rounds::{self, Pace, Shared},
    sample::Sample,
    state::{Own, State},
    steady::{Rules, Steady},
    wireguard::{Mtu, Reach, WireGuard},
};

/// Spawns all groups; they run until `stop`.
pub fn spawn(
    tasks: &TaskTracker,
    config: &Arc<Config>,
    state: &Arc<State>,
    shared: &Arc<Shared>,
    stop: &CancellationToken,
) {
    let timing = &config.timing;
    let pace = |every: Duration| Pace { every, doubt: timing.doubt, rules: timing.into() };
    macro_rules! group {
        ($every:expr, $config:ident => $make:expr) => {{
            let $config = config.clone();
            tasks.spawn(rounds::run(move || $make, pace($every), shared.clone(), stop.clone()));
        }};
    }
    let endpoints = shared.endpoints.clone();
    group!(timing.wireguard, config => WireGuard::new(&config.wireguard, endpoints.clone()));
    group!(timing.wireguard, config => Reach::new(&config.wireguard));
    group!(timing.wireguard, config => Mtu::new(&config.wireguard, config.timing.mtu));
    group!(timing.firewall, config => Firewall::new(&config.firewall));
    group!(timing.certificates, config => Certificates::new(&config.certificates));
    group!(timing.dns, config => Dns::new(&config.dns, config.timing.dns));
    group!(timing.host, config => Host::new(&config.host));
    let board = Arc::new(Board::default());
    let actors: Vec<_> = config.act.failover.iter().filter(|one| one.mode != Mode::Off).cloned().collect();
    for settings in actors {
        tasks.spawn(failover::run(settings, config.clone(), shared.clone(), board.clone(), stop.clone()));
    }
    if config.act.restart.iter().any(|one| one.mode != Mode::Off) {
        tasks.spawn(restart::run(config.clone(), shared.clone(), board.clone(), stop.clone()));
    }
    if config.act.re_resolve.iter().any(|one| one.mode != Mode::Off) {
        tasks.spawn(re_resolve::run(config.clone(), shared.clone(), board.clone(), stop.clone()));
    }
    if config.act.rotate.iter().any(|one| one.mode != Mode::Off) {
        tasks.spawn(rotate::run(config.clone(), shared.clone(), board.clone(), stop.clone()));
    }
    if config.act.peers.iter().any(|one| one.mode != Mode::Off) {
        tasks.spawn(peers::run(config.clone(), shared.clone(), board.clone(), stop.clone()));
    }
    group!(timing.wireguard, _config => Acting(board.clone()));
    let state = state.clone();
    group!(timing.wireguard, config => own(&config, &state));
}

fn own(config: &Config, state: &Arc<State>) -> Own {
    Own { state: state.clone(), provider: config.provider.as_ref().map(|provider| provider.url.clone()) }
}

/// One look of each group, and those in doubt again, until `patience` is over: for `check` without a running agent.
pub async fn once(config: &Config, expected: Expected, patience: Duration) -> Once {
    let shared = Shared::default();
    let expected = Arc::new(expected);
    let until = Instant::now() + patience;
    let rules = Rules::from(&config.timing);
    let (wireguard, reach, mtu, firewall, certificates, dns, host) = tokio::join!(
        looked(WireGuard::new(&config.wireguard, shared.endpoints.clone()), &expected, &shared, rules, until),
        looked(Reach::new(&config.wireguard), &expected, &shared, rules, until),
        looked(Mtu::new(&config.wireguard, config.timing.mtu), &expected, &shared, rules, until),
        looked(Firewall::new(&config.firewall), &expected, &shared, rules, until),
        looked(Certificates::new(&config.certificates), &expected, &shared, rules, until),
        looked(Dns::new(&config.dns, config.timing.dns), &expected, &shared, rules, until),
        looked(Host::new(&config.host), &expected, &shared, rules, until),
    );
    let mut unconfirmed = Vec::new();
    for samples in [wireguard, reach, mtu, firewall, certificates, dns, host] {
        unconfirmed.extend(samples);
    }
    Once { shared, unconfirmed }
}

/// What one look saw.
pub struct Once {
    pub shared: Shared,
    /// What was bad and not seen often enough to believe it.
    pub unconfirmed: Vec<Sample>,
}

async fn looked<L: Look>(
    mut group: L,
    expected: &Arc<Expected>,
    shared: &Shared,
    rules: Rules,
    until: Instant,
) -> Vec<Sample> {
    let mut steady = Steady::new(rules, []);
    let mut last = Vec::new();
    loop {
        let began = Instant::now();
        let now = shared.clock.now();
        let look = Box::pin(rounds::look(&mut group, expected, now));
        match tokio::time::timeout_at(until, look).await {
            Ok(Ok(samples)) => {
                last.clone_from(&samples);
                steady.take(samples, now);
            }
            Ok(Err(why)) => steady.failed(L::NAME, &why, now),
            Err(_) if last.is_empty() => steady.failed(L::NAME, "it did not end in time", now),
            Err(_) => break,
        }
        let again = began + Duration::from_secs(1);
        if !steady.is_in_doubt() || again >= until {
            break;
        }
        sleep_until(again).await;
    }
    shared.findings.replace(L::NAME, steady.findings());
    let doubtful: Vec<_> = steady.unconfirmed().cloned().collect();
    last.retain(|sample| doubtful.iter().any(|(check, target)| check == sample.check && *target == sample.target));
    last
}
