//! Tells OVH of a change, by its signed API: the record first, then the zone's refresh, without which nothing is published.
//!
//! The time of a signature is the server's, asked for before. What the API has is compared with what was answered with
//! authority: the same, and it is changed; the new address already, and only the refresh was missing; something else, and
//! somebody else is at it.

use std::{fmt::Write as _, net::IpAddr, path::Path, time::Duration};

use bytes::Bytes;
use charliehub_secret::Source;
use http::{Method, Request, StatusCode, header};
use jiff::Timestamp;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Apply, Failure, machine::Family, secret};
use crate::client::{self, Limits, Trust, retry_after};

const LIMITS: Limits = Limits { patience: Duration::from_secs(8), largest: 1 << 20 };
/// Asked to go away without a word for how long.
const AWAY: Duration = Duration::from_mins(5);
/// Whatever it asks for, it is asked again after this.
const LONGEST: Duration = Duration::from_hours(1);
/// Bytes of its words that are shown.
const SHOWN: usize = 200;

/// An account, and how its API is reached.
pub(super) struct Account<'a> {
    pub url: &'a str,
    pub ca_file: Option<&'a Path>,
    pub application_key: &'a str,
    pub application_secret: &'a Source,
    pub consumer_key: &'a Source,
}

/// An account with its secrets, and the server's clock.
struct Session<'a> {
    account: &'a Account<'a>,
    trust: Trust,
    application_secret: String,
    consumer_key: String,
    /// Seconds that the server's clock is ahead.
    ahead: i64,
}

#[derive(Deserialize)]
struct Record {
    target: String,
}

impl Account<'_> {
    /// Has `name` in `zone` changed, if it still is what it was.
    pub(super) async fn change(&self, zone: &str, name: &str, change: &Apply) -> Result<(), Failure> {
        let session = Session::open(self).await?;
        let at = format!("/domain/zone/{zone}/record");
        let sub_domain = name.strip_suffix(zone).unwrap_or(name).trim_end_matches('.');
        let field_type = Family::of(change.new).to_string();
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("fieldType", &field_type)
            .append_pair("subDomain", sub_domain)
            .finish();
        let ids: Vec<u64> = session.ask(Method::GET, &format!("{at}?{query}"), None).await?;
        let target = change.new.to_string();
        match (ids.as_slice(), change.old) {
            ([], None) => {
                let record =
                    json!({ "fieldType": field_type, "subDomain": sub_domain, "target": target, "ttl": change.ttl });
                session.ask::<Value>(Method::POST, &at, Some(&record)).await?;
            }
            ([id], old) => {
                let one = format!("{at}/{id}");
                let record: Record = session.ask(Method::GET, &one, None).await?;
                let has: Option<IpAddr> = record.target.parse().ok();
                if has != Some(change.new) {
                    if has.is_none() || has != old {
                        return Err(changed(&record.target));
                    }
                    let record = json!({ "target": target, "ttl": change.ttl });
                    session.ask::<Value>(Method::PUT, &one, Some(&record)).await?;
                }
            }
            ([], Some(_)) => return Err(changed("nothing")),
            ([_, _, ..], _) => return Err(changed("several records")),
        }
        session.ask::<Value>(Method::POST, &format!("/domain/zone/{zone}/refresh"), None).await?;
        Ok(())
    }
}

fn changed(has: &str) -> Failure {
    let why = format!("OVH has {has}, which is not what its name servers say");
    Failure::new(why, "see who else changes it, in OVH's manager; a change there is published by a refresh of the zone")
}

impl<'a> Session<'a> {
    async fn open(account: &'a Account<'a>) -> Result<Self, Failure> {
        let trust = account.ca_file.map_or(Trust::System, |file| Trust::Only(file.to_owned()));
        let (application_secret, consumer_key) =
            (secret(account.application_secret).await?, secret(account.consumer_key).await?);
        let mut session = Self { account, trust, application_secret, consumer_key, ahead: 0 };
        let request = Request::get(format!("{}/auth/time", account.url)).body(Bytes::new());
        let time: i64 = session.send(request).await?;
        session.ahead = time.saturating_sub(Timestamp::now().as_second());
        Ok(session)
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> Result<T, Failure> {
        let url = format!("{}{path}", self.account.url);
        let body = body.map(ToString::to_string).unwrap_or_default();
        let time = Timestamp::now().as_second().saturating_add(self.ahead);
        let signature = sign(&self.application_secret, &self.consumer_key, &method, &url, &body, time);
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("charliehub-provider/", env!("CARGO_PKG_VERSION")))
            .header("X-Ovh-Application", self.account.application_key)
            .header("X-Ovh-Consumer", &self.consumer_key)
            .header("X-Ovh-Timestamp", time)
            .header("X-Ovh-Signature", signature)
            .body(Bytes::from(body));
        self.send(request).await
    }

    async fn send<T: DeserializeOwned>(&self, request: http::Result<Request<Bytes>>) -> Result<T, Failure> {
        let url = self.account.url;
        let there = format!("see that {url} answers this machine; https://status.ovhcloud.com tells of theirs");
        let failed = |error: &dyn std::fmt::Display| Failure::new(format!("OVH's API: {error:#}"), there.clone());
        let request = request.map_err(|error| failed(&error))?;
        let answer = client::send(request, &self.trust, LIMITS).await.map_err(|error| failed(&error))?;
        let (status, body) = (answer.status(), answer.body());
        if status.is_success() {
            return serde_json::from_slice(body)
                .map_err(|error| failed(&format!("its answer cannot be read: {error}")));
        }
        let message = serde_json::from_slice::<Value>(body).ok();
        let message = message.as_ref().and_then(|body| body.get("message")).and_then(Value::as_str).unwrap_or_default();
        let mut shown: String = message.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
        if !shown.is_empty() {
            shown.insert_str(0, ": ");
        }
        let why = format!("OVH's API answers {status}{shown}");
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let asked = retry_after(answer.headers(), Timestamp::now()).unwrap_or(AWAY).min(LONGEST);
                let remedy = format!("nothing: it is asked again in {} s", asked.as_secs());
                Failure { put_off: Some(asked), ..Failure::new(why, remedy) }
            }
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::new(
                why,
                "see that `application_key`, `secret_file` and `consumer_key_file` belong together, and that they may GET, PUT and \
                 POST /domain/zone/ZONE/*",
            ),
            StatusCode::NOT_FOUND => Failure::new(why, "see that the zone is one of this account"),
            _ => Failure::new(why, there),
        })
    }
}

/// As OVH has it: `$1$` and the SHA-1 of all that it is about, joined by `+`.
fn sign(application_secret: &str, consumer_key: &str, method: &Method, url: &str, body: &str, time: i64) -> String {
    let text = format!("{application_secret}+{consumer_key}+{method}+{url}+{body}+{time}");
    let mut signature = "$1$".to_owned();
    for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref() {
        let _ = write!(signature, "{byte:02x}"); // a String takes all
    }
    signature
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of OVH's guide "First steps with the API".
    #[test]
    fn a_signature_is_the_one_of_the_guide() {
        let signature = sign(
            "EXEgWIz07P0HYwtQDs7cNIqCiQaWSuHF",
            "MtSwSrPpNjqfVSmJhLbPyr2i45lSwPU1",
            &Method::GET,
            "https://eu.api.ovh.com/1.0/domains/",
            "",
            1_366_560_945,
        );
        assert_eq!(signature, "$1$d3705e8afb27a0d2970a322b96550abfc67bb798");
    }
}
