//! The loop around [`Sync`]: connects, listens, reads, and tells what it read.
//!
//! It owns two connections: one that listens and beats, and is never in a transaction (a listener in a transaction stops
//! the cleaning of the notification queue, and a full queue fails every commit), and one that reads. Both are driven here,
//! in one task, so that dropping the session is all there is to a hang-up.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use metrics::{counter, gauge, histogram};
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    task::yield_now,
    time::{MissedTickBehavior, interval},
};
use tokio_postgres::{AsyncMessage, Client};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    hashes::Hashes,
    read::{self, Reader, Reading, Sum},
    reread::{self, Wish},
    rows::Fetched,
    sync::{Action, Cause, Event, Held, Sync},
};
use crate::{
    memory::TooLarge,
    metrics as name,
    postgres::{self, Connection, Database, assume_role},
};

/// From this share on, the queue of notifications is on its way to fail every commit.
const QUEUE_ALARM: f64 = 0.1;
/// How often is said how far a long read is.
const PROGRESS: Duration = Duration::from_secs(1);

/// What the loop tells, in the order of events.
#[derive(Debug)]
pub enum News<H> {
    /// Connected to a database that was not connected before.
    Connected,
    /// Not connected any more; what is held goes on being served.
    Disconnected,
    /// The rows of a newer revision, or of the same one after a hint. `wishes` wait to hear what it found.
    Read { reading: Reading, wishes: Vec<Wish> },
    /// There are more rows than we have memory for; what is held goes on being served.
    TooLarge(TooLarge),
    /// Withheld revision `held` was approved; these are its rows.
    Approved { held: Held, rows: Vec<Fetched> },
    /// What [`News::Read`] and [`News::Approved`] woke has run: there is time to keep records.
    Quiet,
    /// The tokens changed.
    Tokens,
    /// A rotation of a key changed.
    Rotations,
    /// Who serves what was read has something to say about it.
    Heard(H),
}

/// The revision that an operator approved, with its rows.
type Approved = Option<(Held, Vec<Fetched>)>;
type Task<T, E = tokio_postgres::Error> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

struct Session {
    listener: Arc<Client>,
    reader: Arc<Reader>,
    probe: String,
}

/// The halves of a session that do the I/O.
struct Wires {
    listening: Connection,
    reading: Connection,
}

/// What is under way on the session.
#[derive(Default)]
struct Tasks {
    beat: Option<Task<Beat>>,
    read: Option<Task<(Reading, Approved), read::Error>>,
    compare: Option<Task<Option<Sum>>>,
}

struct Beat {
    newest: Held,
    in_recovery: bool,
    queue: f64,
}

/// Follows `database` until `stop`. `told` hears every piece of news, and answers which revisions wait for an approval.
pub struct Follower<F, H> {
    pub database: Database,
    pub told: F,
    /// The revision that we started with, for the fork check of the first read.
    pub started_with: Option<Held>,
    /// Those who want everything read again.
    pub wishes: mpsc::Receiver<Wish>,
    /// What is to be told in the same order as everything else.
    pub heard: mpsc::Receiver<H>,
}

