//! `sites` and `agents`: what lies behind the hub, and who watches it, by the API of a provider, which may be elsewhere.

use std::{fs, io::Read as _, path::PathBuf};

use anyhow::Context as _;
use charliehub_proto::{
    agent::AgentStatus,
    change::{Change, ChangeState},
    finding::Status,
    site::{Site, SiteRow},
};
use clap::{Args, Subcommand};
use http::{HeaderValue, Method};
use serde_json::{Map, Value};

use super::{
    domains::{Api, Ask, Flags, decoded},
    output,
};
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct Sites {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: SitesCommand,
}

#[derive(Debug, Subcommand)]
enum SitesCommand {
    /// List the sites
    List {
        /// As GET /api/sites
        #[arg(long)]
        json: bool,
    },
    /// Make a site, or replace it
    ///
    /// FILE holds it as JSON, in the form of `sites list --json` without id, version and times; `-` is the standard input.
    Set {
        file: PathBuf,
        #[command(flatten)]
        writing: Writing,
    },
    /// Remove a site: its networks are not internal any more, at once
    Rm {
        name: String,
        #[command(flatten)]
        writing: Writing,
    },
}

#[derive(Debug, Args)]
pub(super) struct Agents {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: AgentsCommand,
}

#[derive(Debug, Subcommand)]
enum AgentsCommand {
    /// List the agents, and what is not as it should be
    List {
        /// As GET /api/agents
        #[arg(long)]
        json: bool,
    },
    /// Forget an agent that is no more, and what it reported
    Rm { name: String },
    /// Print what an agent holds reality against, as JSON
    Expected { name: String },
    /// Print what an agent's host must have, as JSON; or set it
    Policy {
        name: String,
        #[command(subcommand)]
        set: Option<Policy>,
    },
}

#[derive(Debug, Subcommand)]
enum Policy {
    /// Replace it by FILE, in the form that is printed; `-` is the standard input
    Set {
        file: PathBuf,
        #[command(flatten)]
        writing: Writing,
    },
}

#[derive(Debug, Args)]
pub(super) struct Writing {
    /// Only say whether it could be written
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<HeaderValue>,
}

impl Writing {
    pub(super) fn ask(&self, method: Method, path: &str, body: Option<Map<String, Value>>) -> Ask {
        let query = if self.dry_run { "?dry_run=true" } else { "" };
        Ask::write(method, format!("{path}{query}"), self.reason.clone(), body)
    }
}

pub(super) async fn sites(config: &Config, sites: Sites) -> anyhow::Result<()> {
    let api = Api::of(config, sites.flags)?;
    match sites.command {
        SitesCommand::List { json } => {
            let answer = api.send(&Ask::get("/api/sites".to_owned())).await?;
            if json {
                return print_json(&answer);
            }
            let sites: Vec<SiteRow> = decoded(answer)?;
            let rows: Vec<_> = sites.iter().map(|row| line(&row.site)).collect();
            Ok(output::print(&output::table(&["SITE", "NETWORKS", "TUNNELS", "AGENT"], &rows))?)
        }
        SitesCommand::Set { file, writing } => {
            let site = read(&file)?;
            let name = site.get("name").and_then(Value::as_str).context("the file names no site: give it a `name`")?;
            let ask = writing.ask(Method::PUT, &format!("/api/sites/{}", escaped(name)), Some(site.clone()));
            done(&format!("site {name}"), &api.send(&ask).await?)
        }
        SitesCommand::Rm { name, writing } => {
            let ask = writing.ask(Method::DELETE, &format!("/api/sites/{}", escaped(&name)), None);
            done(&format!("site {name}"), &api.send(&ask).await?)
        }
    }
}

pub(super) async fn agents(config: &Config, agents: Agents) -> anyhow::Result<()> {
    let api = Api::of(config, agents.flags)?;
    match agents.command {
        AgentsCommand::List { json } => {
            let answer = api.send(&Ask::get("/api/agents".to_owned())).await?;
            if json {
                return print_json(&answer);
            }
            Ok(output::print(&told(&decoded::<Vec<AgentStatus>>(answer)?))?)
        }
        AgentsCommand::Rm { name } => {
            let ask = Ask::write(Method::DELETE, format!("/api/agents/{}", escaped(&name)), None, None);
            api.send(&ask).await?;
            Ok(output::print(&format!("agent {name}: forgotten\n"))?)
        }
        AgentsCommand::Expected { name } => {
            print_json(&api.send(&Ask::get(format!("/api/agents/{}/expected", escaped(&name)))).await?)
        }
        AgentsCommand::Policy { name, set } => {
            let path = format!("/api/agents/{}/policy", escaped(&name));
            match set {
                None => print_json(&api.send(&Ask::get(path)).await?),
                Some(Policy::Set { file, writing }) => {
                    let ask = writing.ask(Method::PUT, &path, Some(read(&file)?));
                    done(&format!("policy of {name}"), &api.send(&ask).await?)
                }
            }
        }
    }
}

