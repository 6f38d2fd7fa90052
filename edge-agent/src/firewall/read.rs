//! Reads the firewall: what is live in both iptables of the kernel, what is saved, and what a restore of that gives.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    Family,
    canonical::{Canonical, Outcome, What},
    rule::Services,
    run,
    save::{self, Backend, Ruleset},
};
use crate::config;

/// A saved file above this is not read, in bytes.
const MOST: u64 = 16 << 20;

/// One family of addresses.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) family: Family,
    pub(crate) nft: Live,
    pub(crate) legacy: Live,
    /// The iptables that is called by its plain name, and by netfilter-persistent at boot.
    pub(crate) default: Option<Backend>,
    pub(crate) file: PathBuf,
    pub(crate) saved: Saved,
}

/// What one iptables holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    /// Tables that were read whole.
    pub(crate) rules: Ruleset,
    /// Why others may be missing.
    pub(crate) cut: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum Saved {
    Missing,
    /// No table is in it.
    Empty,
    Unreadable(String),
    Refused {
        line: Option<usize>,
        /// That line.
        text: Option<String>,
        message: String,
    },
    Read {
        /// What a restore gives.
        rules: Ruleset,
        /// The file as it is written, for its lines.
        layout: Ruleset,
        /// Why the restore was not tried; then `rules` are as we read them.
        unproven: Option<String>,
    },
}

impl Side {
    pub(crate) fn live(&self, backend: Backend) -> &Live {
        match backend {
            Backend::Nft => &self.nft,
            Backend::Legacy => &self.legacy,
        }
    }

    /// The one that holds the rules; of two, the one that wrote the file.
    pub(crate) fn backend(&self) -> Backend {
        let holds = |backend| self.live(backend).rules.tables.values().any(save::Table::does_something);
        let written = match &self.saved {
            Saved::Read { layout, .. } => layout.backend,
            Saved::Missing | Saved::Empty | Saved::Unreadable(_) | Saved::Refused { .. } => None,
        };
        match (holds(Backend::Nft), holds(Backend::Legacy)) {
            (true, false) => Backend::Nft,
            (false, true) => Backend::Legacy,
            _ => written.or(self.default).unwrap_or(Backend::Nft),
        }
    }

    /// How a command of this backend is called: `iptables`, `ip6tables-legacy`.
    pub(crate) fn program(&self, backend: Backend) -> String {
        let prefix = self.family.prefix();
        if self.default == Some(backend) {
            return format!("{prefix}tables");
        }
        format!("{prefix}tables-{}", backend.as_str())
    }
}

/// The programs of a family.
#[derive(Debug)]
pub(crate) struct Programs {
    family: Family,
    nft: Option<PathBuf>,
    legacy: Option<PathBuf>,
    default: Option<Backend>,
    restore: Option<PathBuf>,
    save: Option<PathBuf>,
}

impl Programs {
    pub(crate) fn find(family: Family) -> Self {
        let find = |name: &str| run::find(&format!("{}tables{name}", family.prefix()));
        let default = find("").and_then(|program| program.canonicalize().ok());
        let default = default.and_then(|program| program.file_name().map(|name| name.to_string_lossy().into_owned()));
        let default = default.map(|name| if name.contains("nft") { Backend::Nft } else { Backend::Legacy });
        // A distribution with one iptables only has but the plain names.
        let plain = |of| find("-save").filter(|_| default == Some(of));
        Self {
            family,
            nft: find("-nft-save").or_else(|| plain(Backend::Nft)),
            legacy: find("-legacy-save").or_else(|| plain(Backend::Legacy)),
            default,
            restore: find("-restore"),
            save: find("-save"),
        }
    }

    /// What restores at boot, and prints what it restored.
    fn restoring(&self) -> Option<(&Path, &Path)> {
        Some((self.restore.as_deref()?, self.save.as_deref()?))
    }
}

pub(crate) async fn side(
    programs: &Programs,
    settings: &config::Firewall,
    services: &Services,
    canonical: &mut Canonical,
) -> Side {
    let family = programs.family;
    let file = settings.rules_dir.join(family.file());
    let live = async { (nft(programs, services).await, legacy(programs, services).await) };
    let saved = saved(&file, programs, settings, services, canonical);
    let ((nft, legacy), saved) = tokio::join!(live, saved);
    Side { family, nft, legacy, default: programs.default, file, saved }
}

async fn nft(programs: &Programs, services: &Services) -> Live {
    match &programs.nft {
        Some(program) => printed(program, services).await,
        None => Live::cut("`iptables-nft-save` is not installed".to_owned()),
    }
}

