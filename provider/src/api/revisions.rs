//! `/api/revisions` and `/api/withheld`: what was changed, when, by whom and why, and what a person does about it.
//!
//! Secrets in rows and configs are masked below role `admin`; the exact bytes are for those who may ask `/traefik` for them.

pub(super) mod act;
pub(super) mod read;

#[cfg(test)]
mod tests;
