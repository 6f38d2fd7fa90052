//! Brings a backup back: judged first, then everything in one transaction.
//!
//! In order: the file's seal, its entries and its manifest, before the database is touched. Then a lock that keeps everybody
//! out, the question whether anything would be lost, a backup of that where it was asked for; the schema of then, its tables
//! emptied and filled with their triggers off; each table read back and compared; the steps to the schema of now; digest
//! and audit. Who is killed before the commit has changed nothing.
//!
//! Revisions come back with their tokens, so a provider that runs finds by them that it is on a fork; it is told at once.

use std::{collections::BTreeMap, fs::File, path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::SinkExt as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_postgres::{Client, GenericClient, Transaction, error::SqlState, types::Type};

use super::{
    Error, MANIFEST, Manifest, PROGRAM, SETTINGS,
    archive::{self, Entries},
    files::Partial,
    fingerprint, list,
    manifest::Table,
    quoted,
    take::{self, Source},
};
use crate::{audit, author::Author, compile::Settings, postgres::migrate, snapshot::encode::hex};

/// A file that was found whole, and to be a backup that this build can restore.
#[derive(Debug)]
pub struct Sound {
    file: File,
    name: String,
    pub manifest: Manifest,
}

impl Sound {
    /// Reads all of the file; `name` is what it is called in errors.
    pub fn open(mut file: File, name: &str) -> Result<Self, Error> {
        let failed = |source| Error::Archive { name: name.to_owned(), source };
        let odd = |what: String| Error::Odd { name: name.to_owned(), what };
        archive::verify(&mut file).map_err(failed)?;
        let mut entries = Entries::of(&file).map_err(failed)?;
        let mut found: BTreeMap<String, (u64, Sha256)> = BTreeMap::new();
        let mut manifest = None;
        while let Some((entry, content)) = entries.read().map_err(failed)? {
            if let Some(table) = table_of(&entry) {
                let (rows, sum) = found.entry(table.to_owned()).or_default();
                *rows += content.split(|byte| *byte == b'\n').skip(1).count() as u64;
                sum.update(&content);
            } else if entry == MANIFEST {
                manifest = Some(serde_json::from_slice(&content).map_err(|error| odd(format!("{entry}: {error}")))?);
            }
        }
        let manifest: Manifest = manifest.ok_or_else(|| odd("it has no manifest".to_owned()))?;
        for table in &manifest.tables {
            let (rows, sum) = found.remove(&table.name).unwrap_or_default();
            if (rows, hex(&sum.finalize())) != (table.rows, table.sha256.clone()) {
                return Err(odd(format!("table {} is not what its manifest says", table.name)));
            }
        }
        if let Some((table, _)) = found.pop_first() {
            return Err(odd(format!("its manifest does not know table {table}")));
        }
        known(&manifest)?;
        Ok(Self { file, name: name.to_owned(), manifest })
    }

    /// The pieces of all tables, in order: table and rows.
    fn pieces(&self) -> Result<Pieces, Error> {
        let failed = |source| Error::Archive { name: self.name.clone(), source };
        Ok(Pieces { entries: Entries::of(&self.file).map_err(failed)?, name: self.name.clone() })
    }
}

/// `tables/domains.000001.copy` -> `domains`.
fn table_of(entry: &str) -> Option<&str> {
    let (table, number) = entry.strip_prefix("tables/")?.strip_suffix(".copy")?.rsplit_once('.')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(table)
}

struct Pieces {
    entries: Entries,
    name: String,
}

impl Pieces {
    fn read(&mut self) -> Result<Option<(String, Vec<u8>)>, Error> {
        loop {
            let failed = |source| Error::Archive { name: self.name.clone(), source };
            let Some((entry, content)) = self.entries.read().map_err(failed)? else { return Ok(None) };
            if let Some(table) = table_of(&entry) {
                return Ok(Some((table.to_owned(), content)));
            }
        }
    }
}

/// This build has the migrations that the backup was made with.
fn known(manifest: &Manifest) -> Result<(), Error> {
    let by = || manifest.made_by.clone();
    if manifest.version() > migrate::newest() {
        return Err(Error::Newer { made: manifest.version(), known: migrate::newest(), by: by() });
    }
    for (version, name, sha256) in migrate::files().filter(|(version, ..)| *version <= manifest.version()) {
        let same = |one: &&super::manifest::Migration| one.version == version && one.sha256 == hex(&sha256);
        if manifest.migrations.iter().find(same).is_none() {
            return Err(Error::OtherMigration(name.to_owned(), by()));
        }
    }
    Ok(())
}

/// How it is to be brought back.
#[derive(Debug)]
pub struct Wanted<'w> {
    pub source: Source<'w>,
    /// Where what is there goes to, when it may be replaced.
    pub replace: Option<Partial>,
    pub author: &'w Author,
}