impl<F: FnMut(News<H>) -> Vec<Held>, H> Follower<F, H> {
    pub async fn run(mut self, stop: CancellationToken) {
        let mut sync = Sync::new(Instant::now(), rand::random::<f64>);
        let mut hashes = Hashes::default();
        let mut session: Option<Session> = None;
        let mut wires: Option<Wires> = None;
        let mut connecting: Option<Task<(Session, Wires), postgres::Error>> = None;
        let mut tasks = Tasks::default();
        let mut waiting: Vec<Held> = Vec::new();
        let mut heard: Option<Instant> = None;
        let mut wishes: Vec<Wish> = Vec::new();
        let mut complained = None;
        let mut renewed = self.database.renewed();
        let (mut look, mut so_far) = (interval(PROGRESS), 0);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(action) = sync.next(Instant::now()) {
                match (action, &session) {
                    (Action::Connect, _) => connecting = Some(Box::pin(connect(self.database.clone()))),
                    (Action::Beat, Some(session)) => tasks.beat = Some(Box::pin(beat(Arc::clone(&session.listener)))),
                    (Action::Read { everything }, Some(session)) => {
                        let client = Arc::clone(&session.reader);
                        let held = sync.held().or(self.started_with);
                        let everything = everything || sync.held().is_none();
                        let (waiting, known) = (waiting.clone(), hashes.rows() as u64);
                        so_far = 0;
                        look.reset();
                        tasks.read = Some(Box::pin(async move {
                            let reading = client.read(held, everything, known).await?;
                            let approved = client.approved(&waiting, reading.held).await?;
                            Ok((reading, approved))
                        }));
                    }
                    (Action::Compare, Some(session)) => {
                        let client = Arc::clone(&session.reader);
                        tasks.compare = Some(Box::pin(async move { client.sum().await }));
                    }
                    (Action::Hangup(cause), _) => {
                        if session.take().is_some() {
                            hung_up(cause);
                            (self.told)(News::Disconnected);
                        }
                        (tasks, connecting, wires) = (Tasks::default(), None, None);
                    }
                    (Action::Pooled, _) => {
                        gauge!(name::NOTIFICATIONS).set(0.0);
                        tracing::warn!(
                            "notifications do not come back: is a transaction pooler in between? Changes are polled every \
                             second instead; give [database] url an address that leads to PostgreSQL itself"
                        );
                    }
                    (Action::Beat | Action::Read { .. } | Action::Compare, None) => {}
                }
            }
            let wake_at = sync.wake_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                message = next_message(&mut wires) => match message {
                    Ok(Some(AsyncMessage::Notification(note))) => {
                        let now = Instant::now();
                        match note.channel() {
                            "charliehub_revision" if is_news(note.payload(), sync.held()) => {
                                if tasks.read.is_some() {
                                    counter!(name::COALESCED).increment(1);
                                }
                                heard.get_or_insert(now);
                                sync.on(Event::Hint, now);
                            }
                            "charliehub_decision" => sync.on(Event::Hint, now),
                            "charliehub_tokens" => waiting = (self.told)(News::Tokens),
                            "charliehub_rotations" => waiting = (self.told)(News::Rotations),
                            channel if session.as_ref().is_some_and(|session| session.probe == channel) => {
                                gauge!(name::NOTIFICATIONS).set(1.0);
                                if let Some(session) = &session {
                                    session.reader.is_direct();
                                }
                                sync.on(Event::ProbeBack, now);
                            }
                            _ => {}
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => sync.on(Event::Lost, Instant::now()),
                    Err(error) => {
                        tracing::warn!(cause = %postgres::Error::from(error), "lost the connection to the database");
                        sync.on(Event::Lost, Instant::now());
                    }
                },
                done = some(&mut connecting) => {
                    connecting = None;
                    match done {
                        Ok((opened, connections)) => {
                            tracing::info!(database = %self.database.display(), "connected");
                            gauge!(name::DATABASE_CONNECTED).set(1.0);
                            (session, wires) = (Some(opened), Some(connections));
                            complained = None;
                            sync.on(Event::Listening, Instant::now());
                            waiting = (self.told)(News::Connected);
                        }
                        Err(error) => {
                            let text = error.to_string();
                            if complained.as_ref() != Some(&text) {
                                tracing::warn!(error = %text, "no connection to the database; trying again");
                                complained = Some(text);
                            }
                            sync.on(Event::Lost, Instant::now());
                        }
                    }
                }
                done = some(&mut tasks.read) => {
                    tasks.read = None;
                    match done {
                        Ok((reading, approved)) => {
                            hashes.remember(reading.everything, &reading.rows);
                            let held = reading.held;
                            if so_far > 0 {
                                tracing::info!(rows = reading.rows.len(), "everything is read");
                            }
                            (self.told)(News::Read { reading, wishes: std::mem::take(&mut wishes) });
                            if let Some((held, rows)) = approved {
                                (self.told)(News::Approved { held, rows });
                            }
                            if let Some(heard) = heard.take() {
                                // Until here a change is on its way to Traefik.
                                histogram!(name::NOTIFY_TO_SWAP).record(heard.elapsed().as_secs_f64());
                            }
                            sync.on(Event::Read(held), Instant::now());
                            // A held poll that was woken runs after this task: let it go first.
                            yield_now().await;
                            waiting = (self.told)(News::Quiet);
                        }
                        Err(read::Error::TooLarge(error)) => {
                            wishes.clear();
                            waiting = (self.told)(News::TooLarge(error));
                            sync.on(Event::TooLarge, Instant::now());
                        }
                        Err(read::Error::Database(error)) => {
                            tracing::warn!(cause = %postgres::Error::from(error), "a read failed");
                            sync.on(Event::Lost, Instant::now());
                        }
                    }
                }
                done = some(&mut tasks.beat) => {
                    tasks.beat = None;
                    match done {
                        Ok(beat) => {
                            gauge!(name::NOTIFY_QUEUE_USAGE).set(beat.queue);
                            if beat.queue > QUEUE_ALARM {
                                tracing::warn!(
                                    usage = beat.queue,
                                    "the queue of notifications fills: a session that listens sits in a transaction"
                                );
                            }
                            let now = Instant::now();
                            sync.on(Event::Beat { newest: beat.newest, in_recovery: beat.in_recovery }, now);
                            if !waiting.is_empty() {
                                // The notification of an approval may have been lost.
                                sync.on(Event::Hint, now);
                            }
                        }
                        Err(error) => {
                            tracing::warn!(cause = %postgres::Error::from(error), "the heartbeat failed");
                            sync.on(Event::Lost, Instant::now());
                        }
                    }
                }
                done = some(&mut tasks.compare) => {
                    tasks.compare = None;
                    match done {
                        Ok(sum) => sync.on(Event::Compared(same(sum, sync.held(), &hashes)), Instant::now()),
                        Err(error) => {
                            tracing::warn!(cause = %postgres::Error::from(error), "the comparison failed");
                            sync.on(Event::Lost, Instant::now());
                        }
                    }
                }
                // A read that is under way may have begun before they asked.
                1.. = self.wishes.recv_many(&mut wishes, reread::WAITING), if tasks.read.is_none() => {
                    wishes.retain(|wish| !wish.is_closed());
                    if !wishes.is_empty() {
                        sync.on(Event::Wish, Instant::now());
                    }
                }
                _ = look.tick(), if tasks.read.is_some() => {
                    let rows = session.as_ref().map_or(0, |session| session.reader.so_far());
                    if rows > so_far {
                        so_far = rows;
                        tracing::info!(rows, "reading everything; what is held goes on being served");
                        sync.on(Event::Progress, Instant::now());
                    }
                }
                Ok(()) = renewed.changed() => sync.on(Event::Renewed, Instant::now()),
                Some(heard) = self.heard.recv() => waiting = (self.told)(News::Heard(heard)),
                () = sleep_until(wake_at) => {}
            }
        }
    }
}

