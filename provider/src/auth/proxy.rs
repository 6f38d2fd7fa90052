//! Decides whether a request without a token is a user's whom a proxy before us has let in (forward-auth).
//!
//! Only a proxy at a trusted address is believed; from anywhere else its headers are nothing. A browser sends such a
//! user's requests for any page, so a write must be one that a page of another site cannot send unasked, and its `Origin`,
//! if any, must be the host that was called.

use std::{collections::BTreeMap, net::IpAddr};

use http::{HeaderMap, HeaderName, Method, header, request::Parts};
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Caller, Refusal, Role, Scope};

/// Who is believed, and what the groups of a user may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxies {
    pub networks: Vec<IpNet>,
    pub user_header: HeaderName,
    pub groups_header: HeaderName,
    pub roles: BTreeMap<String, Role>,
}

impl Proxies {
    /// The user whom a trusted proxy names; none when it names nobody, or nobody with a role.
    pub(super) fn caller(&self, request: &Parts, address: IpAddr) -> Result<Option<Caller>, Refusal> {
        let address = address.to_canonical();
        if !self.networks.iter().any(|network| network.contains(&address)) {
            return Ok(None);
        }
        let headers = &request.headers;
        let Some(user) = only(headers, &self.user_header) else { return Ok(None) };
        let groups = only(headers, &self.groups_header).unwrap_or_default().split(',').map(str::trim);
        let Some(role) = groups.filter_map(|group| self.roles.get(group)).max_by_key(|role| rank(**role)) else {
            return Ok(None);
        };
        if !matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS) && forged(request) {
            return Err(Refusal::Forged);
        }
        Ok(Some(Caller {
            id: id_of(&format!("proxy:{user}")),
            name: format!("{user} (proxy)"),
            role: *role,
            subject: None,
            scope: Scope::default(),
            certified: false,
        }))
    }
}

/// The value of a header that is there once and says something: of two, one may be the client's own.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    (values.next().is_none() && (1..=150).contains(&value.len())).then_some(value)
}

/// Whether a page of another site could have made a browser send this.
fn forged(request: &Parts) -> bool {
    let text = |name: HeaderName| request.headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = request.uri.authority().map(http::uri::Authority::as_str).or_else(|| text(header::HOST));
    let foreign = text(header::ORIGIN).is_some_and(|origin| {
        origin.split_once("://").map(|(_, host)| host.to_ascii_lowercase()) != host.map(str::to_ascii_lowercase)
    });
    let media_type = text(header::CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default();
    let marked = matches!(request.method, Method::PUT | Method::PATCH | Method::DELETE)
        || media_type.trim().eq_ignore_ascii_case("application/json")
        || request.headers.contains_key("x-requested-with");
    foreign || !marked
}

fn rank(role: Role) -> usize {
    Role::LABELS.iter().position(|label| *label == role.as_str()).unwrap_or_default()
}

/// The same user is the same consumer.
pub(super) fn id_of(who: &str) -> Uuid {
    let hash: [u8; 32] = Sha256::digest(who).into();
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(hash).for_each(|(byte, random)| *byte = random);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const PROXY: [u8; 4] = [127, 0, 0, 1];

    fn proxies() -> Proxies {
        let roles = [("ops", Role::Editor), ("admins", Role::Admin), ("all", Role::Reader)];
        Proxies {
            networks: vec!["127.0.0.1/32".parse().unwrap()],
            user_header: HeaderName::from_static("remote-user"),
            groups_header: HeaderName::from_static("remote-groups"),
            roles: roles.map(|(group, role)| (group.to_owned(), role)).into(),
        }
    }

    fn ask(from: [u8; 4], method: &str, headers: &[(&str, &str)]) -> Result<Option<(String, Role)>, Refusal> {
        let mut request = Request::builder().method(method).uri("/api/domains").header("host", "edge.example.org");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let caller = proxies().caller(&request.body(()).unwrap().into_parts().0, from.into())?;
        Ok(caller.map(|caller| (caller.name, caller.role)))
    }

    #[test]
    fn only_a_trusted_proxy_names_a_user_and_the_widest_group_counts() {
        let ann = [("remote-user", "ann"), ("remote-groups", "all, ops")];
        assert_eq!(ask(PROXY, "GET", &ann), Ok(Some(("ann (proxy)".to_owned(), Role::Editor))));
        assert_eq!(ask([127, 0, 0, 2], "GET", &ann), Ok(None), "from any other address it is nothing");
        for nobody in [
            &[("remote-groups", "admins")][..],
            &[("remote-user", "ann")],
            &[("remote-user", "ann"), ("remote-groups", "none,adminsx")],
            &[("remote-user", " "), ("remote-groups", "admins")],
            &[("remote-user", "ann"), ("remote-user", "root"), ("remote-groups", "admins")],
            &[("remote-user", "ann"), ("remote-groups", "all"), ("remote-groups", "admins")],
        ] {
            assert_eq!(ask(PROXY, "GET", nobody), Ok(None), "{nobody:?}");
        }
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let request =
            Request::get("/").header("remote-user", "ann").header("remote-groups", "admins").body(()).unwrap();
        assert!(proxies().caller(&request.into_parts().0, mapped).unwrap().is_some(), "IPv4 within IPv6");
        assert_eq!(id_of("ann"), id_of("ann"));
        assert_ne!(id_of("ann"), id_of("bob"));
    }

    #[test]
    fn a_write_that_another_site_could_send_is_refused() {
        for (method, more, passes) in [
            ("POST", &[("content-type", "application/json")][..], true),
            ("POST", &[("content-type", "application/json; charset=utf-8")], true),
            ("POST", &[("x-requested-with", "fetch")], true),
            ("DELETE", &[], true),
            ("DELETE", &[("origin", "https://edge.example.org")], true),
            ("POST", &[], false),
            ("POST", &[("content-type", "text/plain")], false),
            ("POST", &[("content-type", "application/x-www-form-urlencoded")], false),
            ("DELETE", &[("origin", "https://evil.test")], false),
            ("DELETE", &[("origin", "null")], false),
            ("POST", &[("content-type", "application/json"), ("origin", "https://edge.example.org.evil.test")], false),
        ] {
            let mut headers = vec![("remote-user", "ann"), ("remote-groups", "admins")];
            headers.extend_from_slice(more);
            assert_eq!(ask(PROXY, method, &headers).is_ok(), passes, "{method} {more:?}");
        }
    }
}
