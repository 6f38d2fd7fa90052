use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use super::*;

const LIMITS: Limits = Limits { patience: Duration::from_secs(10), largest: 16 };

/// Takes one request and answers with `body`; what it was asked.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, body: &str) -> String {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        asked.push(stream.read_u8().await.unwrap());
    }
    let length = body.len();
    let answer = format!("HTTP/1.1 201 Created\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    String::from_utf8(asked).unwrap()
}

fn get(uri: &str) -> Request<Bytes> {
    Request::get(uri).body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn a_request_names_its_host_and_path_and_any_status_is_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for (body, is_small) in [("hello", true), ("more than it may say", false)] {
        let uri = format!("http://{address}/a?b=c");
        let server = async { answer(listener.accept().await.unwrap().0, body).await };
        let (answered, asked) = tokio::join!(send(get(&uri), &Trust::System, LIMITS), server);
        assert!(asked.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains(&format!("host: {address}\r\n")), "{asked}");
        match answered {
            Ok(answer) => assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (201, body.as_bytes())),
            Err(error) => assert!(!is_small, "{error:#}"),
        }
    }
}

#[tokio::test]
async fn a_server_by_https_is_believed_when_the_given_authority_signed_it() {
    let directory = tempfile::tempdir().unwrap();
    let issuer = |name: &str| {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let file = directory.path().join(name);
        std::fs::write(&file, issuer.pem()).unwrap();
        (issuer, file)
    };
    let ((issuer, file), (_, other)) = (issuer("ca.pem"), issuer("other.pem"));
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    for (trust, is_right) in [(Trust::Only(file), true), (Trust::Only(other), false)] {
        let server = async {
            let stream = acceptor.accept(listener.accept().await.unwrap().0).await;
            if let Ok(stream) = stream {
                answer(stream, "hello").await;
            }
        };
        let (answered, ()) = tokio::join!(send(get(&uri), &trust, LIMITS), server);
        assert_eq!(answered.is_ok(), is_right, "{trust:?}: {answered:?}");
    }
    let missing = Trust::Only(directory.path().join("missing.pem"));
    let error = send(get(&uri), &missing, LIMITS).await.unwrap_err();
    assert!(format!("{error:#}").contains("missing.pem cannot be read"), "{error:#}");
}
