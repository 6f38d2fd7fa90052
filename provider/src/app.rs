//! Builds everything, owns every task, and stops them in order: the only module that knows them all.
//!
//! In order of a start: what was last known good is served before anything else is asked; then the database is found,
//! or our own started, migrated and followed. In order of a stop: held polls are answered, connections end, what is
//! pending is kept, our own PostgreSQL stops.

mod follow;
mod login;
mod prepare;

use std::{
    fs::{self, File, Permissions},
    io,
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ::metrics::counter;
use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use charliehub_proto::traefik::since::Version;
use rustix::{
    fs::{FlockOperation, flock},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, oneshot},
    time::{interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::follow::Follow;
use crate::{
    ack::Watch,
    agents::{self, Agents},
    api::{self, Api},
    audit::refusals::Refusals,
    auth::{Auth, Hosts, Proxies},
    certificate,
    changes::Changes,
    compile::{Coalesce, ForwardAuth, Settings},
    config::{Config, Selector, Traefik, TrustedProxies},
    ddns,
    events::Events,
    expected::Expectations,
    guard::Limits,
    instances::Instances,
    metrics,
    postgres::{
        Database, Pool,
        private::{self, Private},
    },
    publish::{Holds, Parts, Policy, kept},
    record::Recorder,
    rehearse::Rehearsal,
    rotations::Rotations,
    serve::Server,
    snapshot::{Current, disk, history::prune::Retention},
    status::{Readiness, Status},
    store::{listen::Follower, reread},
    systemd::{self, Given},
    tls::Tls,
    webhooks,
};

/// Enough for the API, the history and the tokens at once.
const POOL: usize = 8;
/// What instances tell waits here for the loop that follows the database.
const HEARD: usize = 64;
/// A Traefik that has not told its version yet is taken for this one.
const OLDEST: Version = Version::new(3, 0, 0);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 4_096;
/// The default certificate is looked at this often.
const CERTIFICATE: Duration = Duration::from_hours(24);
/// Between two starts of our own PostgreSQL, when it does not stay.
const RESTART: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or SIGINT, on the socket that was given or one of its own. `Err` says in one line what kept it from
/// starting.
pub async fn serve(config: Config, given: Given) -> anyhow::Result<()> {
    let handle = metrics::install()?;
    let data_dir = config.serve.data_dir.clone();
    make_data_dir(&data_dir)?;
    let _lock = lock(&data_dir)?;
    let stop = CancellationToken::new();
    let current = Arc::new(Current::divided(config.traefik.iter().filter_map(part)));
    let status = Arc::new(Status::default());
    let auth = Arc::new(Auth::open(&data_dir));
    if let Some(trusted) = &config.access.trusted {
        auth.trust(proxies(trusted));
    }
    let instances = Arc::new(Instances::configured(&config.traefik, &current));
    let events = Arc::new(Events::until(stop.clone()));
    let agents = Arc::new(Agents::new(config.agents.silent_after));
    let expectations = Arc::new(Expectations::default());
    let rotations = Arc::new(Rotations::default());
    let overview = Arc::new(ArcSwap::default());
    let refusals = Arc::new(Refusals::default());
    let tls = config.serve.tls.as_ref().map(Tls::open).transpose()?.map(Arc::new);
    let files = more_files();
    let listener = match given.listener(config.serve.listen)? {
        Some(listener) => listener,
        None => listen(config.serve.listen).with_context(|| {
            format!(
                "cannot listen on {}: is another program there? Choose another address with --listen",
                config.serve.listen
            )
        })?,
    };
    let address = listener.local_addr()?;

    let settings = Arc::new(settings(&config, address));
    let mut publisher = Parts::new(&settings, limits(&config), Arc::clone(&current));
    publisher.fit(config.traefik.iter().filter_map(floor), policy(&config));
    publisher.restore(kept::read(&data_dir));
    let (good, errors) = disk::read(&data_dir);
    for error in errors {
        tracing::error!(%error, "a last known good config cannot be used");
    }
    let started_with = good.as_ref().map(|good| good.held);
    if let Some(good) = good {
        tracing::info!(revision = good.held.revision, routes = good.size.routes, "serving the last known good config");
        publisher.resume(None, good);
    }
    let dirs = part_dirs(&data_dir, &current);
    for (at, dir) in dirs.iter().enumerate() {
        let (good, errors) = disk::read(dir);
        for error in errors {
            tracing::error!(%error, "a last known good config of a part cannot be used");
        }
        if let Some(good) = good {
            publisher.resume(Some(at), good);
        }
    }

    // The database is not there yet; what needs it waits for the pool.
    let (database, private) = find_database(&config)?;
    let pool = database.pool(POOL);
    let (asker, wishes) = reread::channel();
    let (telling, heard) = mpsc::channel(HEARD);
    let api = Api {
        pool: pool.clone(),
        auth: Arc::clone(&auth),
        messages: messages(Arc::clone(&current)),
        current: Arc::clone(&current),
        asker,
        rehearsal: Arc::new(Rehearsal::configured(&config.rehearse, Arc::clone(&settings))),
        settings,
        instances: Arc::clone(&instances),
        telling: telling.clone(),
        traefiks: Arc::new(config.traefik.clone()),
        events: Arc::clone(&events),
        agents: Arc::clone(&agents),
        expectations: Arc::clone(&expectations),
        rotations: Arc::clone(&rotations),
        status: Arc::clone(&status),
        overview: Arc::clone(&overview),
        shown: Arc::default(),
        https: config.serve.tls.is_some(),
        strict_locking: config.serve.strict_locking,
        limits: Arc::new(api::Limits::new(api::Policy {
            rate: config.serve.rate_limit,
            burst: config.serve.rate_burst,
        })),
        kept: Arc::default(),
    };
    let server = Arc::new(Server {
        api: api::finish(api::router(api), Hosts::new(config.hosts())),
        current: Arc::clone(&current),
        auth: Arc::clone(&auth),
        hosts: Hosts::new(config.hosts()),
        instances: Arc::clone(&instances),
        refusals: Arc::clone(&refusals),
        agents: Arc::clone(&agents),
        status: Arc::clone(&status),
        max_wait: config.serve.max_wait,
        metrics: handle.clone(),
        polled: counter!(metrics::HTTP_REQUESTS, "route" => "/traefik", "status" => "200"),
        stop: stop.clone(),
    });
    let serving = TaskTracker::new();
    serving.spawn(server.run(listener, tls.clone()));
    serving.close();
    tracing::info!(%address, files, data_dir = %data_dir.display(), database = %database.display(), "listening");

    let recorder = Arc::new(Recorder::default());
    let recorders: Vec<Arc<Recorder>> =
        current.parts().iter().map(|part| Arc::new(Recorder::of(part.selector.clone()))).collect();
    // Kept until the last connection has ended, and our own PostgreSQL until all is kept.
    let (keeping, kept) = (CancellationToken::new(), CancellationToken::new());
    let tasks = TaskTracker::new();
    for (recorder, dir) in recorders.iter().zip(dirs) {
        tasks.spawn(Arc::clone(recorder).keep_on_disk(dir, keeping.clone()));
    }
    tasks.spawn(systemd::tell(
        {
            let (status, current) = (Arc::clone(&status), Arc::clone(&current));
            move || summary(&status.readiness(current.load().as_deref()))
        },
        stop.clone(),
    ));
    tasks.spawn(Arc::clone(&recorder).keep_on_disk(data_dir.clone(), keeping.clone()));
    let retention = Retention {
        keep: i32::try_from(config.history.keep).unwrap_or(i32::MAX),
        age: config.history.age,
        max_bytes: i64::try_from(config.history.max_bytes).unwrap_or(i64::MAX),
    };
    for traefik in config.traefik.iter().filter(|traefik| traefik.api.is_some()) {
        let watch = Watch {
            instance: instances.get(&traefik.instance),
            instances: Arc::clone(&instances),
            traefik: traefik.clone(),
            heard: telling.clone(),
            events: Arc::clone(&events),
        };
        tasks.spawn(watch.run(stop.clone()));
    }
    let changed = Arc::new(Notify::new());
    let shown = Arc::clone(&status);
    let follow = Follow {
        publisher,
        recorder: Arc::clone(&recorder),
        recorders: recorders.clone(),
        current,
        status,
        auth: Arc::clone(&auth),
        pool: pool.clone(),
        changes: Arc::clone(&changed),
        data_dir: data_dir.clone(),
        holds: Holds::new(),
        instances: Arc::clone(&instances),
        events: Arc::clone(&events),
        overview: Arc::clone(&overview),
        outcomes: Vec::new(),
        expectations,
        rotations,
        changed: Vec::new(),
    };
    let watching = TaskTracker::new();
    let started = private.map(|private| {
        let (started, start) = oneshot::channel();
        watching.spawn(watch(private, started, kept.clone()));
        start
    });
    watching.close();
    if config.database.can_change() {
        tasks.spawn(until(stop.clone(), login::follow(config.database.clone(), database.clone())));
    }
    let (failed, failure) = oneshot::channel();
    tasks.spawn({
        let (config, stop, pool) = (config.clone(), stop.clone(), pool.clone());
        let events = Arc::clone(&events);
        let tracker = tasks.clone();
        let keeping = keeping.clone();
        async move {
            let mut follow = follow;
            let prepared = tokio::select! {
                prepared = prepare::prepare(&database, &config, started, started_with, &mut follow.publisher) => prepared,
                () = stop.cancelled() => return,
            };
            let started_with = match prepared {
                Ok(started_with) => started_with,
                Err(error) => {
                    drop(failed.send(error));
                    return;
                }
            };
            tracker.spawn(recorder.keep_in_history(pool.clone(), Some(retention), keeping.clone()));
            for recorder in recorders {
                tracker.spawn(recorder.keep_in_history(pool.clone(), None, keeping.clone()));
            }
            tracker.spawn(async move { refusals.keep(pool, keeping).await });
            let pool = follow.pool.clone();
            if let Some(file) = config.log.changes_file.clone() {
                let log = Changes::new(file, &config.serve.data_dir);
                tracker.spawn(log.follow(pool.clone(), changed, stop.clone()));
            }
            tracker.spawn({
                let stop = stop.clone();
                async move {
                    until(stop, auth.follow(&pool)).await;
                    auth.keep_last(&pool).await;
                }
            });
            let pool = follow.pool.clone();
            tracker.spawn(instances.keep(pool.clone(), stop.clone()));
            let ddns = ddns::follow(config.ddns.clone(), pool.clone(), Arc::clone(&agents), Arc::clone(&events));
            tracker.spawn(until(stop.clone(), ddns));
            tracker.spawn(until(stop.clone(), agents::watch::watch(agents, pool.clone(), events)));
            if config.compile.default_certificate.is_none() {
                tracker.spawn(until(stop.clone(), renew(pool)));
            }
            let follower =
                Follower { database, told: |news| follow.hear(news), started_with, wishes, heard };
            follower.run(stop).await;
        }
    });
    tasks.spawn(until(stop.clone(), async move {
        let mut tick = interval(Duration::from_secs(5));
        loop {
            tick.tick().await;
            handle.run_upkeep();
        }
    }));

    tasks.spawn(until(stop.clone(), read_again(tls.clone())));
    if let Some(tls) = tls {
        tasks.spawn(until(stop.clone(), tls.follow(shown)));
    }
    for webhook in config.webhooks {
        tasks.spawn(until(stop.clone(), webhooks::follow(webhook, Arc::clone(&events))));
    }

    let ended = wait_for_end(failure).await;
    stop.cancel();
    serving.wait().await;
    keeping.cancel();
    tasks.close();
    tasks.wait().await;
    kept.cancel();
    watching.wait().await;
    tracing::info!("stopped");
    ended
}

/// SIGTERM or SIGINT, or what makes it useless to go on.
async fn wait_for_end(failure: oneshot::Receiver<anyhow::Error>) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let failure = async {
        match failure.await {
            Ok(error) => error,
            // The sender is dropped when all went well.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        error = failure => return Err(error),
    }
    Ok(())
}

/// How we are, in one line.
fn summary(readiness: &Readiness) -> String {
    let serving = readiness.revision.map(|revision| format!("serving revision {revision}"));
    serving.into_iter().chain(readiness.reasons.iter().cloned()).collect::<Vec<_>>().join("; ")
}

/// SIGHUP has the files of TLS read again at once; without TLS there is nothing to read.
async fn read_again(tls: Option<Arc<Tls>>) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => return tracing::warn!(%error, "SIGHUP cannot be waited for"),
    };
    while hangup.recv().await.is_some() {
        tracing::info!("SIGHUP: the files of TLS are read again");
        if let Some(tls) = &tls {
            tls.again();
        }
    }
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! { () = work => {}, () = stop.cancelled() => {} }
}

