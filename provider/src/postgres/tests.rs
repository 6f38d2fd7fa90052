//! The guarantees of the schema, against a real PostgreSQL that each test makes and throws away.

pub(crate) mod cluster;
mod guarantees;
mod migrations;
mod reaching;