pub(super) fn escaped(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
}

fn read(file: &PathBuf) -> anyhow::Result<Map<String, Value>> {
    let text = if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    let text = text.with_context(|| format!("{} cannot be read", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} holds no JSON object", file.display()))
}

pub(super) fn print_json(value: &Value) -> anyhow::Result<()> {
    Ok(output::print(&(serde_json::to_string_pretty(value)? + "\n"))?)
}

/// What a write did, in a line.
pub(super) fn done(what: &str, answer: &Value) -> anyhow::Result<()> {
    let change: Change = decoded(answer.get("change").cloned().unwrap_or_default())?;
    for warning in &change.warnings {
        output::hint(&format!("warning: {warning}"));
    }
    let revision = change.revision.map(|revision| format!(", as revision {revision}")).unwrap_or_default();
    let text = match change.state {
        ChangeState::DryRun => format!("{what}: nothing was written\n"),
        ChangeState::Unchanged => format!("{what}: it was like this already\n"),
        ChangeState::Withheld => format!("{what}: written{revision}, which waits for an administrator\n"),
        ChangeState::Served | ChangeState::Pending => format!("{what}: written{revision}\n"),
    };
    Ok(output::print(&text)?)
}

fn line(site: &Site) -> Vec<String> {
    let networks: Vec<String> = site.networks.iter().map(ToString::to_string).collect();
    let mut tunnels: Vec<_> = site.tunnels.iter().collect();
    tunnels.sort_by_key(|tunnel| tunnel.rank);
    let tunnels: Vec<&str> = tunnels.iter().map(|tunnel| &*tunnel.interface).collect();
    vec![site.name.clone(), networks.join(" "), tunnels.join(" "), site.agent.clone()]
}

/// A line for each agent, and one for each of its findings that is not ok.
fn told(agents: &[AgentStatus]) -> String {
    let rows: Vec<Vec<String>> = agents
        .iter()
        .map(|agent| {
            let age = agent.age_seconds.map_or_else(|| "never".to_owned(), |age| format!("{age:.0} s ago"));
            let version = agent.version.clone().unwrap_or_else(|| "-".to_owned());
            let expected = match (&agent.expected, &agent.expected_current) {
                (Some(held), Some(now)) if held == now => "current",
                (None, _) => "none",
                (Some(_), _) => "older",
            };
            vec![agent.name.clone(), agent.status.to_string(), age, version, expected.to_owned()]
        })
        .collect();
    let mut text = output::table(&["AGENT", "STATUS", "REPORTED", "VERSION", "EXPECTS"], &rows);
    for agent in agents {
        for finding in agent.findings.iter().filter(|finding| finding.status != Status::Ok) {
            let all = [
                format!("\n{} {} {}: {}: {}", agent.name, finding.check, finding.target, finding.status, finding.text),
                finding.remedy.as_ref().map(|remedy| format!("\n  mend it: {remedy}")).unwrap_or_default(),
            ];
            // What others wrote does not move the cursor.
            text.extend(all.concat().chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }));
        }
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_agent_is_a_line_and_so_is_what_it_found() {
        let agent = |more: Value| {
            let mut agent = json!({
                "name": "hub2", "version": "0.1", "first_seen": null, "last_report": null, "reported_at": null,
                "age_seconds": 12.4, "silent": false, "status": "critical", "expected": "a", "expected_current": "a",
                "lost": 0, "findings": [],
            });
            agent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value::<AgentStatus>(agent).unwrap()
        };
        let at = "2026-11-27T08:00:00Z";
        let finding = json!({"check": "wg-peer", "target": "wg-fr", "status": "critical", "text": "silent\u{1b}[2J", "remedy": "wg-quick up wg-fr", "since": at, "seen": at});
        let text = told(&[
            agent(json!({"findings": [finding]})),
            agent(json!({"name": "hub3", "version": null, "status": "unknown", "age_seconds": null, "expected": null})),
        ]);
        assert_eq!(
            text,
            "AGENT  STATUS    REPORTED  VERSION  EXPECTS\n\
             hub2   critical  12 s ago  0.1      current\n\
             hub3   unknown   never     -        none\n\
             \n\
             hub2 wg-peer wg-fr: critical: silent [2J\n  mend it: wg-quick up wg-fr\n"
        );
    }
}
