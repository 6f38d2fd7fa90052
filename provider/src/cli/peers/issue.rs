//! `peers issue`: a key here, a row there, and of both a configuration.
//!
//! In order: what the hub's policy says of the interface, and whether the file can be there; then the row, whose addresses are
//! chosen anew when somebody else got them first; last the configuration. Where that cannot be written the row is removed again.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use anyhow::{Context as _, bail};
use charliehub_proto::{
    change::WrittenPeer,
    peer::{Peer, PeerRow},
    policy::{Policy, Vpn},
    site::SiteRow,
};
use clap::Args;
use http::{Method, StatusCode};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{address, configuration, file, key::Private, path};
use crate::cli::{
    agents::{Writing, escaped},
    domains::{Api, Ask, Refused, decoded},
    output,
};

/// How often addresses are chosen anew: with so many at once each gets one.
const ATTEMPTS: u32 = 50;

#[derive(Debug, Args)]
pub(super) struct Issue {
    /// What it is to be called: lower case letters, digits and hyphens, such as anna-laptop
    name: String,
    /// The hub that it calls, by the name of its agent
    #[arg(long, value_name = "AGENT", default_value = "hub2")]
    hub: String,
    /// On the hub, as in `vpn` of its policy
    #[arg(long, value_name = "NAME", default_value = "wg-clients")]
    interface: String,
    /// Its address in the VPN; several are several flags [default: the next free one of each network of the interface]
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<IpAddr>,
    /// The hubs that let it in, by the names of their agents [default: that of --hub]
    #[arg(long, value_name = "AGENTS", value_delimiter = ',')]
    agents: Vec<String>,
    /// Whose it is
    #[arg(long, value_name = "TEXT")]
    notes: Option<String>,
    /// The public key of a client that made its own: the configuration has a comment in the place of the private one
    #[arg(long, value_name = "KEY", conflicts_with = "qr")]
    public_key: Option<String>,
    /// Write the configuration to a new file, which only you can read
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Draw the configuration as a QR code for a phone, instead of printing it
    #[arg(long)]
    qr: bool,
    #[command(flatten)]
    writing: Writing,
}

pub(super) async fn issue(api: &Api, issue: Issue) -> anyhow::Result<()> {
    let file = issue.out.as_deref().map(file::New::begin).transpose()?;
    let plan = Plan::of(api, &issue).await?;
    let private = if issue.public_key.is_some() { None } else { Some(Private::new()) };
    let public_key = issue.public_key.clone().or(private.as_ref().map(Private::public)).unwrap_or_default();
    let WrittenPeer { peer: PeerRow { peer, .. }, .. } = write(api, &issue, &plan, &public_key).await?;
    for warning in plan.warnings(&peer) {
        output::hint(&format!("warning: {warning}"));
    }
    if issue.writing.dry_run {
        let addresses: Vec<String> = peer.addresses.iter().map(|address| address.addr().to_string()).collect();
        return Ok(output::print(&format!(
            "peer {}: nothing was written; it gets {}\n",
            peer.name,
            addresses.join(" ")
        ))?);
    }
    let private = private.as_ref().map(Private::text);
    let text = configuration::text(&peer, &issue.hub, &plan.vpn, &plan.sites, private.as_deref());
    let Err(error) = hand_over(&text, file, issue.qr) else {
        let printed = issue.out.filter(|_| !issue.qr).map(|path| output::print(&format!("{}\n", path.display())));
        return Ok(printed.transpose().map(drop)?);
    };
    let what = match api.send(&Ask::write(Method::DELETE, path(&peer.name), None, None)).await {
        Ok(_) => format!("the row of {} was removed again", peer.name),
        Err(gone) => format!("and the row of {0} is there still ({gone:#}): peers revoke {0}", peer.name),
    };
    Err(error.context(format!("its configuration is nowhere; {what}")))
}

/// Draws it, writes it, or both; else prints it. The file comes last: when that is there, nothing failed.
fn hand_over(text: &str, file: Option<file::New>, is_drawn: bool) -> anyhow::Result<()> {
    if is_drawn {
        let in_colour = std::io::IsTerminal::is_terminal(&std::io::stdout());
        let drawn = configuration::qr(text, in_colour).context("it is too long to be drawn; use --out FILE")?;
        output::print(&drawn)?;
    }
    match file {
        Some(file) => file.write(text),
        None if is_drawn => Ok(()),
        None => Ok(output::print(text)?),
    }
}

/// What is known before there is a row.
struct Plan {
    agents: Vec<String>,
    /// The interface on the hub that the client calls.
    vpn: Vpn,
    /// Agents that are to let it in, and have no such interface.
    without: Vec<String>,
    /// What the hubs have themselves, and who resolves names.
    theirs: BTreeSet<IpAddr>,
    /// The networks of all sites.
    sites: Vec<IpNet>,
}

