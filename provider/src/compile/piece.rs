//! One object of Traefik's configuration, encoded once.

use std::sync::Arc;

use serde::Serialize;

use super::Section;

/// A name in a section, and the JSON text of what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) section: Section,
    pub(super) name: Arc<str>,
    pub(super) text: Arc<str>,
}

impl Piece {
    pub(super) fn new(section: Section, name: Arc<str>, body: &impl Serialize) -> Self {
        Self { section, name, text: encode(body) }
    }
}

/// The canonical text: fields in the order of the struct.
pub(super) fn encode(body: &impl Serialize) -> Arc<str> {
    charliehub_proto::traefik::to_json(body).into()
}
