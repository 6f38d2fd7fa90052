//! Decides whether a peer is called elsewhere: when its session is old, and its name leads to another address. Pure, but for the
//! name, which is asked for only then.

use std::{io, net::SocketAddr, time::Duration};

/// Two changes are so far apart: time for a handshake at the new address, and for a name server that changes its mind.
pub(super) const APART: Duration = Duration::from_mins(2);

/// What one look saw.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Of the last handshake; where there was none, for how long it was watched. None: the clock cannot be believed.
    pub age: Option<Duration>,
    pub endpoint: Option<SocketAddr>,
    /// So long ago it was called elsewhere.
    pub changed: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The session is as fresh as it should be.
    Fresh,
    Blind,
    /// It was called elsewhere lately.
    Wait,
    /// The name still leads to where it is called.
    Same,
    Unresolved(String),
    Call(SocketAddr),
}

pub(super) async fn decide(
    seen: &Seen,
    after: Duration,
    resolve: impl AsyncFnOnce() -> io::Result<Vec<SocketAddr>>,
) -> Decision {
    let Some(age) = seen.age else { return Decision::Blind };
    if age <= after {
        return Decision::Fresh;
    }
    if seen.changed.is_some_and(|changed| changed < APART) {
        return Decision::Wait;
    }
    let found = match resolve().await {
        Ok(found) => found,
        Err(error) => return Decision::Unresolved(error.to_string()),
    };
    if seen.endpoint.is_some_and(|endpoint| found.contains(&endpoint)) {
        return Decision::Same;
    }
    // Of the same family where there is one: who had no IPv6 will hardly have it now.
    let is_alike = |new: &&SocketAddr| seen.endpoint.is_none_or(|old| old.is_ipv4() == new.is_ipv4());
    match found.iter().find(is_alike).or(found.first()) {
        Some(new) => Decision::Call(*new),
        None => Decision::Unresolved("it has no address".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(155);

    async fn decided(
        age: Option<u64>,
        endpoint: Option<&str>,
        changed: Option<u64>,
        found: Option<&[&str]>,
    ) -> Decision {
        let parse = |address: &str| address.parse::<SocketAddr>().unwrap();
        let seen = Seen {
            age: age.map(Duration::from_secs),
            endpoint: endpoint.map(parse),
            changed: changed.map(Duration::from_secs),
        };
        let found = found.map(|found| found.iter().map(|one| parse(one)).collect());
        decide(&seen, AFTER, async || found.ok_or_else(|| io::Error::other("must not be asked, or no answer"))).await
    }

    #[tokio::test]
    async fn only_who_is_silent_is_called_elsewhere_and_only_where_the_name_leads() {
        const OLD: &str = "203.0.113.2:51820";
        const NEW: &str = "203.0.113.9:51820";
        const SIX: &str = "[2001:db8::9]:51820";
        let call = |to: &str| Decision::Call(to.parse().unwrap());
        for (age, endpoint, changed, found, wanted) in [
            (Some(155), Some(OLD), None, None, Decision::Fresh),
            (None, Some(OLD), None, None, Decision::Blind),
            (Some(156), Some(OLD), None, Some(&[NEW][..]), call(NEW)),
            (Some(156), Some(OLD), None, Some(&[SIX, NEW]), call(NEW)),
            (Some(156), Some(OLD), None, Some(&[SIX]), call(SIX)),
            (Some(156), Some(OLD), None, Some(&[NEW, OLD]), Decision::Same),
            (Some(156), None, None, Some(&[SIX, NEW]), call(SIX)),
            (Some(156), Some(OLD), Some(119), None, Decision::Wait),
            (Some(156), Some(OLD), Some(120), Some(&[NEW]), call(NEW)),
            (Some(156), Some(OLD), None, Some(&[]), Decision::Unresolved("it has no address".to_owned())),
        ] {
            assert_eq!(
                decided(age, endpoint, changed, found).await,
                wanted,
                "{age:?} {endpoint:?} {changed:?} {found:?}"
            );
        }
        assert!(matches!(decided(Some(156), Some(OLD), None, None).await, Decision::Unresolved(_)));
    }
}
