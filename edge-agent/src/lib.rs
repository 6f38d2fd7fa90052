//! The story of `charliehub-edge-agent`, in the order of the data: a module uses only those above it.

pub mod config;
pub mod clock;
pub mod sample;
pub mod look;
pub mod catalogue;
pub mod wireguard;
pub mod firewall;
pub mod certificates;
pub mod host;