fn find_database(config: &Config) -> anyhow::Result<(Database, Option<Private>)> {
    if let Some(url) = config.database.connection_string() {
        return Ok((Database::parse(url.reveal())?, None));
    }
    let place = &config.serve.data_dir;
    let (private, database) = Private::prepare(place, &config.database.run_as, config.database.bin_dir.as_deref())?;
    Ok((database, Some(private)))
}

/// Keeps our own PostgreSQL running until `stop`, then stops it. `started` hears how the first start went.
async fn watch(mut private: Private, started: oneshot::Sender<Result<(), private::Error>>, stop: CancellationToken) {
    let start =
        tokio::select! { start = private.start() => start, () = stop.cancelled() => return private.stop().await };
    let mut running = start.is_ok();
    drop(started.send(start));
    loop {
        if running {
            let why = tokio::select! {
                why = private.exited() => why,
                () = stop.cancelled() => return private.stop().await,
            };
            tracing::error!(why, "the private PostgreSQL ended; starting it again");
        }
        running = match private.restart().await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the private PostgreSQL does not start; trying again");
                tokio::select! { () = sleep(RESTART) => {}, () = stop.cancelled() => return private.stop().await }
                false
            }
        };
    }
}

async fn renew(pool: Pool) {
    let mut tick = interval(CERTIFICATE);
    loop {
        tick.tick().await;
        let renewed = async {
            let mut client = pool.get().await?;
            certificate::ensure(&mut client, jiff::Timestamp::now()).await
        };
        match renewed.await {
            Ok(true) => tracing::info!("the default certificate was renewed"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the default certificate cannot be looked after"),
        }
    }
}

fn messages(current: Arc<Current>) -> api::maintenance::Messages {
    Arc::new(move |id| current.message(id).map(|text| text.to_string()))
}

fn proxies(trusted: &TrustedProxies) -> Proxies {
    // Only names of roles come this far.
    let roles = trusted.group_roles.iter().filter_map(|(group, role)| Some((group.clone(), role.parse().ok()?)));
    Proxies {
        networks: trusted.networks.clone(),
        user_header: trusted.user_header.clone(),
        groups_header: trusted.groups_header.clone(),
        roles: roles.collect(),
    }
}

/// What the compiler has to know of the configuration; `address` is where we listen.
pub fn settings(config: &Config, address: SocketAddr) -> Settings {
    let (compile, access) = (&config.compile, &config.access);
    Settings {
        entry_points: compile.entry_points.clone(),
        cert_resolvers: compile.cert_resolvers.clone(),
        default_resolver: compile.default_resolver.clone(),
        default_certificate: compile.default_certificate.clone(),
        self_url: config.self_url(address),
        forward_auth: access.forward_auth.as_ref().map(|auth| ForwardAuth {
            address: auth.address.clone(),
            auth_response_headers: auth.auth_response_headers.clone(),
        }),
        internal_networks: access.internal_networks.clone(),
        coalesce: compile.coalesce,
        nested: compile.coalesce == Coalesce::Auto && have_parents(&config.traefik),
    }
}

/// Whether all that poll are known to have routers below others.
fn have_parents(traefiks: &[Traefik]) -> bool {
    let has = |traefik: &Traefik| traefik.min_version.is_some_and(Version::has_parents);
    !traefiks.is_empty() && traefiks.iter().all(has)
}

/// Which part of the rows a Traefik is given, where that is not all.
fn part(traefik: &Traefik) -> Option<(Arc<str>, Selector)> {
    Some((traefik.instance.as_str().into(), traefik.selector.clone()?))
}

/// Where what is last known good of each part is kept; what is there of others goes.
fn part_dirs(data_dir: &Path, current: &Current) -> Vec<PathBuf> {
    let all = data_dir.join("parts");
    let dirs: Vec<PathBuf> = current.parts().iter().map(|part| all.join(part.selector.id())).collect();
    for entry in fs::read_dir(&all).into_iter().flatten().flatten() {
        if !dirs.contains(&entry.path())
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "a part that nobody is given any more stays on disk");
        }
    }
    for dir in &dirs {
        if let Err(error) = make_data_dir(dir) {
            tracing::warn!(error = format!("{error:#}"), "what is last known good of a part cannot be kept");
        }
    }
    dirs
}

