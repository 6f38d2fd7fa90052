//! Commits while a fault lasts: updates mostly, some inserts, some changes of several rows in one transaction.
//!
//! Every commit changes a backend's port, so a body that mixes two revisions shows. Errors are expected during a fault;
//! the writer connects again and goes on.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Config};
use tokio_util::sync::CancellationToken;

use crate::{Home, Postgres, Row, ms, postgres::try_connect, until};

const ROWS: u32 = 20;

/// How a writer fared.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub committed: u64,
    pub failed: u64,
}

pub struct Writer {
    target: Arc<Mutex<Config>>,
    counts: Arc<[AtomicU64; 2]>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Writer {
    /// Makes its rows `w0.test` to `w19.test` first, then commits about every 20 ms.
    pub async fn start(home: &Home, postgres: &Postgres) -> Self {
        let rows: Vec<String> = (0..ROWS)
            .map(|n| Row::http(&format!("w{n}.test"), ([127, 0, 0, 1], 9).into()).insert() + " ON CONFLICT DO NOTHING")
            .collect();
        postgres.sql(&rows.join(";")).await;
        let target = Arc::new(Mutex::new(postgres.config()));
        let counts: Arc<[AtomicU64; 2]> = Arc::default();
        let stop = CancellationToken::new();
        let seed = rand::rng().random();
        println!("writer's seed: {seed}");
        let random = StdRng::seed_from_u64(seed);
        let task = home.tasks().spawn(write(home.clone(), target.clone(), counts.clone(), random, stop.clone()));
        Self { target, counts, stop, task }
    }

    /// From now on it writes there.
    pub fn moves_to(&self, postgres: &Postgres) {
        *self.target.lock().unwrap() = postgres.config();
    }

    pub fn so_far(&self) -> Written {
        let [committed, failed] = &*self.counts;
        Written { committed: committed.load(Ordering::SeqCst), failed: failed.load(Ordering::SeqCst) }
    }

    /// Waits for `n` commits more than there are now.
    pub async fn commits(&self, n: u64, deadline: Duration) {
        let goal = self.so_far().committed + n;
        let what = format!("the writer commits {n} times more");
        until(&what, deadline, async || (self.so_far().committed >= goal).then_some(()).ok_or(self.so_far())).await;
    }

    /// Returns when its last statement was answered: none of it is committed later.
    pub async fn stop(self) -> Written {
        self.stop.cancel();
        let counts = self.counts.clone();
        self.task.await.expect("the writer's task");
        let [committed, failed] = &*counts;
        Written { committed: committed.load(Ordering::SeqCst), failed: failed.load(Ordering::SeqCst) }
    }
}

async fn write(
    home: Home,
    target: Arc<Mutex<Config>>,
    counts: Arc<[AtomicU64; 2]>,
    mut random: StdRng,
    stop: CancellationToken,
) {
    let mut held: Option<(Config, Client)> = None;
    let mut made = 0;
    while !stop.is_cancelled() {
        let config = target.lock().unwrap().clone();
        let usable = held.take().filter(|(of, client)| *of == config && !client.is_closed());
        let client = match usable {
            Some((_, client)) => Some(client),
            None => timeout(ms(1_000), try_connect(&home, &config)).await.ok().and_then(Result::ok),
        };
        let sql = next(&mut random, &mut made);
        let done = match &client {
            Some(client) => timeout(ms(2_000), client.batch_execute(&sql)).await.is_ok_and(|r| r.is_ok()),
            None => false,
        };
        counts[usize::from(!done)].fetch_add(1, Ordering::SeqCst);
        held = client.filter(|_| done).map(|client| (config, client));
        stop.run_until_cancelled(tokio::time::sleep(ms(random.random_range(10..30)))).await;
    }
}

fn next(random: &mut StdRng, made: &mut u32) -> String {
    let (row, port) = (random.random_range(0..ROWS), random.random_range(1_024..60_000));
    match random.random_range(0..20) {
        0 => {
            *made += 1;
            let name = format!("n{made}-{port}.test");
            Row::http(&name, ([127, 0, 0, 1], port).into()).insert() + " ON CONFLICT DO NOTHING"
        }
        1 => format!(
            "BEGIN; UPDATE domains SET backend_port = {port} WHERE domain LIKE 'w1%'; \
             UPDATE domains SET backend_port = {port} + 1 WHERE domain = 'w{row}.test'; COMMIT"
        ),
        2 => "DELETE FROM domains WHERE id = (SELECT id FROM domains WHERE domain LIKE 'n%' LIMIT 1)".to_owned(),
        _ => format!("UPDATE domains SET backend_port = {port} WHERE domain = 'w{row}.test'"),
    }
}