/// What was done, beside what the manifest says.
#[derive(Debug)]
pub struct Loaded {
    /// The schema's version now.
    pub version: i32,
    pub digest: String,
    /// Why the digest may be another than the manifest's.
    pub excuse: Option<String>,
    /// What the audit does not hold, and did not when the backup was made.
    pub broken: Vec<audit::Broken>,
    /// Tables of the backup that the schema has not.
    pub left_out: Vec<String>,
    /// What was there, as it is on disk now.
    pub replaced: Option<Partial>,
}

/// Brings `sound` back. On an error nothing was changed.
pub async fn load(client: &mut Client, sound: &Sound, wanted: Wanted<'_>) -> Result<Loaded, Error> {
    let Wanted { source, mut replace, author } = wanted;
    let manifest = &sound.manifest;
    let transaction = client.transaction().await?;
    transaction.batch_execute(SETTINGS).await?;
    migrate::within(&transaction, 0).await?; // its lock alone: nobody migrates meanwhile
    transaction.batch_execute(SETTINGS).await?;
    let there = take::tables(&transaction).await?;
    if there.is_empty() {
        replace = None;
    } else {
        lock(&transaction, &there).await?;
        if let Some(what) = contents(&transaction, &there).await? {
            let Some(partial) = &mut replace else {
                return Err(Error::NotEmpty { database: source.database.to_owned(), what });
            };
            let path = partial.path().to_owned();
            take::write(&transaction, source, partial.file(), &path).await?;
            partial.keep()?;
        } else {
            replace = None;
        }
        if version(&transaction).await? > manifest.version() {
            // There is no way down: what a newer build made here goes, and is made again as it was.
            transaction.batch_execute("DROP SCHEMA charliehub CASCADE").await?;
        }
    }
    migrate::within(&transaction, manifest.version()).await?;
    transaction.batch_execute(SETTINGS).await?;
    let left_out = fill(&transaction, sound).await?;
    migrate::within(&transaction, migrate::newest()).await?;
    transaction.batch_execute(SETTINGS).await?;

    let digest = take::digest(&transaction, source.settings).await?;
    let excuse = excuse(manifest, &digest, source.settings)?;
    let broken = audit::broken(&transaction).await?;
    if let Some(one) = broken.iter().find(|one| !manifest.broken.contains(one)) {
        return Err(Error::Broken(format!("{} at {}: {}", one.chain, one.place, one.why)));
    }
    tell(&transaction, manifest, author).await?;
    transaction.commit().await?;
    Ok(Loaded { version: migrate::newest(), digest, excuse, broken, left_out, replaced: replace })
}

/// Keeps everybody out of `tables`, readers too: they may be about to write, and who already holds a weaker lock could not take
/// this one without a deadlock with them. Sessions that lock in another order than we do go first.
async fn lock(transaction: &Transaction<'_>, tables: &[String]) -> Result<(), Error> {
    let names: Vec<String> = tables.iter().map(|name| format!("charliehub.{}", quoted(name))).collect();
    let lock = format!("SAVEPOINT before_locks; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", names.join(", "));
    loop {
        match transaction.batch_execute(&lock).await {
            Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => {
                transaction.batch_execute("ROLLBACK TO before_locks").await?;
            }
            other => return Ok(other?),
        }
    }
}

