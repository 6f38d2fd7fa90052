//! `peers`: the clients of the VPN, by the API of a provider, which may be elsewhere.
//!
//! A client is let in by a row with its public key. [`issue`] makes the key here, the row there, and of both the client's
//! configuration; [`revoke`] removes the row and waits until the hubs know. What can be decided without asking anybody is in
//! [`address`], [`configuration`] and [`key`]; [`file`] is where a configuration is put.

mod address;
mod configuration;
mod file;
mod issue;
mod key;
mod revoke;

use charliehub_proto::peer::{Peer, PeerRow};
use clap::{Args, Subcommand};

use super::{
    agents::{Writing, escaped, print_json},
    domains::{Api, Ask, Flags, decoded},
    output,
};
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct Peers {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the clients
    List {
        /// As GET /api/peers
        #[arg(long)]
        json: bool,
    },
    /// Print a client's row, as JSON
    Show { name: String },
    /// Let a new client in, and print its configuration
    ///
    /// Its private key is made here and is in the configuration alone: the provider is given the public one. What else is in it
    /// comes from `vpn` in the policy of the hub. For a phone: charliehub-provider peers issue anna-phone --qr
    Issue(Box<issue::Issue>),
    /// Shut a client out, and wait until its hubs know
    ///
    /// Ends with 1 when one of them has not said so within 5 s. This tells that the agent there knows it; the peer is gone from
    /// the interface where the agent acts, by its own settings.
    Revoke {
        name: String,
        #[command(flatten)]
        writing: Writing,
    },
}

pub(super) async fn run(config: &Config, peers: Peers) -> anyhow::Result<()> {
    let api = Api::of(config, peers.flags)?;
    match peers.command {
        Command::List { json } => {
            let answer = api.send(&Ask::get("/api/peers".to_owned())).await?;
            if json {
                return print_json(&answer);
            }
            let peers: Vec<PeerRow> = decoded(answer)?;
            let rows: Vec<_> = peers.iter().map(|row| line(&row.peer)).collect();
            Ok(output::print(&output::table(&["CLIENT", "ADDRESSES", "HUBS", "INTERFACE", "PUBLIC KEY"], &rows))?)
        }
        Command::Show { name } => print_json(&api.send(&Ask::get(path(&name))).await?),
        Command::Issue(issue) => issue::issue(&api, *issue).await,
        Command::Revoke { name, writing } => revoke::revoke(&api, &name, &writing).await,
    }
}

fn path(name: &str) -> String {
    format!("/api/peers/{}", escaped(name))
}

fn line(peer: &Peer) -> Vec<String> {
    let addresses: Vec<String> = peer.addresses.iter().map(|address| address.addr().to_string()).collect();
    vec![peer.name.clone(), addresses.join(" "), peer.agents.join(" "), peer.interface.clone(), peer.public_key.clone()]
}
