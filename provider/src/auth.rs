//! Decides who a caller is and what they may do.
//!
//! Between the table `tokens`, which holds SHA-256 hashes, and each request. The living tokens are kept in memory and,
//! as hashes, in `<data-dir>/tokens`, so that polls are let in while the database is away. [`Auth::follow`] reads the
//! table again every two seconds, and at once when somebody comes with a token that we do not know: a token works as
//! soon as it was made. A valid token is never slowed down; wrong ones are, per address. Where the listener asks for them,
//! certificates of clients stand for a Traefik or an agent without a token.

mod failures;
mod file;
mod host;
mod list;
mod proxy;
mod scope;
mod session;
mod token;

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use self::{failures::Failures, session::Sessions, token::Hash};
pub use self::{
    file::write_private,
    host::Hosts,
    list::{Listed, State, list},
    proxy::Proxies,
    scope::{Outside, Scope},
    token::{Broken, Made, New, broken_rule, ensure_admin, lives, make, make_new, revoke},
};
use crate::{
    postgres::{self, Pool},
    tls::{Fault, Kind, Presented, is_forwarded},
};

/// How often the table is read when nothing asks for it.
const RELOAD: Duration = Duration::from_secs(2);
/// Wrong tokens ask for a reload no oftener than this.
const RELOAD_GAP: Duration = Duration::from_millis(200);
/// How long a request with an unknown token waits for the table.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a pass is good for: an expiry is noticed that much later.
const PASS: Duration = Duration::from_secs(1);
/// How often `last_used_at` is written.
const USED: Duration = Duration::from_mins(1);

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads `/traefik`.
    Traefik,
    /// Its own expectations, reports and rotations of keys.
    Agent,
    Reader,
    Editor,
    Admin,
}

impl Role {
    pub const LABELS: [&'static str; 5] = ["traefik", "agent", "reader", "editor", "admin"];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traefik => "traefik",
            Self::Agent => "agent",
            Self::Reader => "reader",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Traefik, Self::Agent, Self::Reader, Self::Editor, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not one of {}", Self::LABELS.join(", ")))
    }
}

/// What a request does, which decides the roles that may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// `GET /traefik`.
    Traefik,
    /// What an agent expects, and how far the rotation of a key is.
    Expected,
    /// What an agent found, or says of a rotation.
    Report,
    Read,
    Write,
    Admin,
}

impl Need {
    /// The roles that may, the narrowest first.
    pub fn roles(self) -> &'static [Role] {
        match self {
            Self::Traefik => &[Role::Traefik, Role::Admin],
            Self::Expected => &[Role::Agent, Role::Reader, Role::Editor, Role::Admin],
            Self::Report => &[Role::Agent, Role::Admin],
            Self::Read => &[Role::Reader, Role::Editor, Role::Admin],
            Self::Write => &[Role::Editor, Role::Admin],
            Self::Admin => &[Role::Admin],
        }
    }
}

/// Who is asking: the owner of a living token, or of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    pub id: Uuid,
    pub name: String,
    pub role: Role,
    /// The one agent or instance that it may speak for.
    pub subject: Option<String>,
    /// The rows that it may touch.
    #[serde(default)]
    pub scope: Scope,
    /// By a certificate, which its name says, and not by a token.
    #[serde(skip)]
    pub certified: bool,
}

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no token was sent")]
    Missing,
    #[error("the token is unknown, expired or revoked")]
    Unknown,
    #[error("role `{has}` may not do this; it needs {}", needs.iter().map(|role| format!("`{role}`")).collect::<Vec<_>>().join(" or "))]
    Role { has: Role, needs: &'static [Role] },
    #[error("a write that a page of another site could have sent")]
    Forged,
    #[error("too many wrong tokens from this address")]
    Slow { seconds: u64 },
    #[error("{who}: {fault}")]
    Certificate { who: String, fault: Fault },
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path} cannot be written: {source}; check its owner, its mode and the space on its disk")]
    Write { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Database(#[from] postgres::Error),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// What a connection may keep of a check, so that a token is not hashed on every poll.
#[derive(Debug)]
pub struct Pass {
    header: Option<http::HeaderValue>,
    generation: u64,
    until: Instant,
    pub caller: Caller,
}

impl Pass {
    /// True when a request with `headers` is the same caller's, and its token was not changed since.
    pub fn holds(&self, auth: &Auth, headers: &HeaderMap, now: Instant) -> bool {
        // A certificate counts for each request on its own: another may come through a proxy.
        (self.header.is_some() || !is_forwarded(headers))
            && headers.get(http::header::AUTHORIZATION) == self.header.as_ref()
            && self.generation == auth.generation()
            && now < self.until
    }
}

/// A row of `tokens`.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    hash: Hash,
    caller: Caller,
    expires_at: Option<Timestamp>,
    /// Used since `last_used_at` was written.
    #[serde(skip)]
    used: AtomicBool,
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        (self.hash, &self.caller, self.expires_at) == (other.hash, &other.caller, other.expires_at)
    }
}