impl Plan {
    async fn of(api: &Api, issue: &Issue) -> anyhow::Result<Self> {
        let Issue { hub, interface, .. } = issue;
        let agents = if issue.agents.is_empty() { vec![hub.clone()] } else { issue.agents.clone() };
        if !agents.contains(hub) {
            bail!("{hub} is not among --agents, so it would not let its own client in; add it, or name another --hub");
        }
        let (mut vpn, mut without, mut theirs) = (None, Vec::new(), BTreeSet::new());
        for agent in &agents {
            let Some(found) = interface_of(api, agent, interface).await? else {
                without.push(agent.clone());
                continue;
            };
            theirs.extend(found.addresses.iter().map(IpNet::addr).chain(found.dns.iter().copied()));
            if agent == hub {
                vpn = Some(found);
            }
        }
        let vpn = vpn.with_context(|| {
            format!("the policy of {hub} has no `vpn` for {interface}; write it: charliehub-provider agents policy {hub} set FILE")
        })?;
        for address in &issue.addresses {
            if !address::is_within(&vpn.addresses, *address) || theirs.contains(address) {
                let networks: Vec<String> = vpn.addresses.iter().map(|network| network.trunc().to_string()).collect();
                bail!("--address {address} is not for a client of {hub}; take one of {}", networks.join(", "));
            }
        }
        let sites: Vec<SiteRow> = decoded(api.send(&Ask::get("/api/sites".to_owned())).await?)?;
        let sites = sites.into_iter().flat_map(|row| row.site.networks).collect();
        Ok(Self { agents, vpn, without, theirs, sites })
    }

    /// Those that were asked for, else the next free ones.
    async fn addresses(&self, api: &Api, issue: &Issue) -> anyhow::Result<Vec<IpNet>> {
        if !issue.addresses.is_empty() {
            return Ok(issue.addresses.iter().copied().map(IpNet::from).collect());
        }
        let peers: Vec<PeerRow> = decoded(api.send(&Ask::get("/api/peers".to_owned())).await?)?;
        let taken = peers.iter().flat_map(|row| row.peer.addresses.iter().map(IpNet::addr));
        let free = address::next_free(&self.vpn.addresses, &taken.chain(self.theirs.iter().copied()).collect());
        let free = free.map_err(|network| {
            anyhow::anyhow!(
                "each address of {network} is taken; revoke a client, or give {} a larger network",
                issue.hub
            )
        })?;
        Ok(free.into_iter().map(IpNet::from).collect())
    }

    fn warnings(&self, peer: &Peer) -> Vec<String> {
        let is_internal = |address: &&IpNet| self.sites.iter().any(|network| network.contains(&address.addr()));
        let outside = peer.addresses.iter().filter(|address| !is_internal(address)).map(|address| {
            format!(
                "{} is in no site's networks, so rows of tier internal shut {} out; make a site without tunnels that has the VPN's network",
                address.addr(),
                peer.name
            )
        });
        let without = self.without.iter().map(|agent| {
            format!("the policy of {agent} has no `vpn` for {}, so {} is not let in there", peer.interface, peer.name)
        });
        outside.chain(without).collect()
    }
}

async fn interface_of(api: &Api, agent: &str, interface: &str) -> anyhow::Result<Option<Vpn>> {
    let answer = match api.send(&Ask::get(format!("/api/agents/{}/policy", escaped(agent)))).await {
        Ok(answer) => answer,
        Err(error) if refusal(&error).is_some_and(|status| status == StatusCode::NOT_FOUND) => return Ok(None),
        Err(error) => return Err(error),
    };
    let policy: Policy = decoded(answer)?;
    Ok(policy.vpn.into_iter().find(|vpn| vpn.interface == interface))
}

/// Makes the row, with other addresses when somebody was faster.
async fn write(api: &Api, issue: &Issue, plan: &Plan, public_key: &str) -> anyhow::Result<WrittenPeer> {
    let mut attempt = 1;
    loop {
        let addresses = plan.addresses(api, issue).await?;
        let mut body = Map::from_iter([
            ("name".to_owned(), json!(issue.name)),
            ("agents".to_owned(), json!(plan.agents)),
            ("interface".to_owned(), json!(issue.interface)),
            ("public_key".to_owned(), json!(public_key)),
            ("addresses".to_owned(), json!(addresses)),
        ]);
        if let Some(notes) = &issue.notes {
            body.insert("notes".to_owned(), Value::from(notes.as_str()));
        }
        match api.send(&issue.writing.ask(Method::POST, "/api/peers", Some(body))).await {
            Ok(answer) => return decoded(answer),
            Err(error) if issue.addresses.is_empty() && is_taken(&error) && attempt < ATTEMPTS => attempt += 1,
            Err(error) if refusal(&error).is_some() => return Err(error),
            Err(error) => {
                return Err(error.context(format!(
                    "it is not known whether there is a row now; if so, it is of no use: peers revoke {}",
                    issue.name
                )));
            }
        }
    }
}

/// Somebody has one of the addresses.
fn is_taken(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Refused>()
        .is_some_and(|Refused(problem)| problem.status == 409 && problem.field.as_deref() == Some("addresses"))
}

/// The status of a refusal.
fn refusal(error: &anyhow::Error) -> Option<u16> {
    error.downcast_ref::<Refused>().map(|Refused(problem)| problem.status)
}
