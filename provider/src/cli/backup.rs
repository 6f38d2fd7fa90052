//! `backup` and `restore`: what a file or a pipe is for them, and what they say of it.

use std::{
    io::{IsTerminal as _, stdin, stdout},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use clap::Args;
use jiff::Timestamp;
use tokio_postgres::Client;

use super::{database, output};
use crate::{
    app::settings,
    auth,
    backup::{
        Manifest,
        files::{self, Partial},
        load::{self, Loaded, Sound, Wanted},
        take::{self, Source},
    },
    config::Config,
};

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// A file, a directory in which it gets a name by its time, or - for standard output [default: DATA_DIR/backups]
    #[arg(value_name = "FILE|DIR")]
    to: Option<PathBuf>,
    /// Of the directory's backups only so many stay, the newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    keep: Option<u16>,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// A file that `backup` made, or - for standard input
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// Also into a database that holds something: that is backed up into DATA_DIR/backups first
    #[arg(long)]
    replace: bool,
    /// Only judge the file, and say what is in it; no database is asked
    #[arg(long, conflicts_with = "replace")]
    dry_run: bool,
}

/// Where a backup goes.
enum Place {
    Output,
    File(PathBuf),
    Directory(PathBuf),
}

impl Place {
    fn of(to: Option<PathBuf>, config: &Config) -> Self {
        match to {
            None => Self::Directory(directory(config)),
            Some(path) if path.as_os_str() == "-" => Self::Output,
            Some(path) if path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/") => Self::Directory(path),
            Some(path) => Self::File(path),
        }
    }
}

fn directory(config: &Config) -> PathBuf {
    config.serve.data_dir.join("backups")
}

pub(super) async fn backup(config: &Config, wanted: Backup) -> anyhow::Result<()> {
    let (began, place) = (Instant::now(), Place::of(wanted.to, config));
    if wanted.keep.is_some() && !matches!(place, Place::Directory(_)) {
        anyhow::bail!("--keep is for a directory; name one, or leave it out");
    }
    if matches!(place, Place::Output) && stdout().is_terminal() {
        anyhow::bail!("a backup is nothing for a terminal; redirect it, or name a file");
    }
    let settings = Arc::new(settings(config, config.serve.listen));
    let (path, manifest, bytes) = database::as_it_is(config, async |opened| {
        let at = opened.database.display();
        let source = Source { database: &at, settings: &settings };
        opened.run_as_owner(async |client| to(client, source, &place).await).await
    })
    .await?;
    for one in &manifest.broken {
        output::hint(&format!("warning: the audit is not whole: {} at {}: {}", one.chain, one.place, one.why));
    }
    output::hint(&format!("{}; {bytes} bytes in {:.1} s", summary(&manifest), began.elapsed().as_secs_f64()));
    if let Some(path) = &path {
        output::hint("it is as secret as the database: keep it elsewhere too, for its owner only");
        output::print(&format!("{}\n", path.display()))?;
    }
    if let Place::Directory(directory) = &place {
        for gone in files::tidy(directory, wanted.keep.map(usize::from))? {
            output::hint(&format!("removed {}", gone.display()));
        }
    }
    Ok(())
}

async fn to(
    client: &mut Client,
    source: Source<'_>,
    place: &Place,
) -> anyhow::Result<(Option<PathBuf>, Manifest, u64)> {
    let path = match place {
        Place::Output => {
            let (manifest, _, bytes) = take::take(client, source, stdout(), Path::new("standard output")).await?;
            return Ok((None, manifest, bytes));
        }
        Place::File(path) => path.clone(),
        Place::Directory(directory) => directory.join(files::name(Timestamp::now())),
    };
    let mut partial = Partial::begin(&path)?;
    let (manifest, _, bytes) = take::take(client, source, partial.file(), &path).await?;
    partial.keep()?;
    Ok((Some(path), manifest, bytes))
}

pub(super) async fn restore(config: &Config, wanted: Restore) -> anyhow::Result<()> {
    let name = wanted.from.display().to_string();
    let sound = Sound::open(load::rewindable(&wanted.from, stdin().lock())?, &name)?;
    if wanted.dry_run {
        return Ok(output::print(&describe(&sound.manifest))?);
    }
    let settings = Arc::new(settings(config, config.serve.listen));
    let author = database::author("restore");
    let replaced = directory(config).join(files::name_of_replaced(Timestamp::now()));
    let (loaded, at, admin) = database::as_it_is(config, async |opened| {
        let at = opened.database.display();
        let source = Source { database: &at, settings: &settings };
        let replace = if wanted.replace { Some(Partial::begin(&replaced)?) } else { None };
        let loaded = opened
            .run_as_owner(async |client| {
                let wanted = Wanted { source, replace, author: &author };
                Ok(load::load(client, &sound, wanted).await?)
            })
            .await?;
        let file = config.serve.data_dir.join("admin.token");
        let token = std::fs::read_to_string(&file).unwrap_or_default();
        let admin =
            opened.run(async |client| auth::lives(client, token.trim()).await.map_err(database::explain)).await?;
        Ok((loaded, at, admin))
    })
    .await?;
    say(&sound.manifest, &loaded, &at)?;
    if !admin {
        let file = config.serve.data_dir.join("admin.token");
        output::hint(&format!(
            "{0} is none of its tokens; without another admin's: charliehub-provider token create --role admin NAME > {0}",
            file.display()
        ));
    }
    Ok(())
}

fn say(manifest: &Manifest, loaded: &Loaded, at: &str) -> anyhow::Result<()> {
    if let Some(replaced) = &loaded.replaced {
        output::hint(&format!("what was there is in {}", replaced.path().display()));
    }
    for one in &loaded.broken {
        output::hint(&format!(
            "warning: the audit was not whole when the backup was made: {} at {}: {}",
            one.chain, one.place, one.why
        ));
    }
    for table in &loaded.left_out {
        output::hint(&format!("warning: table {table} is not ours and was left out; `tar -xzf` gives its rows"));
    }
    if loaded.version > manifest.version() {
        output::hint(&format!("the schema came from version {} to {}", manifest.version(), loaded.version));
    }
    let digest = match &loaded.excuse {
        None => format!("digest {} as in the backup", loaded.digest),
        Some(why) => format!("digest {}, which is another than in the backup: {why}", loaded.digest),
    };
    Ok(output::print(&format!("restored into {at}: {}\n{digest}\n", summary(manifest)))?)
}

fn summary(manifest: &Manifest) -> String {
    let of = |table: &str| format!("{} {table}", manifest.rows(table));
    let tables = ["domains", "fragments", "sites", "policies", "peers", "tokens", "history"].map(of);
    format!(
        "revision {} of {}: {}",
        manifest.revision,
        manifest.made_at.strftime("%Y-%m-%d %H:%M:%SZ"),
        tables.join(", ")
    )
}

fn describe(manifest: &Manifest) -> String {
    let rows: Vec<Vec<String>> =
        manifest.tables.iter().map(|table| vec![table.name.clone(), table.rows.to_string()]).collect();
    format!(
        "whole: {}\nmade by {} at {} from {} (PostgreSQL {}), schema version {}\ndigest {}\n{}",
        summary(manifest),
        manifest.made_by,
        manifest.made_at,
        manifest.database,
        manifest.server,
        manifest.version(),
        manifest.digest.as_deref().unwrap_or("-"),
        output::table(&["TABLE", "ROWS"], &rows)
    )
}