/// The kernel names the tables that its older iptables has; to ask for more would make them.
async fn legacy(programs: &Programs, services: &Services) -> Live {
    let names = format!("/proc/net/{}_tables_names", if programs.family == Family::V4 { "ip" } else { "ip6" });
    match tokio::fs::read_to_string(&names).await {
        Ok(tables) if tables.trim().is_empty() => Live::default(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Live::default(),
        Err(e) => Live::cut(format!("{names}: {e}")),
        Ok(_) => match &programs.legacy {
            Some(program) => printed(program, services).await,
            None => Live::cut("`iptables-legacy-save` is not installed, and there are legacy tables".to_owned()),
        },
    }
}

impl Live {
    fn cut(why: String) -> Self {
        Self { cut: Some(why), ..Self::default() }
    }
}

async fn printed(program: &Path, services: &Services) -> Live {
    match run::run(program, &[], b"").await {
        Err(e) => Live::cut(format!("{}: {e}", program.display())),
        Ok(said) => {
            let ended_well = said.code == Some(0);
            live(&said.output, (!ended_well).then(|| said.why()), services)
        }
    }
}

/// iptables-nft-save ends half-way, with 3, at a rule that it cannot express (measured): only tables up to their COMMIT count.
pub(crate) fn live(output: &str, failed: Option<String>, services: &Services) -> Live {
    let mut rules = save::parse(output, services);
    let mut cut = failed;
    rules.tables.retain(|name, table| {
        let is_whole = table.commit.is_some() && table.unreadable.is_none();
        if !is_whole {
            let why = table.unreadable.as_ref().map_or("it was cut short", |(_, why)| why.as_str());
            cut.get_or_insert_with(|| format!("table {name}: {why}"));
        }
        is_whole
    });
    Live { rules, cut }
}

async fn saved(
    file: &Path,
    programs: &Programs,
    settings: &config::Firewall,
    services: &Services,
    canonical: &mut Canonical,
) -> Saved {
    let text = match bounded(file).await {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Saved::Missing,
        Err(e) => return Saved::Unreadable(e.to_string()),
    };
    let layout = save::parse(&text, services);
    if layout.tables.is_empty() {
        return Saved::Empty;
    }
    let outcome = match programs.restoring() {
        Some(programs_of_boot) => {
            canonical.of(programs.family, What::File, programs_of_boot, &text, settings.restore_within).await
        }
        None => Outcome::NotPossible("`iptables-restore` is not installed".to_owned()),
    };
    match outcome {
        Outcome::Printed(printed) => Saved::Read { rules: save::parse(&printed, services), layout, unproven: None },
        Outcome::Refused { line, message } => {
            let said = line.and_then(|line| text.lines().nth(line.checked_sub(1)?)).map(str::to_owned);
            Saved::Refused { line, text: said, message }
        }
        Outcome::NotPossible(why) => by_reading(layout, why),
    }
}

/// Without a trial restore: what we read of the file, if we can read all of it.
fn by_reading(layout: Ruleset, why: String) -> Saved {
    let bad = layout.tables.iter().find_map(|(name, table)| match (&table.unreadable, table.commit) {
        (Some((line, what)), _) => Some((*line, what.clone())),
        (None, None) => Some((table.line, format!("table {name} has no COMMIT"))),
        (None, Some(_)) => None,
    });
    match bad {
        Some((line, what)) => Saved::Unreadable(format!("line {line}: {what}; a trial restore is not possible: {why}")),
        None => Saved::Read { rules: layout.clone(), layout, unproven: Some(why) },
    }
}

async fn bounded(file: &Path) -> io::Result<String> {
    use tokio::io::AsyncReadExt as _;
    let file = tokio::fs::File::open(file).await?;
    let mut text = Vec::new();
    file.take(MOST + 1).read_to_end(&mut text).await?;
    if u64::try_from(text.len()).is_ok_and(|length| length > MOST) {
        return Err(io::Error::other("it is larger than 16 MiB"));
    }
    String::from_utf8(text).map_err(|_| io::Error::other("it is not text"))
}

/// The ports' names of this machine.
pub(crate) fn services() -> Services {
    let text = std::fs::read_to_string("/etc/services").unwrap_or_default();
    let line = |line: &str| -> Option<Vec<(String, u16)>> {
        let mut words = line.split('#').next()?.split_whitespace();
        let name = words.next()?;
        let port: u16 = words.next()?.split('/').next()?.parse().ok()?;
        Some(std::iter::once(name).chain(words).map(|name| (name.to_owned(), port)).collect())
    };
    text.lines().take(20_000).filter_map(line).flatten().collect()
}

/// A rule of the policy that is not understood here, as iptables prints it. `declared` are chains that it names.
pub(crate) async fn wanted(
    programs: &Programs,
    settings: &config::Firewall,
    services: &Services,
    canonical: &mut Canonical,
    place: usize,
    (table, chain, text): (&str, &str, &str),
    declared: &[&str],
) -> Outcome {
    let chains: Vec<String> = declared.iter().map(|chain| format!(":{chain} - [0:0]\n")).collect();
    let file = format!("*{table}\n{}-A {chain} {text}\nCOMMIT\n", chains.concat());
    let Some(restoring) = programs.restoring() else {
        return Outcome::NotPossible("`iptables-restore` is not installed".to_owned());
    };
    match canonical.of(programs.family, What::Wanted(place), restoring, &file, settings.restore_within).await {
        Outcome::Printed(printed) => {
            let read = save::parse(&printed, services);
            let rules = read.tables.get(table).map_or(&[][..], |table| table.rules(chain));
            Outcome::Printed(rules.iter().map(|rule| rule.line() + "\n").collect())
        }
        other @ (Outcome::Refused { .. } | Outcome::NotPossible(_)) => other,
    }
}