type Tokens = BTreeMap<Hash, Token>;

/// The living tokens, and the memory of wrong ones.
#[derive(Debug)]
pub struct Auth {
    tokens: ArcSwap<Tokens>,
    /// Counts the changes of `tokens`.
    generation: AtomicU64,
    path: PathBuf,
    failures: Mutex<Failures>,
    wanted: Notify,
    reloads: watch::Sender<u64>,
    /// Unset: nobody is believed without a token.
    proxies: OnceLock<Proxies>,
    sessions: Mutex<Sessions>,
}

impl Auth {
    /// Starts with the tokens that were living when this data directory was last used. A file that cannot be read is
    /// as good as none: the database has them.
    pub fn open(data_dir: &Path) -> Self {
        let path = data_dir.join("tokens");
        let tokens = file::read(&path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "kept tokens cannot be read: polls wait for the database");
            Vec::new()
        });
        Self {
            tokens: ArcSwap::from_pointee(by_hash(tokens)),
            generation: AtomicU64::new(0),
            path,
            failures: Mutex::default(),
            wanted: Notify::new(),
            reloads: watch::Sender::new(0),
            proxies: OnceLock::new(),
            sessions: Mutex::default(),
        }
    }

    /// Tokens that are known, expired ones among them.
    pub fn len(&self) -> usize {
        self.tokens.load().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the living tokens from the database, and keeps them on disk when they changed.
    pub async fn reload(&self, client: &tokio_postgres::Client) -> Result<(), Error> {
        let tokens = by_hash(token::living(client).await?);
        if tokens != **self.tokens.load() {
            let kept = file::write(&self.path, tokens.values());
            let old = self.tokens.swap(Arc::new(tokens));
            self.generation.fetch_add(1, Ordering::Release);
            flush_used(client, &old).await?;
            kept?;
        }
        self.reloads.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Keeps up with the table for ever. Without a database it keeps what it has.
    pub async fn follow(&self, pool: &Pool) {
        let mut flushed = Instant::now();
        let mut said = false;
        loop {
            let result = self.reload_from(pool, &mut flushed).await;
            if let Err(error) = &result
                && !said
            {
                tracing::warn!(%error, "tokens cannot be read again: those known stay valid");
            }
            said = result.is_err();
            tokio::time::sleep(RELOAD_GAP).await;
            drop(tokio::time::timeout(RELOAD, self.wanted.notified()).await);
        }
    }

    /// Tells [`Auth::follow`] that the table changed (channel `charliehub_tokens`).
    pub fn changed(&self) {
        self.wanted.notify_one();
    }

    /// Keeps a token that was made a moment ago for the next start, if the database says so quickly.
    pub async fn keep_last(&self, pool: &Pool) {
        let reload = async { self.reload(&*pool.get().await?).await };
        match tokio::time::timeout(PATIENCE, reload).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "tokens cannot be read a last time"),
            Err(_) => tracing::debug!("tokens cannot be read a last time"),
        }
    }

    async fn reload_from(&self, pool: &Pool, flushed: &mut Instant) -> Result<(), Error> {
        let client = pool.get().await?;
        self.reload(&client).await?;
        if flushed.elapsed() >= USED {
            *flushed = Instant::now();
            flush_used(&client, &self.tokens.load_full()).await?;
        }
        Ok(())
    }

    /// Lets a request in, or says why not. A token that is not known yet waits for the table, a second at most.
    pub async fn check(
        &self,
        headers: &HeaderMap,
        need: Need,
        address: IpAddr,
        certificate: Option<&Presented>,
    ) -> Result<Caller, Refusal> {
        let caller = self.bearer(headers, address, certificate).await?;
        permit(&caller, need)?;
        Ok(caller)
    }

    /// Who sends a request: the owner of its token, or, without one, the user whom a trusted proxy names, or the owner of
    /// the certificate of its connection.
    pub async fn identify(
        &self,
        request: &http::request::Parts,
        address: IpAddr,
        certificate: Option<&Presented>,
    ) -> Result<Caller, Refusal> {
        if let Some(proxies) = self.proxies.get()
            && !request.headers.contains_key(http::header::AUTHORIZATION)
            && let Some(caller) = proxies.caller(request, address)?
        {
            return Ok(caller);
        }
        self.bearer(&request.headers, address, certificate).await
    }

    /// Whether who was let in with these headers would be now, for an answer that goes on. Without a token it was a session,
    /// or the word of a trusted proxy, which nobody takes back.
    pub fn still(&self, headers: &HeaderMap, need: Need) -> bool {
        let caller = match bearer(headers) {
            Some(token) => self.find(Hash::of(token)),
            None if self.proxies.get().is_some() => return true,
            None => self.session(headers, true).or_else(|| self.session(headers, false)),
        };
        caller.is_some_and(|caller| permit(&caller, need).is_ok())
    }

    /// Trusts proxies from now on. The first call counts.
    pub fn trust(&self, proxies: Proxies) {
        drop(self.proxies.set(proxies));
    }

    /// A token that is sent is what counts, right or wrong; a certificate is for requests without one.
    async fn bearer(
        &self,
        headers: &HeaderMap,
        address: IpAddr,
        certificate: Option<&Presented>,
    ) -> Result<Caller, Refusal> {
        match certificate {
            Some(certificate) if !headers.contains_key(http::header::AUTHORIZATION) => certified(certificate, headers),
            _ => self.owner(bearer(headers).ok_or(Refusal::Missing)?, address).await,
        }
    }

    /// Whose token it is. One that is not known yet waits for the table; wrong ones are slowed down.
    pub async fn owner(&self, token: &str, address: IpAddr) -> Result<Caller, Refusal> {
        let hash = Hash::of(token);
        if let Some(caller) = self.find(hash) {
            return Ok(caller);
        }
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).one_more(address, Instant::now())?;
        let mut reloads = self.reloads.subscribe();
        self.wanted.notify_one();
        // The reload under way may have read the table before the token was made; the next one has not.
        let twice = async {
            for _ in 0..2 {
                drop(reloads.changed().await);
                if let Some(caller) = self.find(hash) {
                    return Some(caller);
                }
                self.wanted.notify_one();
            }
            None
        };
        tokio::time::timeout(PATIENCE, twice).await.ok().flatten().ok_or(Refusal::Unknown)
    }

    /// Waits until the tokens are known: from the disk, or by the first answer of the database.
    pub async fn known(&self) {
        if self.is_empty() {
            let mut reloads = self.reloads.subscribe();
            drop(reloads.wait_for(|count| *count > 0).await);
        }
    }

    /// Lets the bearer of a living token in for a connection's later requests too: they are told apart by [`Pass::holds`].
    pub async fn pass(
        &self,
        headers: &HeaderMap,
        need: Need,
        address: IpAddr,
        certificate: Option<&Presented>,
    ) -> Result<Pass, Refusal> {
        // Taken before the check: a reload in between makes the pass end early, never late.
        let generation = self.generation();
        let caller = self.check(headers, need, address, certificate).await?;
        let header = headers.get(http::header::AUTHORIZATION).and_then(copied);
        Ok(Pass { header, generation, until: Instant::now() + PASS, caller })
    }

    /// Another number after every change of the tokens.
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn find(&self, hash: Hash) -> Option<Caller> {
        let tokens = self.tokens.load();
        let token = tokens.get(&hash)?;
        if token.expires_at.is_some_and(|at| at <= Timestamp::now()) {
            return None;
        }
        token.used.store(true, Ordering::Relaxed);
        Some(token.caller.clone())
    }
}

