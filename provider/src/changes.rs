//! Writes a line for each change of the rows to `changes.log`, for people and for programs that read logs.
//!
//! Behind the swap, in the order of the revisions, each once. The file is opened anew for each batch and only appended to,
//! so a rotated log is left alone. After a restart it goes on behind the last line, or, when the log was rotated away
//! meanwhile, behind the position that is kept beside the data.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Notify, task::spawn_blocking, time::sleep};
use tokio_postgres::{GenericClient, types::Type};
use tokio_util::sync::CancellationToken;

use crate::postgres::{self, Pool};

/// Traefik's reload needs the processor first, and changes come in bursts.
const SETTLE: Duration = Duration::from_millis(100);
const AGAIN: Duration = Duration::from_secs(5);
/// Revisions in one batch, and names in one line.
const BATCH: i64 = 500;
const NAMES: i32 = 20;
/// The last line is looked for in so many bytes.
const TAIL: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path} cannot be written: {source}; check its owner and the space on its disk, or set `log.changes_file`")]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Database(#[from] postgres::Error),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// The log of one provider.
#[derive(Clone, Debug)]
pub struct Changes {
    file: PathBuf,
    position: PathBuf,
}

impl Changes {
    pub fn new(file: PathBuf, data_dir: &Path) -> Self {
        Self { file, position: data_dir.join("changes.position") }
    }