/// What a Traefik is taken for until it tells its version. None for one that will not, and of which nothing is said.
fn floor(traefik: &Traefik) -> Option<(Arc<str>, Version)> {
    let known = traefik.min_version.or_else(|| traefik.api.as_ref().map(|_| OLDEST))?;
    Some((traefik.instance.as_str().into(), known))
}

fn policy(config: &Config) -> Policy {
    Policy { containment: config.guard.containment, regression: config.guard.rollback_on_regression }
}

fn limits(config: &Config) -> Limits {
    let guard = &config.guard;
    let number = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    Limits {
        max_removed: number(guard.max_removed),
        max_removed_percent: guard.max_removed_percent.into(),
        max_quarantined: number(guard.max_quarantined),
        max_quarantined_percent: guard.max_quarantined_percent.into(),
        hold_opening: guard.hold_opening,
        hold_login_loss: guard.hold_login_loss,
        window: guard.window,
    }
}

/// With room for all Traefiks that come at once after a restart; the kernel's `somaxconn` bounds it.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Lets us open as many files as we may: a held poll is one, and the usual bound is made for programs that use `select`.
fn more_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the bound on open files cannot be raised; each held poll is one");
            current
        }
    }
}

/// Ours alone: tokens and keys are in it.
fn make_data_dir(path: &Path) -> anyhow::Result<()> {
    // Parents as anybody would make them: the private PostgreSQL's user has to pass through.
    let made = fs::create_dir_all(path).and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o700)));
    match made {
        // A read-only one still holds the last known good config.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem && path.is_dir() => Ok(()),
        made => made.with_context(|| {
            format!("cannot use data directory {}; give one that can be written with --data-dir", path.display())
        }),
    }
}

/// One provider per data directory, as long as the file is open.
fn lock(data_dir: &Path) -> anyhow::Result<Option<File>> {
    let path: PathBuf = data_dir.join("lock");
    let file = match File::options().create(true).append(true).mode(0o600).open(&path) {
        Ok(file) => file,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot lock the data directory; nothing can be kept in it");
            return Ok(None);
        }
    };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!(
            "another charliehub-provider uses data directory {}; stop it, or give another with --data-dir",
            data_dir.display()
        );
    }
    Ok(Some(file))
}
