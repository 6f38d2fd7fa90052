//! The story of `charliehub-provider`, in the order of the data: a module uses only those above it.

pub mod config;
pub mod metrics;
pub mod postgres;
pub mod author;
pub mod row;
pub mod compile;
pub mod impact;
pub mod guard;
pub mod memory;
pub mod store;
pub mod snapshot;
pub mod publish;
pub mod restore;
pub mod rehearse;
pub mod record;
pub mod hold;
pub mod auth;
pub mod instances;
pub mod api;
pub mod certificate;
pub mod import;
pub mod serve;
pub mod app;
pub mod cli;
