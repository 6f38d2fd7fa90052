//! What an entry point serves for a name: a handshake with SNI on its real socket, in which any certificate is taken.
//!
//! Judged afterwards, by others: a client that refuses would not show what it refused.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The leaf, and what came with it.
    Chain(Vec<CertificateDer<'static>>),
    /// It speaks TLS, and will not for this name; or not as clients of today do.
    Refused(String),
    /// Nobody is there, or nobody who speaks TLS.
    Unreachable(String),
}

/// Asks entry points.
#[derive(Clone)]
pub(super) struct Asker {
    connector: TlsConnector,
    patience: Duration,
}

impl Asker {
    pub(super) fn new(patience: Duration) -> Result<Self, Error> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone))
            .with_no_client_auth();
        // What is resumed shows no certificate.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), patience })
    }

    pub(super) async fn ask(&self, entry_point: SocketAddr, name: &str) -> Answer {
        let Ok(asked) = ServerName::try_from(name.to_owned()) else {
            return Answer::Unreachable(format!("`{name}` cannot be asked for"));
        };
        match timeout(self.patience, self.shake_hands(entry_point, asked)).await {
            Ok(answer) => answer,
            Err(_) => Answer::Unreachable(format!("no answer within {} s", self.patience.as_secs_f32())),
        }
    }

    async fn shake_hands(&self, entry_point: SocketAddr, name: ServerName<'static>) -> Answer {
        let stream = match TcpStream::connect(entry_point).await {
            Ok(stream) => stream,
            Err(error) => return Answer::Unreachable(error.to_string()),
        };
        match self.connector.connect(name, stream).await {
            Ok(stream) => {
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                Answer::Chain(chain.iter().map(|one| one.clone().into_owned()).collect())
            }
            Err(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                Some(Error::AlertReceived(alert)) => Answer::Refused(format!("{alert:?}")),
                Some(Error::PeerIncompatible(why)) => Answer::Refused(format!("{why:?}")),
                _ => Answer::Unreachable(error.to_string()),
            },
        }
    }
}

/// Takes any certificate, also one whose key is too weak for a client to check what it signs.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
            SignatureScheme::RSA_PKCS1_SHA1,
        ]
    }
}
