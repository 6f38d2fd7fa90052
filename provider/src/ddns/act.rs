//! Makes a change: under the lock, looked at once more, written down before and behind, and read back. And ends what was left
//! without an end.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use charliehub_proto::finding::Status;
use metrics::counter;
use serde_json::json;
use tokio::time::sleep;
use tokio_postgres::GenericClient;

use super::{
    Apply, Ddns, Failure, Key, ask,
    machine::{Change, Decision, Family},
    names::Named,
    ovh, rfc2136,
    rows::{self, Begun},
};
use crate::{
    config::{DnsProvider, Mode, Zone},
    metrics::DDNS_CHANGES,
    postgres,
};

/// When it is asked whether a change is there: after that long, and so on. Later it is for the next look.
const READ_BACK: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(250), Duration::from_millis(700)];
/// What the audit calls the beginning of a change, and its ends.
const BEGUN: &str = "ddns.change";
const CHANGED: &str = "ddns.changed";
const FAILED: &str = "ddns.failed";

/// What became of a change.
pub(super) enum Outcome {
    Done,
    /// It was made, and is not answered yet.
    Unconfirmed,
    Failed,
    /// Another provider acts.
    Elsewhere,
    /// Looked at once more, there is nothing to do now.
    Nothing,
}

impl Ddns {
    /// Writes down how a change ended that has no end, if that can be told now and nobody is at it.
    pub(super) async fn settle(&mut self, key: &Key) -> Result<(), postgres::Error> {
        let Some((begun, at)) = self.begun.get(key).filter(|(begun, _)| !begun.has_ended) else { return Ok(()) };
        let is_there =
            begun.new.parse().is_ok_and(|new| self.follows.get(key).is_some_and(|follow| follow.answer().is(new)));
        if self.settings.mode != Mode::Act || (!is_there && at.elapsed() < self.limits.interval) {
            return Ok(());
        }
        let id = begun.id;
        let mut holder = self.pool.get().await?;
        let transaction = holder.transaction().await?;
        if !rows::lock(&transaction).await? {
            return Ok(());
        }
        let client = self.pool.get().await?;
        let open = rows::changes(&**client).await?.into_iter().any(|change| change.id == id && !change.has_ended);
        if open && is_there {
            self.end(&**client, key, id, CHANGED, "found at a later look").await?;
            self.succeeded(key);
        } else if open {
            let why = "it was told, and the name servers never said so";
            self.end(&**client, key, id, FAILED, why).await?;
            self.failed(key, Failure::new(why, "see the zone at its provider, and that its servers follow"));
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Makes the change that is due, unless another provider is at it or, looked at once more, nothing is due.
    pub(super) async fn act(
        &mut self,
        named: &Named,
        family: Family,
        servers: &[SocketAddr],
    ) -> Result<Outcome, postgres::Error> {
        let key = (named.name.clone(), family);
        let Some(zone) = self.settings.zones.get(named.zone).cloned() else { return Ok(Outcome::Nothing) };
        let mut holder = self.pool.get().await?;
        let lock = holder.transaction().await?;
        if !rows::lock(&lock).await? {
            return Ok(Outcome::Elsewhere);
        }
        let client = self.pool.get().await?;
        self.remember(rows::changes(&**client).await?);
        if rows::hold(&**client).await?.is_some() {
            return Ok(Outcome::Nothing);
        }
        let answer = ask::ask(servers, &named.name, family).await.unwrap_or_default();
        self.follows.entry(key.clone()).or_default().answered(answer);
        self.see(Instant::now());
        let Decision::Change(Change { old, new }) = self.decide(&key) else { return Ok(Outcome::Nothing) };
        let ttl = old.map_or(zone.ttl, |(_, ttl)| ttl);
        let apply = Apply { old: old.map(|(old, _)| old), new, ttl };
        let why = format!("site {} is seen there for {} s or longer", named.site, self.limits.stable.as_secs());
        let detail = json!({ "name": named.name, "type": family.to_string(), "zone": zone.zone, "site": named.site,
            "old": apply.old.map(|old| old.to_string()), "new": new.to_string(), "ttl": ttl, "why": why });
        let id = rows::note(&**client, BEGUN, &detail).await?;
        let begun = Begun {
            id,
            name: named.name.clone(),
            family: family.to_string(),
            new: new.to_string(),
            age: Duration::ZERO,
            has_ended: false,
        };
        self.remember(vec![begun]);
        tracing::info!(name = named.name, %family, old = ?apply.old, %new, ttl, site = named.site, "a name in DNS is changed");
        // Who lost the lock meanwhile does nothing: another one may have it.
        lock.query_typed("SELECT 1", &[]).await?;
        let told = tell_provider(&zone, &named.name, &apply).await;
        let is_there = self.read_back(&key, servers, new, told.is_ok()).await;
        let outcome = match told {
            _ if is_there => {
                self.end(&**client, &key, id, CHANGED, "the name servers say so").await?;
                self.succeeded(&key);
                let text = format!("{} {family} is {new} now, where site {} is seen", named.name, named.site);
                self.event(&format!("{} {family}", named.name), Status::Ok, text);
                Outcome::Done
            }
            Ok(()) => Outcome::Unconfirmed,
            Err(failure) => {
                self.end(&**client, &key, id, FAILED, &failure.why).await?;
                self.failed(&key, failure);
                Outcome::Failed
            }
        };
        lock.commit().await?;
        Ok(outcome)
    }

    /// Asks whether the new address is there: again and again where it should be, once where it should not.
    async fn read_back(&mut self, key: &Key, servers: &[SocketAddr], new: IpAddr, is_expected: bool) -> bool {
        for pause in READ_BACK.iter().take(if is_expected { READ_BACK.len() } else { 1 }) {
            sleep(*pause).await;
            let answer = ask::ask(servers, &key.0, key.1).await.unwrap_or_default();
            let is_there = answer.is(new);
            self.follows.entry(key.clone()).or_default().answered(answer);
            if is_there {
                return true;
            }
        }
        false
    }

    async fn end(
        &mut self,
        client: &impl GenericClient,
        key: &Key,
        id: i64,
        kind: &str,
        result: &str,
    ) -> Result<(), postgres::Error> {
        let Some((begun, _)) = self.begun.get_mut(key) else { return Ok(()) };
        let detail =
            json!({ "change": id, "name": key.0, "type": key.1.to_string(), "new": begun.new, "result": result });
        rows::note(client, kind, &detail).await?;
        begun.has_ended = true;
        let outcome = if kind == CHANGED { "changed" } else { "failed" };
        counter!(DDNS_CHANGES, "outcome" => outcome).increment(1);
        tracing::info!(name = key.0, family = %key.1, new = begun.new, result, outcome, "a change of a name in DNS has ended");
        Ok(())
    }

    pub(super) fn succeeded(&mut self, key: &Key) {
        self.failures.remove(key);
        self.follows.entry(key.clone()).or_default().succeeded();
    }

    fn failed(&mut self, key: &Key, failure: Failure) {
        let now = Instant::now();
        let put_off = failure.put_off.map(|left| now + left);
        self.follows.entry(key.clone()).or_default().failed(now, put_off);
        self.failures.insert(key.clone(), failure);
    }
}

async fn tell_provider(zone: &Zone, name: &str, apply: &Apply) -> Result<(), Failure> {
    match &zone.provider {
        DnsProvider::Rfc2136 { server, key_name, algorithm, secret } => {
            let server = rfc2136::Server { at: server, key_name, algorithm: *algorithm, secret };
            server.change(&zone.zone, name, apply).await
        }
        DnsProvider::Ovh { url, ca_file, application_key, application_secret, consumer_key } => {
            let ca_file = ca_file.as_deref();
            let account = ovh::Account { url, ca_file, application_key, application_secret, consumer_key };
            account.change(&zone.zone, name, apply).await
        }
    }
}