/// The version of a schema that is there.
async fn version(client: &impl GenericClient) -> Result<i32, Error> {
    const APPLIED: &str = "SELECT coalesce(max(version), 0) FROM charliehub.schema_migrations";
    Ok(client.query_typed_one(APPLIED, &[]).await?.try_get(0)?)
}

/// What would be lost; nothing of what a first start makes by itself.
async fn contents(client: &impl GenericClient, tables: &[String]) -> Result<Option<String>, Error> {
    let mut found = Vec::new();
    for (table, own) in [
        ("domains", "true"),
        (
            "fragments",
            "(kind, name) <> ('tls.store', 'default') OR notes IS NULL OR notes !~ '^Made by charliehub-provider'",
        ),
        ("sites", "true"),
        ("policies", "true"),
        ("peers", "true"),
        ("tokens", "name <> 'first admin'"),
    ] {
        if !tables.iter().any(|name| name == table) {
            continue;
        }
        let sql = format!("SELECT count(*) FROM charliehub.{table} WHERE {own}");
        let count: i64 = client.query_typed_one(&sql, &[]).await?.try_get(0)?;
        if count > 0 {
            found.push(format!("{count} {table}"));
        }
    }
    if found.is_empty() {
        let revision = crate::store::read::newest_revision(client).await?.revision;
        if revision > 1 {
            found.push(format!("{revision} revisions"));
        }
    }
    Ok(Some(found.join(", ")).filter(|text| !text.is_empty()))
}

