//! Connections for reads and writes that are short. The listener has its own: never LISTEN on one of these.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use deadpool_postgres::{
    Connect, Hook, HookError, Manager, ManagerConfig, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Database, Error, SESSION};

/// How long a caller waits for another one to give a connection back.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection of the pool; it goes back when dropped. `prepare_cached` is there.
pub type Pooled = deadpool_postgres::Client;

/// Connections on which [`super::assume_role`] was done. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    inner: deadpool_postgres::Pool,
    database: Database,
}

impl Pool {
    pub(super) fn new(database: Database, max: usize) -> Self {
        let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager =
            Manager::from_connect(tokio_postgres::Config::new(), Opening { database: database.clone() }, config);
        let renewed = database.renewed();
        let current = Hook::sync_fn(move |_, metrics| {
            if metrics.created >= *renewed.borrow() { Ok(()) } else { Err(HookError::message("of an older login")) }
        });
        let mut inner =
            deadpool_postgres::Pool::builder(manager).max_size(max).wait_timeout(Some(PATIENCE)).pre_recycle(current);
        let reaching = database.inner.load();
        if let Some(limit) = reaching.timeout {
            let hosts = u32::try_from(reaching.hosts.len()).unwrap_or(u32::MAX);
            inner = inner.create_timeout(Some(limit.saturating_mul(hosts)));
        }
        #[expect(clippy::expect_used, reason = "build fails only where timeouts are set and the runtime is not")]
        let inner = inner.runtime(Runtime::Tokio1).build().expect("a pool with a runtime");
        Self { inner, database }
    }

    /// An idle connection, or a new one. Errors are those of [`Database::connect`].
    pub async fn get(&self) -> Result<Pooled, Error> {
        let got = self.inner.get().await;
        got.map_err(|error| {
            let reaching = self.database.inner.load();
            match (error, reaching.hosts.first()) {
                (PoolError::Backend(error), Some(config)) => self.database.connecting(config, error),
                (PoolError::Timeout(TimeoutType::Wait), _) => Error::Exhausted(PATIENCE),
                _ => Error::Silent { at: self.database.display(), after: reaching.timeout.unwrap_or(PATIENCE) },
            }
        })
    }

    /// Forgets the idle connections: after the server went away they are all dead.
    pub fn clear(&self) {
        self.inner.retain(|_, _| false);
    }
}

struct Opening {
    database: Database,
}

type Opened<'a> =
    Pin<Box<dyn Future<Output = Result<(tokio_postgres::Client, JoinHandle<()>), tokio_postgres::Error>> + Send + 'a>>;

impl Connect for Opening {
    fn connect(&self, _: &tokio_postgres::Config) -> Opened<'_> {
        Box::pin(self.open())
    }
}

impl Opening {
    /// The hosts in their order. The last one has no deadline here: the pool's own is over all of them.
    async fn open(&self) -> Result<(tokio_postgres::Client, JoinHandle<()>), tokio_postgres::Error> {
        let inner = self.database.inner.load_full();
        let mut hosts = inner.hosts.iter().peekable();
        loop {
            let mut config = hosts.next().cloned().unwrap_or_default();
            config.application_name("charliehub-provider");
            let connecting = config.connect(inner.tls.clone());
            let connected = match (inner.timeout, hosts.peek()) {
                (Some(limit), Some(_)) => match timeout(limit, connecting).await {
                    Ok(connected) => connected,
                    Err(_) => continue,
                },
                _ => connecting.await,
            };
            match connected {
                Ok((client, connection)) => {
                    #[expect(clippy::disallowed_methods, reason = "it ends with the client, which the pool owns")]
                    let driver = tokio::spawn(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "a pooled connection ended");
                        }
                    });
                    client.batch_execute(SESSION).await?;
                    return Ok((client, driver));
                }
                Err(_) if hosts.peek().is_some() => {}
                Err(error) => return Err(error),
            }
        }
    }
}
