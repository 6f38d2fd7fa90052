//! The default certificate: made once in the database, and renewed there before it ends.
//!
//! Without one in its configuration Traefik makes a throw-away RSA key on every reload, 30 to 300 ms of CPU. So fragment
//! `tls.store/default` holds one as inline PEM; it is a revision like any other change, the same for every provider.
//! A store that an operator wrote is never touched.

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use tokio_postgres::{Client, types::Type};

/// What the certificates that we made are called, so that we renew no other.
const NAME: &str = "CharlieHub default certificate";
const LIFETIME: SignedDuration = SignedDuration::from_hours(398 * 24);
const RENEW: SignedDuration = SignedDuration::from_hours(30 * 24);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make the default certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot keep the default certificate: {0}")]
    Database(#[from] crate::postgres::Error),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Makes the fragment when there is none, and renews ours when it ends soon. True when something was written.
pub async fn ensure(client: &mut Client, now: Timestamp) -> Result<bool, Error> {
    const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('charliehub default certificate')),
        set_config('charliehub.actor', 'charliehub-provider', true), set_config('charliehub.source', 'certificate', true),
        set_config('charliehub.reason', 'the default certificate was made or renewed', true)";
    const FIND: &str = "SELECT body::text FROM charliehub.fragments WHERE kind = 'tls.store' AND name = 'default'";
    const KEEP: &str = "INSERT INTO charliehub.fragments (kind, name, body, notes)
        VALUES ('tls.store', 'default', $1::text::jsonb, 'Made by charliehub-provider, and renewed by it.')
        ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body";
    let transaction = client.transaction().await?;
    transaction.query_typed(LOCK, &[]).await?;
    let found = transaction.query_typed(FIND, &[]).await?;
    if let Some(row) = found.first() {
        let body: &str = row.try_get(0)?;
        let ends = serde_json::from_str(body).ok().as_ref().and_then(our_end);
        if ends.is_none_or(|ends| ends.duration_since(now) > RENEW) {
            return Ok(false);
        }
    }
    let body = make(now)?;
    transaction.execute_typed(KEEP, &[(&body, Type::TEXT)]).await?;
    transaction.commit().await?;
    Ok(true)
}

/// A store with a fresh self-signed certificate, as JSON.
fn make(now: Timestamp) -> Result<String, Error> {
    let day = |at: Timestamp| {
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        let part = |n: i8| u8::try_from(n).unwrap_or(1);
        date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(vec!["charliehub.invalid".to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, NAME);
    (params.not_before, params.not_after) = (day(now - SignedDuration::from_hours(24)), day(now + LIFETIME));
    let certificate = params.self_signed(&key)?;
    Ok(serde_json::json!({
        "defaultCertificate": { "certFile": certificate.pem(), "keyFile": key.serialize_pem() }
    })
    .to_string())
}

/// True for a store whose certificate we made.
pub fn is_ours(store: &serde_json::Value) -> bool {
    our_end(store).is_some()
}

/// When the certificate of a store ends, if it is one of ours.
fn our_end(store: &serde_json::Value) -> Option<Timestamp> {
    let pem = store.get("defaultCertificate")?.get("certFile")?.as_str()?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let ours = certificate.subject().iter_common_name().any(|name| name.as_str() == Ok(NAME));
    ours.then(|| Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_known_again_and_lasts_for_more_than_a_year() {
        let now: Timestamp = "2026-08-31T23:30:00Z".parse().unwrap();
        let store = serde_json::from_str(&make(now).unwrap()).unwrap();
        let left = our_end(&store).unwrap().duration_since(now);
        assert!(left > LIFETIME - SignedDuration::from_hours(24) && left <= LIFETIME, "{left}");
        let other = serde_json::json!({ "defaultCertificate": { "certFile": "/etc/a.pem", "keyFile": "/etc/a.key" } });
        assert_eq!(our_end(&other), None);
    }
}
