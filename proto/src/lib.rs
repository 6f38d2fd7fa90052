//! The types that cross a process boundary, and nothing that does I/O.
//!
//! [`domain`] is a row of the source of truth as its users write it; [`fragment`] a raw piece of Traefik configuration
//! beside the rows; [`revision`] is a line of history; [`matching`] is who answers a request, [`route`] what the rows compile to; [`problem`] is how every refusal looks on the wire; [`traefik`] is what Traefik understands.
//!
//! Between provider and agent: [`site`], [`peer`] and [`policy`] are what should be, [`expected`] is that for one agent; [`finding`]
//! is what a check says of a target, [`report`] how findings travel, [`agent`] what the provider makes of them; [`rotation`] is a key that changes at both ends.

pub mod agent;
pub mod change;
pub mod debug;
pub mod domain;
pub mod drift;
pub mod duration;
pub mod event;
pub mod expected;
pub mod finding;
pub mod fragment;
pub mod instance;
pub mod matching;
pub mod peer;
pub mod policy;
pub mod problem;
pub mod report;
pub mod revision;
pub mod rotation;
pub mod route;
pub mod site;
pub mod traefik;
