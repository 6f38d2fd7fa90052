//! Lets a browser look at the operators' page: it has no `Authorization` header, so it shows a cookie in its place.
//!
//! The cookie is a random number that stands for a token for some hours; only hashes of both are kept, and only in memory.
//! A session is worth what its token is at that moment: with a token that was revoked it is over.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::PoisonError,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};
use rand::Rng as _;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::{Auth, Caller, Need, Refusal, permit, token::Hash};

const LASTS: Duration = Duration::from_hours(12);
/// With more, those that end first are over.
const MOST: usize = 1000;

/// Over TLS its prefix forbids others to set it.
const COOKIE: &str = "charliehub-session";
const SECURE_COOKIE: &str = "__Host-charliehub-session";

/// The sessions that are open.
#[derive(Debug)]
pub(super) struct Sessions {
    open: BTreeMap<Hash, Session>,
    /// What forms are signed with.
    secret: [u8; 32],
}

#[derive(Debug)]
struct Session {
    token: Hash,
    until: Instant,
}

impl Default for Sessions {
    fn default() -> Self {
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        Self { open: BTreeMap::new(), secret }
    }
}

impl Sessions {
    /// Opens one; its id is kept nowhere.
    fn open(&mut self, token: Hash, now: Instant) -> String {
        self.open.retain(|_, session| session.until > now);
        while self.open.len() >= MOST
            && let Some(first) = self.open.iter().min_by_key(|(_, session)| session.until).map(|(id, _)| *id)
        {
            self.open.remove(&first);
        }
        let mut id = [0; 32];
        rand::rng().fill_bytes(&mut id);
        let id = BASE64_URL_SAFE_NO_PAD.encode(id);
        self.open.insert(Hash::of(&id), Session { token, until: now + LASTS });
        id
    }

    fn token(&self, id: &str, now: Instant) -> Option<Hash> {
        self.open.get(&Hash::of(id)).filter(|session| session.until > now).map(|session| session.token)
    }
}

/// The line that gives a browser its cookie, or takes it away.
fn set_cookie(id: Option<&str>, secure: bool) -> HeaderValue {
    let (name, flag) = if secure { (SECURE_COOKIE, "; Secure") } else { (COOKIE, "") };
    let age = if id.is_some() { LASTS.as_secs() } else { 0 };
    let line = format!("{name}={}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{flag}", id.unwrap_or_default());
    HeaderValue::try_from(line).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn cookie(headers: &HeaderMap, secure: bool) -> Option<&str> {
    let name = if secure { SECURE_COOKIE } else { COOKIE };
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, id)| id)
}

impl Auth {
    /// Opens a session for whoever knows a token that may read; the header that sets its cookie.
    pub async fn sign_in(
        &self,
        token: &str,
        address: IpAddr,
        secure: bool,
    ) -> Result<(Caller, HeaderValue), (Option<Caller>, Refusal)> {
        let caller = self.owner(token, address).await.map_err(|refusal| (None, refusal))?;
        permit(&caller, Need::Read).map_err(|refusal| (Some(caller.clone()), refusal))?;
        let id = self.sessions(|sessions| sessions.open(Hash::of(token), Instant::now()));
        Ok((caller, set_cookie(Some(&id), secure)))
    }

    /// Ends the session of a request; the header that removes its cookie.
    pub fn sign_out(&self, headers: &HeaderMap, secure: bool) -> HeaderValue {
        if let Some(id) = cookie(headers, secure) {
            self.sessions(|sessions| sessions.open.remove(&Hash::of(id)));
        }
        set_cookie(None, secure)
    }

    /// Who looks on by a session. Nothing may be written by it alone.
    pub fn session(&self, headers: &HeaderMap, secure: bool) -> Option<Caller> {
        let id = cookie(headers, secure)?;
        let token = self.sessions(|sessions| sessions.token(id, Instant::now()))?;
        self.find(token)
    }

    /// What a form of ours says to prove that it is: a page of another site cannot read it.
    pub fn proof(&self, caller: Uuid) -> String {
        let secret = self.sessions(|sessions| sessions.secret);
        Hash::of(&format!("{}{caller}", BASE64_URL_SAFE_NO_PAD.encode(secret))).text()
    }

    pub fn is_proof(&self, caller: Uuid, proof: &str) -> bool {
        self.proof(caller).as_bytes().ct_eq(proof.as_bytes()).into()
    }

    fn sessions<T>(&self, act: impl FnOnce(&mut Sessions) -> T) -> T {
        act(&mut self.sessions.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_and_the_oldest_make_room() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let token = Hash::of("a token");
        let id = sessions.open(token, now);
        assert_eq!(sessions.token(&id, now), Some(token));
        assert_eq!(sessions.token(&id, now + LASTS), None, "its hours are over");
        assert_eq!(sessions.token("made up", now), None);
        let later = now + Duration::from_secs(1);
        let ids: Vec<String> = (0..MOST).map(|_| sessions.open(token, later)).collect();
        assert_eq!(sessions.open.len(), MOST);
        assert_eq!(sessions.token(&id, later), None, "it was the first to end");
        assert!(ids.iter().all(|id| sessions.token(id, later).is_some()));
    }

    #[test]
    fn a_cookie_is_found_among_others_and_over_tls_only_its_own() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; charliehub-session=plain"));
        headers.append(header::COOKIE, HeaderValue::from_static("__Host-charliehub-session=sealed"));
        assert_eq!((cookie(&headers, false), cookie(&headers, true)), (Some("plain"), Some("sealed")));
        headers.remove(header::COOKIE);
        assert_eq!(cookie(&headers, false), None);
        let set = set_cookie(Some("id"), true);
        let set = set.to_str().unwrap();
        assert!(set.starts_with("__Host-charliehub-session=id; Path=/;"), "{set}");
        assert!(set.ends_with("HttpOnly; SameSite=Strict; Secure"), "{set}");
    }
}