/// Empties the tables and fills them, with their triggers off; then reads them back. What the schema has not is left out.
async fn fill(transaction: &Transaction<'_>, sound: &Sound) -> Result<Vec<String>, Error> {
    let there = take::tables(transaction).await?;
    let (tables, left_out): (Vec<&Table>, Vec<&Table>) =
        sound.manifest.tables.iter().partition(|table| there.contains(&table.name));
    let names: Vec<String> = tables.iter().map(|table| table.name.clone()).collect();
    let triggers = triggers(transaction, &names).await?;
    let each = |words: &dyn Fn(&(String, String, &'static str)) -> String| -> String {
        triggers.iter().map(words).collect::<Vec<_>>().concat()
    };
    let off = each(&|(table, trigger, _)| {
        format!("ALTER TABLE charliehub.{} DISABLE TRIGGER {};", quoted(table), quoted(trigger))
    });
    transaction.batch_execute(&off).await?;
    let all: Vec<String> = names.iter().map(|name| format!("charliehub.{}", quoted(name))).collect();
    transaction.batch_execute(&format!("TRUNCATE {}", all.join(", "))).await?;

    let mut pieces = sound.pieces()?;
    let mut next = pieces.read()?;
    while let Some((name, content)) = next {
        let Some(table) = tables.iter().find(|table| table.name == name) else {
            next = pieces.read()?;
            continue;
        };
        let sql = format!("COPY charliehub.{} ({}) FROM STDIN", quoted(&table.name), list(&table.columns));
        let mut sink = Box::pin(transaction.copy_in(&sql).await?);
        sink.send(Bytes::from(content)).await?;
        loop {
            next = pieces.read()?;
            match next.take_if(|(same, _)| *same == name) {
                Some((_, more)) => sink.send(Bytes::from(more)).await?,
                None => break,
            }
        }
        sink.as_mut().finish().await?;
    }
    for sequence in &sound.manifest.sequences {
        const SET: &str = "SELECT setval(c.oid, $2) FROM pg_class c
            WHERE c.relnamespace = 'charliehub'::regnamespace AND c.relkind = 'S' AND c.relname = $1";
        transaction.query_typed(SET, &[(&sequence.name, Type::TEXT), (&sequence.last_value, Type::INT8)]).await?;
    }
    let on = each(&|(table, trigger, how)| {
        format!("ALTER TABLE charliehub.{} {how} TRIGGER {};", quoted(table), quoted(trigger))
    });
    transaction.batch_execute(&on).await?;

    for table in tables {
        let (rows, sha256) = take::copy_out(transaction, &table.name, &table.columns, &mut |_| Ok(())).await?;
        if (rows, &sha256) != (table.rows, &table.sha256) {
            return Err(Error::Differs(table.name.clone()));
        }
    }
    Ok(left_out.into_iter().map(|table| table.name.clone()).collect())
}

/// Table, trigger, and how to turn it on again as it is now.
async fn triggers(
    client: &impl GenericClient,
    tables: &[String],
) -> Result<Vec<(String, String, &'static str)>, Error> {
    const TRIGGERS: &str = "SELECT c.relname::text, t.tgname::text, t.tgenabled::text
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
       WHERE c.relnamespace = 'charliehub'::regnamespace AND c.relname = ANY($1)
         AND NOT t.tgisinternal AND t.tgenabled <> 'D' ORDER BY 1, 2";
    let rows = client.query_typed(TRIGGERS, &[(&tables, Type::TEXT_ARRAY)]).await?;
    let one = |row: &tokio_postgres::Row| -> Result<_, tokio_postgres::Error> {
        let how = match row.try_get(2)? {
            "A" => "ENABLE ALWAYS",
            "R" => "ENABLE REPLICA",
            _ => "ENABLE",
        };
        Ok((row.try_get(0)?, row.try_get(1)?, how))
    };
    Ok(rows.iter().map(one).collect::<Result<_, _>>()?)
}

/// Nothing when the digest is that of the manifest; why it may differ when it does.
fn excuse(manifest: &Manifest, found: &str, settings: &Arc<Settings>) -> Result<Option<String>, Error> {
    let Some(wanted) = manifest.digest.as_deref() else {
        return Ok(Some("the backup was made at an older schema, and says none".to_owned()));
    };
    if found == wanted {
        return Ok(None);
    }
    if manifest.settings != fingerprint(settings) {
        return Ok(Some("[compile] or [access] of the configuration here is not what it was there".to_owned()));
    }
    if manifest.made_by != PROGRAM || manifest.version() != migrate::newest() {
        return Ok(Some(format!("{} compiled it, and this is {PROGRAM}", manifest.made_by)));
    }
    Err(Error::OtherDigest { found: found.to_owned(), wanted: wanted.to_owned() })
}

/// Writes it down, and tells the providers that run.
async fn tell(transaction: &Transaction<'_>, manifest: &Manifest, author: &Author) -> Result<(), Error> {
    const NOTIFY: &str = "SELECT pg_notify('charliehub_tokens', ''),
        pg_notify('charliehub_revision', format('{\"r\":%s,\"t\":\"%s\"}', n, token)) FROM charliehub.revision";
    let detail = json!({
        "made_at": manifest.made_at,
        "made_by": manifest.made_by,
        "revision": manifest.revision,
        "digest": manifest.digest,
    });
    author.note(transaction, "restore", &detail).await?;
    transaction.query_typed(NOTIFY, &[]).await?;
    Ok(())
}

/// Where a backup may be read twice from: itself, or what came from standard input, on disk without a name.
pub fn rewindable(path: &Path, mut input: impl std::io::Read) -> Result<File, Error> {
    if path.as_os_str() != "-" {
        return File::open(path).map_err(Error::io(path));
    }
    let mut file = tempfile::tempfile().map_err(Error::io(&std::env::temp_dir()))?;
    std::io::copy(&mut input, &mut file).map_err(Error::io(path))?;
    Ok(file)
}
