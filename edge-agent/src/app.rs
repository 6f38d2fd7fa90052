//! Builds all, owns every task, reloads on SIGHUP, stops on SIGTERM: the only module that knows everyone.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    expect, groups, metrics,
    provider::Provider,
    report::{self, Post},
    rounds::Shared,
    server::{self, Server},
    spool::{Bounds, Spool},
    state::State,
};

/// What is stopped may take so long to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs the agent until it is told to stop.
pub async fn run(path: Option<&Path>, config: Config) -> anyhow::Result<()> {
    let metrics = metrics::install().context("the metrics cannot be kept")?;
    let shared = Arc::new(Shared::default());
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let listener = TcpListener::bind(config.listen);
    let listener = listener.await.with_context(|| format!("listen: {} cannot be bound", config.listen))?;
    let server = Arc::new(Server { shared: shared.clone(), metrics, name: config.name.clone() });
    tasks.spawn(server::serve(listener, server, tasks.clone(), stop.clone()));
    tasks.spawn(watchdog(shared.clone(), stop.clone()));
    tracing::info!(listen = %config.listen, name = config.name, "watching");

    let post = config.provider.as_ref().map(|_| Arc::new(Post::new(spool(&config))));
    let mut config = Arc::new(config);
    let mut generation = Generation::begin(&config, &shared, post.as_ref())?;
    say(&[NotifyState::Ready]);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {}
        }
        say(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?]);
        match reloaded(path, &config) {
            Ok(next) => {
                generation.end().await;
                config = Arc::new(next);
                generation = Generation::begin(&config, &shared, post.as_ref())?;
                tracing::info!("reloaded");
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "not reloaded: all goes on as before"),
        }
        say(&[NotifyState::Ready]);
    }
    say(&[NotifyState::Stopping]);
    generation.end().await;
    stop.cancel();
    tasks.close();
    timeout(FAREWELL, tasks.wait()).await.ok();
    tracing::info!("stopped");
    Ok(())
}

/// The settings of the file as it is now, where they can take the place of those that run.
fn reloaded(path: Option<&Path>, running: &Config) -> anyhow::Result<Config> {
    let next = Config::load(path)?;
    if let Some(provider) = &next.provider {
        Provider::new(provider)?;
    }
    let same = (&next.name, next.listen, &next.state_dir, next.provider.is_some());
    if same != (&running.name, running.listen, &running.state_dir, running.provider.is_some()) {
        anyhow::bail!("name, listen, state_dir, and whether there is a provider, need a restart");
    }
    Ok(next)
}

fn spool(config: &Config) -> Spool {
    Spool::open(&config.state_dir, Bounds::default()).unwrap_or_else(|error| {
        let dir = config.state_dir.display().to_string();
        tracing::warn!(%error, dir, "the spool cannot be opened: reports are held in memory; make the directory writable for us");
        Spool::without_disk(&config.state_dir, Bounds::default())
    })
}

/// All that depends on the settings, from one reading of them to the next.
struct Generation {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Generation {
    fn begin(config: &Arc<Config>, shared: &Arc<Shared>, post: Option<&Arc<Post>>) -> anyhow::Result<Self> {
        let this = Self { tasks: TaskTracker::new(), stop: CancellationToken::new() };
        let state = Arc::new(State::default());
        let held = expect::held(config);
        shared.expect(expect::merge(held.clone().unwrap_or_default(), config));
        if let (Some(settings), Some(post)) = (&config.provider, post) {
            let provider = Provider::new(settings)?;
            let follow = expect::follow(provider.clone(), held, config.clone(), shared.clone(), state.clone());
            let stop = this.stop.clone();
            this.tasks.spawn(async move {
                tokio::select! { () = follow => {}, () = stop.cancelled() => {} }
            });
            this.tasks.spawn(report::make(shared.clone(), post.clone(), config.timing.report, this.stop.clone()));
            let (name, post, stop) = (config.name.clone(), post.clone(), this.stop.clone());
            this.tasks.spawn(report::deliver(provider, name, post, state.clone(), stop));
        }
        groups::spawn(&this.tasks, config, &state, shared, &this.stop);
        Ok(this)
    }

    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        if timeout(FAREWELL, self.tasks.wait()).await.is_err() {
            tracing::warn!("a check did not end in time; it is left behind");
        }
    }
}

/// Feeds systemd's watchdog, while every group ends its looks.
async fn watchdog(shared: Arc<Shared>, stop: CancellationToken) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = interval(patience / 3);
    loop {
        tokio::select! { _ = ticks.tick() => {}, () = stop.cancelled() => return }
        let still = shared.beats.still();
        if still.is_empty() {
            say(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(groups = still.join(", "), "no look lately: the watchdog is not fed");
        }
    }
}

/// Tells systemd; without one nobody listens.
fn say(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
