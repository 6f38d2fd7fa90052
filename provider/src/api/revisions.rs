//! `/api/revisions` and `/api/withheld`: what was changed, when, by whom and why, and what a person does about it.
//!
//! Secrets in rows and configs are masked below role `admin`; the exact bytes are for those who may ask `/traefik` for them.

pub(super) mod act;
pub(super) mod pin;
pub(super) mod read;

use crate::api::Problem;

/// The number of a revision, as it stands in a path.
fn number(text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| {
        let detail = "a revision in the path is not a number";
        Problem::bad_request(detail).field("n").remedy("GET /api/revisions lists them")
    })
}

#[cfg(test)]
mod tests;