async fn connect(database: Database) -> Result<(Session, Wires), postgres::Error> {
    let probe = format!("charliehub_probe_{}", Uuid::new_v4().simple());
    let (listener, mut listening) = database.connect("charliehub-provider listener").await?;
    drive(&mut listening, async {
        assume_role(&listener).await?;
        let listen = format!(
            "LISTEN charliehub_revision; LISTEN charliehub_decision; LISTEN charliehub_tokens; LISTEN charliehub_rotations;
             LISTEN {probe}"
        );
        listener.batch_execute(&listen).await.map_err(postgres::Error::from)
    })
    .await?;
    let (reader, mut reading) = database.connect("charliehub-provider reader").await?;
    drive(&mut reading, assume_role(&reader)).await?;
    drive(&mut reading, async {
        reader.batch_execute(&format!("NOTIFY {probe}")).await.map_err(postgres::Error::from)
    })
    .await?;
    let session = Session { listener: Arc::new(listener), reader: Arc::new(Reader::new(reader)), probe };
    Ok((session, Wires { listening, reading }))
}

/// Drives `connection` while `work` uses its client. Notifications of this short time are hints; the first read follows.
async fn drive<T>(
    connection: &mut Connection,
    work: impl Future<Output = Result<T, postgres::Error>>,
) -> Result<T, postgres::Error> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            message = poll_fn(|cx| connection.poll_message(cx)) => match message {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                // Closed: the work hears it from its client.
                None => return work.await,
            },
        }
    }
}

