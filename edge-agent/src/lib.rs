//! The story of `charliehub-edge-agent`, in the order of the data: a module uses only those above it.

pub mod config;
pub mod clock;
pub mod metrics;
pub mod sample;
pub mod catalogue;
pub mod look;
pub mod wireguard;
pub mod firewall;
pub mod certificates;
pub mod dns;
pub mod host;
pub mod steady;
pub mod state;
pub mod findings;
pub mod rounds;
pub mod act;
pub mod groups;
pub mod provider;
pub mod expect;
pub mod spool;
pub mod report;
pub mod server;
pub mod app;
pub mod cli;
