//! Whom clients trust: the authorities of this machine, and those that the configuration names.
//!
//! Read again when one of the named files changed, and each hour.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustls::pki_types::{CertificateDer, TrustAnchor, pem::PemObject as _};
use sha2::{Digest as _, Sha256};

use super::stamp::Stamp;

const AGAIN: Duration = Duration::from_hours(1);

/// Those that a chain may end in.
#[derive(Clone, Debug, Default)]
pub(super) struct Authorities {
    pub anchors: Vec<TrustAnchor<'static>>,
    /// Equal exactly when they are the same.
    pub digest: [u8; 32],
    /// Named files that could not be read, and why.
    pub unread: Vec<(PathBuf, String)>,
    stamps: Vec<Option<Stamp>>,
    read: Duration,
}

impl Authorities {
    /// True when a named file is another than was read, or when it is time.
    pub(super) fn are_stale(&self, named: &[PathBuf], boot: Duration) -> bool {
        boot.saturating_sub(self.read) > AGAIN || self.stamps != stamps(named) || self.anchors.is_empty()
    }

    /// Blocks: files are read.
    pub(super) fn read(named: &[PathBuf], boot: Duration) -> Self {
        let stamps = stamps(named);
        let mut certificates = rustls_native_certs::load_native_certs().certs;
        let mut unread = Vec::new();
        for path in named {
            match pem(path) {
                Ok(some) => certificates.extend(some),
                Err(why) => unread.push((path.clone(), why)),
            }
        }
        Self { unread, stamps, read: boot, ..Self::of(&certificates) }
    }

    pub(super) fn of(certificates: &[CertificateDer<'_>]) -> Self {
        let mut digest = Sha256::new();
        let anchor = |certificate| {
            let anchor = webpki::anchor_from_trusted_cert(certificate).ok()?.to_owned();
            digest.update(certificate);
            Some(anchor)
        };
        let anchors = certificates.iter().filter_map(anchor).collect();
        Self { anchors, digest: digest.finalize().into(), ..Self::default() }
    }
}

fn stamps(named: &[PathBuf]) -> Vec<Option<Stamp>> {
    named.iter().map(|path| fs::metadata(path).ok().map(|meta| Stamp::of(&meta))).collect()
}

fn pem(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok).collect();
    if certificates.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(certificates) }
}
