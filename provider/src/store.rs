//! Follows the source of truth: what is committed in Postgres is known here, each revision whole, within milliseconds.
//!
//! [`sync`] decides when to do what, [`listen`] does it, [`read`] fetches the rows of one revision, [`rows`] decodes them
//! one by one; `hashes` is what the database says of them. [`reread`] is how to ask for everything to be read again.

mod hashes;
pub mod listen;
pub mod read;
pub mod reread;
pub mod rows;
pub mod sync;