async fn beat(client: Arc<Client>) -> Result<Beat, tokio_postgres::Error> {
    const BEAT: &str = "SELECT n, token, pg_is_in_recovery(), pg_notification_queue_usage() FROM charliehub.revision";
    let rows = client.query_typed(BEAT, &[]).await?;
    let Some(row) = rows.first() else {
        return Ok(Beat { newest: Held { revision: 0, token: Uuid::nil() }, in_recovery: false, queue: 0.0 });
    };
    let newest = Held { revision: row.try_get(0)?, token: row.try_get(1)? };
    Ok(Beat { newest, in_recovery: row.try_get(2)?, queue: row.try_get(3)? })
}

/// Drives both connections, and gives what the listening one hears. `None`: one of them was closed.
async fn next_message(wires: &mut Option<Wires>) -> Result<Option<AsyncMessage>, tokio_postgres::Error> {
    let Some(wires) = wires else { return std::future::pending().await };
    poll_fn(|cx| {
        if let Poll::Ready(message) = wires.listening.poll_message(cx) {
            return Poll::Ready(message.transpose());
        }
        wires.reading.poll_message(cx).map(|_| Ok(None))
    })
    .await
}

/// Waits for a task that may not be there.
async fn some<T>(task: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match task {
        Some(task) => task.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// A notification that tells of something that is not held. What cannot be understood is worth a look too.
fn is_news(payload: &str, held: Option<Held>) -> bool {
    #[derive(Deserialize)]
    struct Payload {
        r: i64,
        t: Uuid,
    }
    let Ok(payload) = serde_json::from_str::<Payload>(payload) else {
        counter!(name::BAD_PAYLOAD).increment(1);
        return true;
    };
    held != Some(Held { revision: payload.r, token: payload.t })
}

/// Compares the rows held with the database's sum. A sum of another revision says nothing: a read is on its way.
fn same(sum: Option<Sum>, held: Option<Held>, hashes: &Hashes) -> bool {
    let Some(sum) = sum.filter(|sum| Some(sum.held) == held) else { return true };
    let same = hashes.agree(&sum);
    if !same {
        counter!(name::RESYNC_MISMATCH).increment(1);
        tracing::error!(
            rows_held = hashes.rows(),
            rows = sum.rows,
            "the rows held differ from the database: something was changed with triggers off. Reading everything again"
        );
    }
    same
}

fn hung_up(cause: Cause) {
    gauge!(name::DATABASE_CONNECTED).set(0.0);
    counter!(name::RECONNECTS).increment(1);
    match cause {
        Cause::HeartbeatMissed => {
            counter!(name::HEARTBEAT_MISSED).increment(1);
            tracing::warn!("the database did not answer a heartbeat in time; connecting again");
        }
        Cause::ReadTooSlow => tracing::warn!("a read took too long; connecting again"),
        Cause::InRecovery => tracing::warn!("this server is a standby; connecting again"),
        Cause::LoginRenewed => tracing::info!("connecting again with the new login"),
        Cause::Lost => {}
    }
}
