//! `domains`: rows are listed and changed by the API of a provider, which may be elsewhere.
//!
//! Arguments become requests in [`request`], answers become text in [`text`]; both are pure. A row is found by its name or
//! its id and read before it is changed, so that a change is made to what was read (`If-Match`), or not at all.

mod api;
mod request;
mod text;

use charliehub_proto::{change::WrittenDomain, domain::Domain};
use clap::{Args, Subcommand};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub(super) use self::{
    api::{Api, Flags, Refused},
    request::Ask,
};
use self::{
    request::{Add, List, Remove, Set},
    text::Deed,
};
use super::output;
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct Domains {
    #[command(flatten)]
    flags: Flags,
    /// Print what the API answers, as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List rows
    ///
    /// Example: charliehub-provider domains list --status active --q grafana
    List(List),
    /// Make a row
    ///
    /// Example: charliehub-provider domains add new.example.org --backend 10.0.0.7:8080 --tier internal --auth
    Add(Add),
    /// Change fields of a row
    ///
    /// Example: charliehub-provider domains set new.example.org status=maintenance priority=7 owner=
    Set(Set),
    /// Remove a row
    ///
    /// Example: charliehub-provider domains rm new.example.org/admin --dry-run
    Rm(Remove),
}

pub(super) async fn run(config: &Config, domains: Domains) -> anyhow::Result<()> {
    let Domains { flags, json, command } = domains;
    let api = Api::of(config, flags)?;
    let done = match command {
        Command::List(list) => show(&api, &list, json).await,
        Command::Add(add) => write(&api, &add.ask(), Deed::Add, json).await,
        Command::Set(set) => match api.find(&set.wanted).await {
            Ok(row) => write(&api, &set.ask(&row), Deed::Change, json).await,
            Err(error) => Err(error),
        },
        Command::Rm(remove) => match api.find(&remove.wanted).await {
            Ok(row) => write(&api, &remove.ask(&row), Deed::Remove, json).await,
            Err(error) => Err(error),
        },
    };
    if json && let Some(Refused(problem)) = done.as_ref().err().and_then(anyhow::Error::downcast_ref) {
        print_json(problem)?;
    }
    done
}

async fn show(api: &Api, list: &List, json: bool) -> anyhow::Result<()> {
    let (rows, more) = api.list(list).await?;
    if json {
        print_json(&rows)?;
    } else {
        let rows = rows.into_iter().map(decoded).collect::<anyhow::Result<Vec<Domain>>>()?;
        output::print(&text::table(&rows))?;
    }
    if more {
        output::hint("there are more; ask for them with a larger --limit, or for all without it");
    }
    Ok(())
}

async fn write(api: &Api, ask: &Ask, deed: Deed, json: bool) -> anyhow::Result<()> {
    let answer: Value = api.send(ask).await?;
    if json {
        return print_json(&answer);
    }
    let written: WrittenDomain = decoded(answer)?;
    Ok(output::print(&text::written(deed, &written))?)
}

fn print_json(what: &impl Serialize) -> anyhow::Result<()> {
    Ok(output::print(&(serde_json::to_string_pretty(what)? + "\n"))?)
}

/// An answer as the type that it should be.
pub(super) fn decoded<T: DeserializeOwned>(answer: Value) -> anyhow::Result<T> {
    serde_json::from_value(answer).map_err(|error| {
        anyhow::anyhow!("the provider answers what this build cannot read ({error}); use one of its version, or --json")
    })
}