/// Writes down when tokens were last used, to the minute.
async fn flush_used(client: &tokio_postgres::Client, tokens: &Tokens) -> Result<(), Error> {
    let used = tokens.values().filter(|token| token.used.swap(false, Ordering::Relaxed));
    let used: Vec<Uuid> = used.map(|token| token.caller.id).collect();
    if !used.is_empty() {
        client.execute("UPDATE tokens SET last_used_at = now() WHERE id = ANY($1)", &[&used]).await?;
    }
    Ok(())
}

/// Whether the caller's role may.
pub fn permit(caller: &Caller, need: Need) -> Result<(), Refusal> {
    if need.roles().contains(&caller.role) {
        return Ok(());
    }
    let refusal = Refusal::Role { has: caller.role, needs: need.roles() };
    if caller.certified {
        return Err(Refusal::Certificate { who: caller.name.clone(), fault: Fault::Role(refusal.to_string()) });
    }
    Err(refusal)
}

/// Who a certificate of the connection stands for.
fn certified(certificate: &Presented, headers: &HeaderMap) -> Result<Caller, Refusal> {
    let named = certificate.owner(headers, Timestamp::now());
    let named = named.map_err(|fault| Refusal::Certificate { who: certificate.to_string(), fault })?;
    let role = match named.role {
        Kind::Traefik => Role::Traefik,
        Kind::Agent => Role::Agent,
    };
    Ok(Caller {
        id: proxy::id_of(&format!("certificate:{role}:{}", named.name)),
        name: certificate.to_string(),
        role,
        subject: Some(named.name.clone()),
        scope: Scope::default(),
        certified: true,
    })
}

/// Those of `headers` that say who asks, copied: for who keeps them while a request is long in being answered.
pub fn credentials(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    let forwarded = HeaderName::from_static("x-forwarded-for");
    for name in [header::AUTHORIZATION, header::VIA, header::FORWARDED, forwarded] {
        if let Some(value) = headers.get(&name).and_then(copied) {
            kept.insert(name, value);
        }
    }
    kept
}

/// A value that is cloned shares the buffer that its request was read into, and keeps it.
fn copied(value: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::from_bytes(value.as_bytes()).ok()
}

/// The token of `Authorization: Bearer TOKEN`; the scheme in any case, as RFC 7235 has it.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

fn by_hash(tokens: Vec<Token>) -> Tokens {
    tokens.into_iter().map(|token| (token.hash, token)).collect()
}

#[cfg(test)]
mod tests;
