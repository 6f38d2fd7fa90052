//! Says what went wrong between our TLS and the provider's, and who mends it: the same words each time, so that they are
//! logged once.

use std::{error::Error as StdError, io};

use rustls::{AlertDescription, CertificateError, Error};

/// What a refusal of our certificate may look like too, when its alert was lost on the way.
pub(super) const CUT: &str = "it ends the connection after the handshake; if it is for our certificate, its log says why, and \
     provider.client_certificate must be of an authority in its serve.client_ca";

/// What TLS itself has to say, below what went wrong.
pub(super) fn cause<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref());
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    None
}

/// Whether the other side just went away.
pub(super) fn is_cut(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(
            kind,
            Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof)
        ) {
            return true;
        }
        next = error.source();
    }
    false
}

pub(super) fn words(error: &Error, host: &str) -> String {
    if let Error::InvalidCertificate(why) = error {
        of_its_certificate(why, host)
    } else if let Error::AlertReceived(alert) = error {
        of_ours(*alert)
    } else {
        format!("TLS fails: {error}")
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what can be mended is told apart; the rest has rustls' words")]
fn of_its_certificate(why: &CertificateError, host: &str) -> String {
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is signed by nobody whom we trust; set provider.ca_file to the authority that signed it"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
            "its certificate is not for `{host}`; call it in provider.url by a name that its certificate has, or issue it \
             with this one: deploy/pki issue DIR server NAME --san {host}"
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has ended; renew it on the provider's host: deploy/pki renew DIR".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; are the clocks of both hosts right?".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not one of a server; issue one: deploy/pki issue DIR server NAME".to_owned()
        }
        why => format!("its certificate cannot be believed: {why}; its log and `charliehub-provider check` say more"),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the alerts that speak of our certificate")]
fn of_ours(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => "it does not know the authority that signed it",
        AlertDescription::CertificateExpired => "it has ended",
        AlertDescription::CertificateRevoked => "it was revoked",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => "its log says why",
        AlertDescription::CertificateRequired => {
            return "it asks for a certificate: set provider.client_certificate and client_key".to_owned();
        }
        alert => return format!("it ends TLS with {alert:?}; its log says why"),
    };
    format!(
        "it refuses our certificate: {why}; give provider.client_certificate one of an authority in its serve.client_ca, \
         such as `deploy/pki issue DIR agent NAME` makes"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_found_below_what_went_wrong_and_says_who_mends_it() {
        let of = |error: Error| words(cause(&io::Error::other(error)).unwrap(), "edge.test");
        assert!(
            of(CertificateError::UnknownIssuer.into())
                .ends_with("set provider.ca_file to the authority that signed it")
        );
        assert!(of(CertificateError::NotValidForName.into()).contains("--san edge.test"));
        assert!(of(CertificateError::Expired.into()).contains("deploy/pki renew"));
        assert!(of(Error::AlertReceived(AlertDescription::UnknownCA)).contains("does not know the authority"));
        assert!(
            of(Error::AlertReceived(AlertDescription::CertificateRequired)).contains("set provider.client_certificate")
        );
        assert!(cause(&io::Error::from(io::ErrorKind::ConnectionReset)).is_none());
        assert!(is_cut(&io::Error::from(io::ErrorKind::ConnectionReset)));
    }
}
