//! `apply`: the peers of interfaces, by the same plan as the running agent makes, beside it or without it.

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

use anyhow::{anyhow, bail};
use charliehub_proto::expected::Expected;
use futures_util::future::join_all;
use serde::Serialize;

use super::print;
use crate::{
    act::{
        peers::{
            PATIENCE, hands, held_by_operator, is_silent,
            managers::managers,
            plan::{Plan, Step, plan},
            resolve,
            rows::{self, Rows},
            told::list,
        },
        right::Obstacle,
        rotate,
    },
    clock::Clock,
    config::{Config, Mode},
    expect,
    provider::look_up,
    wireguard::facts::Device,
};

#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) dry_run: bool,
    pub(super) force: bool,
    pub(super) json: bool,
}

/// Of one interface.
#[derive(Debug, Serialize)]
struct Applied {
    interface: String,
    changes: Vec<Change>,
    /// What the rows say and is not done without `--force`.
    refused: Vec<String>,
    /// What else keeps a peer from being as its row says.
    notes: Vec<String>,
    /// The changes were made, and read back.
    is_done: bool,
}

/// Of one peer.
#[derive(Debug, Serialize)]
struct Change {
    /// `+`, `-` or `~`.
    sign: char,
    /// Of the site or of the client; none of a peer that no row has.
    peer: Option<String>,
    public_key: String,
    text: String,
    #[serde(skip)]
    line: String,
}

pub(super) async fn run(config: &Config, interface: Option<&str>, how: How) -> anyhow::Result<ExitCode> {
    let expected = expect::merge(expect::held(config).unwrap_or_default(), config);
    let named = config.act.peers.iter().filter(|one| one.mode != Mode::Off).map(|one| one.interface.clone());
    let interfaces: Vec<String> = interface.map_or_else(|| named.collect(), |one| vec![one.to_owned()]);
    if interfaces.is_empty() {
        bail!("[[act.peers]] names no interface; name one: {}", rows::interfaces(&expected).join(", "));
    }
    let (mut all, mut kept_from) = (Vec::new(), Vec::new());
    for interface in interfaces {
        match apply(config, &expected, interface, how).await {
            Ok(applied) => all.push(applied),
            Err(why) => kept_from.push(format!("{why:#}")),
        }
    }
    if how.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
    } else {
        print(&all.iter().map(text).collect::<String>())?;
    }
    if !how.dry_run {
        let refused = all.iter().filter(|one| !one.refused.is_empty());
        kept_from.extend(refused.map(|one| format!("{}: {}; --force does it", one.interface, one.refused.join("; "))));
    }
    if !kept_from.is_empty() {
        bail!("{}", kept_from.join("\n"));
    }
    let differs = how.dry_run && all.iter().any(|one| !one.changes.is_empty() || !one.refused.is_empty());
    Ok(ExitCode::from(u8::from(differs)))
}

async fn apply(config: &Config, expected: &Expected, interface: String, how: How) -> anyhow::Result<Applied> {
    let refuse = |obstacle: Obstacle| anyhow!("{interface}: {obstacle}");
    let sockets = &config.wireguard.sockets;
    let mut rows = rows::of(expected, config.provider.is_some(), &interface).map_err(refuse)?;
    let device = hands::look(sockets, &interface).await.map_err(refuse)?;
    let lost = resolve_names(&mut rows, &device).await;
    let managers = if how.force {
        Vec::new()
    } else {
        let provider = match &config.provider {
            Some(settings) => look_up(&settings.url, PATIENCE).await,
            None => Vec::new(),
        };
        managers(&config.act, &provider).await.map_err(refuse)?
    };
    let now = Clock::default().now();
    let planned = |device: &Device| plan(&rows.wants, device, &managers, |peer| is_silent(peer, now));
    let mut steps = planned(&device);
    let mut refused: Vec<String> = steps.guarded.iter().cloned().collect();
    if !how.force && rows.would_empty(&device) {
        refused.push(format!("no row is left for {}", hands::count(device.peers.len())));
        steps = Plan::default();
    }
    if !how.force
        && !how.dry_run
        && let Some(file) = held_by_operator(&config.act, &interface, &rows)
    {
        bail!("{interface}: {file} holds it: rm it when it may go on, or --force");
    }
    if !how.dry_run {
        rotate::is_over(config, &interface).map_err(refuse)?;
    }
    let changes: Vec<Change> = steps.steps.iter().zip(steps.lines()).map(change).collect();
    let is_done = !how.dry_run && !changes.is_empty();
    if is_done {
        let done = hands::carry_out(sockets, &interface, &steps, planned).await;
        done.map_err(|failed| anyhow!("{interface}: {}; meant was: {}", failed.why, steps.brief()))?;
    }
    let mut notes: Vec<String> = lost.iter().map(|(name, why)| format!("{name} cannot be resolved: {why}")).collect();
    if !steps.disputed.is_empty() {
        notes.push(format!("the rows give {} to several peers: they stay where they are", list(&steps.disputed)));
    }
    Ok(Applied { interface, changes, refused, notes, is_done })
}

fn change((step, line): (&Step, String)) -> Change {
    Change { sign: step.sign(), peer: step.name.clone(), public_key: step.key.to_string(), text: step.rest(), line }
}

/// Finds the addresses of the names that peers are called by; those that were not found, and why.
async fn resolve_names(rows: &mut Rows, device: &Device) -> BTreeMap<String, String> {
    let names: Vec<String> = rows.wanted_names(device).into_iter().cloned().collect();
    let all = join_all(names.into_iter().map(async |name| {
        let found = resolve(&name).await;
        (name, found)
    }));
    let (mut found, mut lost) = (BTreeMap::new(), BTreeMap::new());
    for (name, answer) in all.await {
        match answer {
            Ok(address) => drop(found.insert(name, address)),
            Err(error) => drop(lost.insert(name, error.to_string())),
        }
    }
    rows.resolve(&found);
    lost
}

fn text(applied: &Applied) -> String {
    let Applied { interface, changes, refused, notes, is_done } = applied;
    let head = match (changes.len(), *is_done) {
        (0, _) if refused.is_empty() => "nothing differs".to_owned(),
        (0, _) => "nothing is changed".to_owned(),
        (many, true) => format!("{} changed, and read back", hands::count(many)),
        (many, false) => format!("{} would change", hands::count(many)),
    };
    let mut text = format!("{interface}: {head}\n");
    for change in changes {
        let _ = writeln!(text, "  {}", change.line);
    }
    for one in refused.iter().chain(notes) {
        let _ = writeln!(text, "  ! {one}");
    }
    text
}
