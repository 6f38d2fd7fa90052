//! What operators see: one struct, as data and as a page.
//!
//! In order: [`gather`] collects what is known, [`join`] makes one cause of each outage, [`verdict`] says in a sentence
//! whether the edge is right, [`page`] writes it as HTML that works without scripts. Whatever came from outside goes
//! through [`html`], which escapes it, and through `mask`.

pub mod gather;
mod html;
mod join;
pub mod page;
mod plot;
pub mod rows;
mod verdict;

use sha2::Digest as _;
use uuid::Uuid;

pub use self::{
    gather::{Memory, Sources, gather},
    rows::Wanted,
};

/// The style of the page.
pub const STYLE: &str = include_str!("debug/assets/style.css");
/// What keeps it live, where scripts run.
pub const SCRIPT: &str = include_str!("debug/assets/app.js");
pub const ICON: &str = include_str!("debug/assets/icon.svg");

/// Another one for each content of a file, so that a browser may keep it for ever.
pub fn version(text: &str) -> String {
    Uuid::from_bytes(sha2::Sha256::digest(text).first_chunk().copied().unwrap_or_default()).simple().to_string()
}