    /// Writes what is new each time that `heard` is told, until `stop`.
    pub async fn follow(self, pool: Pool, heard: Arc<Notify>, stop: CancellationToken) {
        let mut failing = false;
        loop {
            match self.write_new(&pool).await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "the log of changes waits; nothing of it is lost");
                    }
                    failing = true;
                }
            }
            let again = async { if failing { sleep(AGAIN).await } else { std::future::pending().await } };
            tokio::select! {
                () = async { heard.notified().await; sleep(SETTLE).await } => {}
                () = again => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn write_new(&self, pool: &Pool) -> Result<(), Error> {
        loop {
            let mut last = self.blocking(Self::last).await?;
            let client = pool.get().await?;
            let newest = newest(&**client).await?;
            if newest < last {
                tracing::warn!(last, newest, "the database is on a fork: the log of changes goes on behind its newest");
                last = newest;
                self.blocking(move |changes| fs::write(&changes.position, format!("fork {last}\n"))).await?;
            }
            let (lines, reached) = lines(&**client, last).await?;
            drop(client);
            if lines.is_empty() {
                return Ok(());
            }
            self.blocking(move |changes| changes.append(&lines, reached)).await?;
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let changes = self.clone();
        let done = spawn_blocking(move || work(&changes)).await.map_err(io::Error::other).and_then(|done| done);
        done.map_err(|source| Error::File { path: self.file.clone(), source })
    }

    /// The last revision that has a line.
    fn last(&self) -> io::Result<i64> {
        let kept = or_empty(fs::read_to_string(&self.position))?;
        if let Some(fork) = kept.trim().strip_prefix("fork ") {
            return Ok(fork.parse().unwrap_or_default());
        }
        let mut tail = Vec::new();
        match File::open(&self.file) {
            Ok(mut file) => {
                let length = file.metadata()?.len();
                file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
                file.read_to_end(&mut tail)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let tail = String::from_utf8_lossy(&tail);
        // What has no newline was cut off, and is written again.
        let whole = tail.rfind('\n').and_then(|end| tail.get(..end)).unwrap_or_default();
        let written = whole.lines().rev().find_map(revision_of).unwrap_or_default();
        Ok(written.max(kept.trim().parse().unwrap_or_default()))
    }

    fn append(&self, lines: &str, reached: i64) -> io::Result<()> {
        let mut file = File::options().append(true).create(true).read(true).mode(0o600).open(&self.file)?;
        let cut_off = file.metadata()?.len() > 0 && {
            let mut end = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut end)?;
            end != *b"\n"
        };
        let lines = if cut_off { format!("\n{lines}") } else { lines.to_owned() };
        file.write_all(lines.as_bytes())?;
        fs::write(&self.position, format!("{reached}\n"))
    }
}

fn or_empty(read: io::Result<String>) -> io::Result<String> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

fn revision_of(line: &str) -> Option<i64> {
    line.split(' ').nth(1)?.strip_prefix("revision=")?.parse().ok()
}

async fn newest(client: &impl GenericClient) -> Result<i64, tokio_postgres::Error> {
    client.query_one("SELECT n FROM revision", &[]).await?.try_get(0)
}

/// The lines of the next revisions behind `last`, and the last of these.
async fn lines(client: &impl GenericClient, last: i64) -> Result<(String, i64), tokio_postgres::Error> {
    let sql = "SELECT r.revision, ch_utc(r.at), r.actor, r.source, coalesce(r.address, '-'),
                      CASE h.op WHEN 'I' THEN 'insert' WHEN 'U' THEN 'update' WHEN 'D' THEN 'delete' WHEN 'T' THEN 'truncate' END,
                      count(h.seq), (array_agg(x.name ORDER BY x.name))[1:$3]
                 FROM (SELECT * FROM revisions WHERE revision > $1 ORDER BY revision LIMIT $2) r
                 LEFT JOIN history h USING (revision)
                CROSS JOIN LATERAL (SELECT ch_row_name(h.tbl, coalesce(h.new, h.old)) AS name) x
                GROUP BY r.revision, r.at, r.actor, r.source, r.address, h.op ORDER BY r.revision, h.op";
    let rows = client.query_typed(sql, &[(&last, Type::INT8), (&BATCH, Type::INT8), (&NAMES, Type::INT4)]).await?;
    let (mut text, mut reached) = (String::new(), last);
    for row in rows {
        let revision: i64 = row.try_get(0)?;
        if revision != reached {
            if !text.is_empty() {
                text.push('\n');
            }
            let (at, actor, source, address): (&str, &str, &str, &str) =
                (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
            // `Debug` quotes: what somebody calls himself makes no line of its own.
            let _ = write!(text, "{at} revision={revision} actor={actor:?} source={source:?} address={address:?}");
            reached = revision;
        }
        if let Some(op) = row.try_get::<_, Option<&str>>(5)? {
            let (count, names): (i64, Vec<Option<&str>>) = (row.try_get(6)?, row.try_get(7)?);
            let more = count - i64::try_from(names.len()).unwrap_or_default();
            let names: Vec<&str> = names.into_iter().map(Option::unwrap_or_default).collect();
            let _ = write!(text, " {op}={}", names.join(","));
            if more > 0 {
                let _ = write!(text, ",+{more}");
            }
        }
    }
    if !text.is_empty() {
        text.push('\n');
    }
    Ok((text, reached))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::tests::cluster::Cluster;

    fn revisions(text: &str) -> Vec<i64> {
        text.lines().map(|line| revision_of(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn each_revision_has_one_line_across_restarts_rotation_and_a_write_that_was_cut_off() {
        let (cluster, client) = Cluster::migrated().await;
        let pool = cluster.database("owner", "test").pool(1);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("changes.log");
        let insert = |name: &'static str| {
            let sql = format!("INSERT INTO domains (domain, backend_host, backend_port) VALUES ('{name}', 'h', 1)");
            let client = &client;
            async move { client.batch_execute(&sql).await.unwrap() }
        };
        let write = || async { Changes::new(path.clone(), directory.path()).write_new(&pool).await.unwrap() };
        let text = || fs::read_to_string(&path).unwrap();

        client.batch_execute("SET charliehub.actor = 'a\" b'").await.unwrap();
        insert("a.test").await;
        insert("b.test").await;
        write().await;
        write().await;
        assert_eq!(revisions(&text()), [1, 2]);
        let line = text();
        let line = line.lines().next().unwrap();
        assert!(line.contains(r#" revision=1 actor="a\" b" source="sql" address="-" insert=a.test"#), "{line}");

        fs::rename(&path, directory.path().join("changes.log.1")).unwrap();
        client
            .batch_execute("BEGIN; UPDATE domains SET notes = 'x'; DELETE FROM domains WHERE domain = 'a.test'; COMMIT")
            .await
            .unwrap();
        write().await;
        assert_eq!(revisions(&text()), [3], "rotated: not again, and nothing is missing");
        assert!(text().contains(" delete=a.test update=a.test,b.test\n"), "{}", text());

        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"2026-11-24T18 revision=9").unwrap();
        insert("c.test").await;
        write().await;
        assert_eq!(text().lines().filter_map(revision_of).collect::<Vec<_>>(), [3, 9, 4], "{}", text());

        fs::remove_file(directory.path().join("changes.position")).unwrap();
        write().await;
        assert!(text().ends_with("insert=c.test\n") && text().matches("revision=4 ").count() == 1, "by the last line");
    }

    #[tokio::test]
    async fn many_names_are_counted_and_a_fork_is_followed() {
        let (cluster, client) = Cluster::migrated().await;
        let pool = cluster.database("owner", "test").pool(1);
        let directory = tempfile::tempdir().unwrap();
        let changes = Changes::new(directory.path().join("changes.log"), directory.path());
        client
            .batch_execute("INSERT INTO domains (domain, backend_host, backend_port) SELECT 'n' || n || '.test', 'h', 1 FROM generate_series(1, 25) n")
            .await
            .unwrap();
        fs::write(&changes.position, "40\n").unwrap();
        changes.write_new(&pool).await.unwrap();
        assert!(!changes.file.exists(), "40 was on another branch");
        client.batch_execute("UPDATE domains SET notes = 'x'").await.unwrap();
        changes.write_new(&pool).await.unwrap();
        let text = fs::read_to_string(&changes.file).unwrap();
        assert!(text.contains("revision=2 ") && text.ends_with(",+5\n"), "{text}");
    }
}
