//! One `[[webhook]]`: who is told what happens, and how he knows that it is us.

use std::{collections::BTreeSet, fmt, path::PathBuf};

use charliehub_proto::event::EventKind;
use http::Uri;

/// One `[[webhook]]`.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Its host, and which one of several there: its path may be a secret.
    pub name: String,
    pub url: Uri,
    /// What its messages are signed with.
    pub key: Key,
    pub kinds: BTreeSet<EventKind>,
    /// Who may have signed the certificate of an https receiver; none: the authorities of this machine.
    pub ca_file: Option<PathBuf>,
}

/// Bytes to sign with. `Debug` hides them.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub Vec<u8>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
