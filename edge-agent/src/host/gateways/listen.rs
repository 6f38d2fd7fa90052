//! Listens at the broker: one connection that is opened again when it ends, and when each filter had its last message.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use charliehub_secret::Source;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, split},
    net::TcpStream,
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::mqtt::{self, Packet};
use crate::config::Mqtt;

/// From the address to the broker's word that we are subscribed.
const CONNECT: Duration = Duration::from_secs(5);

/// What the broker is told: without a word from us for half as long again it ends the connection.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Between two attempts: doubled from the first to the last.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(8)];

/// How it stands with the broker.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub link: Link,
    /// When each filter had its last message that was not a retained one.
    pub last: BTreeMap<String, Instant>,
    /// The filters that the broker does not let us have.
    pub refused: BTreeSet<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Link {
    /// The first attempt is under way.
    Connecting,
    Up {
        since: Instant,
    },
    Down {
        since: Instant,
        why: Arc<Error>,
    },
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("`{0}` of the settings cannot be read: {1}")]
    Setting(PathBuf, String),
    #[error("it cannot be reached: {0}")]
    Connect(io::Error),
    #[error("its certificate is signed by an authority that is not known here")]
    Authority,
    #[error("TLS fails: {0}")]
    Tls(io::Error),
    #[error("it does not let us in (code {0})")]
    Refused(u8),
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("it said nothing for {0:?}")]
    Silent(Duration),
}

/// A listener; with it goes its connection.
#[derive(Debug)]
pub(super) struct Listener {
    pub filters: Vec<String>,
    state: watch::Receiver<State>,
    _task: JoinSet<()>,
}

impl Listener {
    pub(super) fn start(mqtt: Mqtt, filters: Vec<String>) -> Self {
        let first = State { link: Link::Connecting, last: BTreeMap::new(), refused: BTreeSet::new() };
        let (told, state) = watch::channel(first);
        let mut task = JoinSet::new();
        task.spawn(listen(mqtt, filters.clone(), told));
        Self { filters, state, _task: task }
    }

    /// How it stands now; where the first attempt is still under way, how it ends.
    pub(super) async fn state(&mut self, limit: Duration) -> State {
        let settled = self.state.wait_for(|state| !matches!(state.link, Link::Connecting));
        if let Ok(Ok(state)) = timeout(limit, settled).await {
            return state.clone();
        }
        self.state.borrow().clone()
    }
}

async fn listen(mqtt: Mqtt, filters: Vec<String>, told: watch::Sender<State>) {
    let [shortest, longest] = PAUSES;
    let mut pause = shortest;
    loop {
        let why = Arc::new(connect(&mqtt, &filters, &told).await);
        let now = Instant::now();
        told.send_modify(|state| {
            let since = match state.link {
                Link::Down { since, .. } => since,
                Link::Up { .. } => {
                    pause = shortest;
                    now
                }
                Link::Connecting => now,
            };
            state.link = Link::Down { since, why };
        });
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// One connection, to its end.
async fn connect(mqtt: &Mqtt, filters: &[String], told: &watch::Sender<State>) -> Error {
    let opened = timeout(CONNECT, TcpStream::connect(&mqtt.address)).await;
    let stream = match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => stream,
        Err(error) => return Error::Connect(error),
    };
    if !mqtt.tls {
        return talk(mqtt, filters, told, stream).await;
    }
    match timeout(CONNECT, secure(mqtt, stream)).await {
        Ok(Ok(stream)) => talk(mqtt, filters, told, stream).await,
        Ok(Err(error)) => error,
        Err(_) => Error::Tls(io::ErrorKind::TimedOut.into()),
    }
}

async fn secure(mqtt: &Mqtt, stream: TcpStream) -> Result<impl AsyncRead + AsyncWrite + use<>, Error> {
    let odd = |error: rustls::Error| Error::Tls(io::Error::other(error));
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(odd)?
        .with_root_certificates(roots(mqtt)?)
        .with_no_client_auth();
    let host = mqtt.address.rsplit_once(':').map_or(mqtt.address.as_str(), |(host, _)| host);
    let host = host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|error| Error::Tls(io::Error::other(error)))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => Error::Authority,
            _ => Error::Tls(error),
        }
    })
}

fn roots(mqtt: &Mqtt) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let Some(file) = &mqtt.ca_file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let wrong = |why: String| Error::Setting(file.clone(), why);
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(roots)
}

async fn talk(
    mqtt: &Mqtt,
    filters: &[String],
    told: &watch::Sender<State>,
    stream: impl AsyncRead + AsyncWrite,
) -> Error {
    let password = match &mqtt.password_file {
        None => None,
        Some(file) => {
            let source = Source::from(file.as_path());
            let named = PathBuf::from(source.to_string());
            match spawn_blocking(move || source.read()).await {
                Ok(Ok(password)) => Some(password.trim().as_bytes().to_vec()),
                Ok(Err(charliehub_secret::Error::Unreadable { source, .. })) => {
                    return Error::Setting(named, source.to_string());
                }
                Ok(Err(error)) => return Error::Setting(named, error.to_string()),
                Err(error) => return Error::Setting(named, error.to_string()),
            }
        }
    };
    let (read, mut write) = split(stream);
    let mut read = Box::pin(BufReader::new(read));
    let client = format!("charliehub-{:08x}", rand::random::<u32>());
    let seconds = u16::try_from(KEEPALIVE.as_secs()).unwrap_or(u16::MAX);
    let hello = mqtt::connect(&client, mqtt.username.as_deref(), password.as_deref(), seconds);
    let greeted = async {
        write.write_all(&hello).await.map_err(Error::Broken)?;
        match mqtt::read(&mut read).await.map_err(Error::Broken)? {
            Packet::ConnAck(0) => {}
            Packet::ConnAck(code) => return Err(Error::Refused(code)),
            Packet::SubAck(_) | Packet::Publish { .. } | Packet::Other => {
                return Err(Error::Broken(io::Error::other("its first word is no CONNACK")));
            }
        }
        write.write_all(&mqtt::subscribe(filters)).await.map_err(Error::Broken)?;
        // What it kept may come before its answer.
        loop {
            if let Packet::SubAck(codes) = mqtt::read(&mut read).await.map_err(Error::Broken)? {
                return Ok(codes);
            }
        }
    };
    let codes = match timeout(CONNECT, greeted).await {
        Ok(Ok(codes)) => codes,
        Ok(Err(error)) => return error,
        Err(_) => return Error::Silent(CONNECT),
    };
    told.send_modify(|state| {
        state.link = Link::Up { since: Instant::now() };
        let refused = filters.iter().zip(codes).filter(|(_, code)| *code >= 0x80);
        state.refused = refused.map(|(filter, _)| filter.clone()).collect();
    });
    let hear = async {
        loop {
            match timeout(KEEPALIVE * 2, mqtt::read(&mut read)).await {
                Ok(Ok(Packet::Publish { topic, is_retained: false })) => note(told, filters, &topic),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Error::Broken(error),
                Err(_) => return Error::Silent(KEEPALIVE * 2),
            }
        }
    };
    let ping = async {
        loop {
            sleep(KEEPALIVE / 2).await;
            if let Err(error) = write.write_all(&mqtt::PING).await {
                return Error::Broken(error);
            }
        }
    };
    tokio::select! { error = hear => error, error = ping => error }
}

fn note(told: &watch::Sender<State>, filters: &[String], topic: &str) {
    let now = Instant::now();
    told.send_if_modified(|state| {
        for filter in filters.iter().filter(|filter| mqtt::fits(filter, topic)) {
            state.last.insert(filter.clone(), now);
        }
        false
    });
}
