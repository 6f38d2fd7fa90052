//! Lets names in DNS follow the addresses that sites are seen at.
//!
//! ```text
//! agents       report where each site's packets come from            sources   files and commands of the settings
//! rows         domains with `dns_mode = 'ddns'`, WAN names of sites; changes before, an operator's hold
//! names    (p) which of them are ours, and whose address each follows
//! ask          what the zone's authoritative servers say now
//! machine  (p) wait, refuse, or change
//! rfc2136, ovh tell the zone's provider; asked again, with authority, whether it is so
//! ```
//!
//! Every provider looks; one acts, by a lock in the database, held for one change. In it all is read and asked once more, the
//! change is written to the audit before it is made, and its end behind it. Killed in between, the next look finds a change
//! without an end, and what the name servers say tells how it ended.

mod ask;
mod machine;
mod names;
mod ovh;
mod public;
mod rfc2136;
mod rows;
mod survey;
mod view;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use charliehub_proto::{debug, event::EventKind, finding::Status};
use charliehub_secret::Source;
use jiff::Timestamp;
use metrics::counter;
use serde_json::json;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_postgres::GenericClient;

pub use self::view::{hold, print, release};
use self::{
    machine::{Change, Decision, Family, Follow, Limits, Refusal, Wait},
    names::{Fault, Named},
    rows::Begun,
    survey::{Sight, Survey, Told, addresses, survey},
};
use crate::{
    agents::Agents,
    config::{Ddns as Settings, DnsProvider, Mode, Zone},
    events::{Events, Told as News},
    metrics::DDNS_CHANGES,
    postgres::{self, Pool},
};

/// How often is looked where the sites are.
const TICK: Duration = Duration::from_secs(1);
/// When it is asked whether a change is there: after that long, and so on.
const READ_BACK: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_millis(700),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// Who finds it, and as which check.
const US: &str = "provider";
const CHECK: &str = "ddns";
/// What the audit calls the beginning of a change, and its ends.
const BEGUN: &str = "ddns.change";
const CHANGED: &str = "ddns.changed";
const FAILED: &str = "ddns.failed";

/// Why something did not go, and what mends it.
#[derive(Clone, Debug)]
struct Failure {
    why: String,
    remedy: String,
    /// The server asked to be left alone for so long.
    put_off: Option<Duration>,
}

impl Failure {
    fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into(), put_off: None }
    }
}

/// What a provider of DNS is told.
struct Apply {
    old: Option<IpAddr>,
    new: IpAddr,
    ttl: u32,
}

/// A secret, as its file or command has it now.
async fn secret(source: &Source) -> Result<String, Failure> {
    let source = source.clone();
    let read = spawn_blocking(move || source.read()).await;
    let text = read.map_err(|error| error.to_string()).and_then(|read| read.map_err(|error| error.to_string()));
    text.map_err(|error| {
        let (why, remedy) = error.rsplit_once("; ").unwrap_or((&error, "mend it"));
        Failure::new(why, remedy)
    })
}

type Key = (String, Family);

/// What became of a change.
enum Outcome {
    Done,
    /// It was made, and is not answered yet.
    Unconfirmed,
    Failed,
    /// Another provider acts.
    Elsewhere,
    /// Looked at once more, there is nothing to do now.
    Nothing,
}

struct Ddns {
    settings: Settings,
    limits: Limits,
    pool: Pool,
    agents: Arc<Agents>,
    events: Arc<Events>,
    follows: BTreeMap<Key, Follow>,
    /// The newest change of each, and when it was begun by our clock.
    begun: BTreeMap<Key, (Begun, Instant)>,
    /// What failed last.
    failures: BTreeMap<Key, Failure>,
    /// Those of which it is known that they must change.
    noticed: BTreeMap<Key, bool>,
    last: Option<Survey>,
    told: Told,
    /// What was found, and since when.
    since: BTreeMap<String, (Status, Timestamp)>,
}

/// Follows until it is dropped.
pub async fn follow(settings: Settings, pool: Pool, agents: Arc<Agents>, events: Arc<Events>) {
    if settings.mode == Mode::Off {
        return;
    }
    let limits = Limits { stable: settings.stable, interval: settings.interval };
    let mut tick = interval(TICK.min(settings.stable / 4).min(settings.look).max(Duration::from_millis(20)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ddns = Ddns {
        settings,
        limits,
        pool,
        agents,
        events,
        follows: BTreeMap::new(),
        begun: BTreeMap::new(),
        failures: BTreeMap::new(),
        noticed: BTreeMap::new(),
        last: None,
        told: Told::new(),
        since: BTreeMap::new(),
    };
    let mut next = Instant::now();
    loop {
        tick.tick().await;
        let now = Instant::now();
        ddns.see(now);
        if now >= next || ddns.is_due(now) {
            if let Err(error) = ddns.look().await {
                tracing::debug!(%error, "names that follow sites are not looked at");
            }
            next = Instant::now() + ddns.settings.look;
        }
    }
}

impl Ddns {
    /// Tells each name where its site is now.
    fn see(&mut self, now: Instant) {
        let Some(last) = &self.last else { return };
        let endpoints = self.agents.endpoints(now);
        for sight in &last.names {
            let found = addresses(&sight.named.site, &last.sites, &endpoints, &self.told).unwrap_or_default();
            for family in Family::ALL {
                let address = names::only(&found, family).unwrap_or_default();
                let follow = self.follows.entry((sight.named.name.clone(), family)).or_default();
                follow.see(address, now);
            }
        }
    }

    /// A name must change of which that was not known at the last look.
    fn is_due(&self, now: Instant) -> bool {
        let must = |(key, follow): (&Key, &Follow)| {
            self.noticed.get(key) != Some(&true) && matches!(follow.decide(&self.limits, now), Decision::Change(_))
        };
        self.settings.mode == Mode::Act && self.follows.iter().any(must)
    }

    async fn look(&mut self) -> Result<(), postgres::Error> {
        let client = self.pool.get().await?;
        self.told = survey::sources(&self.settings).await;
        let endpoints = self.agents.endpoints(Instant::now());
        let survey = survey(&self.settings, &**client, &endpoints, &self.told).await?;
        self.remember(rows::changes(&**client).await?);
        let hold = rows::hold(&**client).await?;
        drop(client);
        let is_wanted = |key: &Key| survey.names.iter().any(|sight| sight.named.name == key.0);
        self.follows.retain(|key, _| is_wanted(key));
        self.noticed.retain(|key, _| is_wanted(key));
        self.failures.retain(|key, _| is_wanted(key));
        self.last = Some(survey);
        self.see(Instant::now());
        let Some(survey) = self.last.take() else { return Ok(()) };
        let mut findings: Vec<debug::Finding> =
            survey.faults.iter().map(|(name, fault)| fault_of(name, fault)).collect();
        if let Some((who, why)) = &hold {
            findings.push(held(who, why));
        }
        for sight in &survey.names {
            self.judge(sight, &survey, hold.is_some(), &mut findings).await?;
        }
        self.last = Some(survey);
        self.tell(findings);
        Ok(())
    }

    /// Does what is to be done about a name, and finds what is not as it should be.
    async fn judge(
        &mut self,
        sight: &Sight,
        survey: &Survey,
        is_held: bool,
        findings: &mut Vec<debug::Finding>,
    ) -> Result<(), postgres::Error> {
        let named = &sight.named;
        if let Some(trouble) = &sight.trouble {
            findings.push(finding(&named.name, Some(&named.site), Status::Warning, &trouble.why, &trouble.remedy));
        }
        for (family, address, answer) in &sight.families {
            let key = (named.name.clone(), *family);
            let follow = self.follows.entry(key.clone()).or_default();
            follow.answered(answer.as_ref().cloned().unwrap_or_default());
            let target = format!("{} {family}", named.name);
            let site = Some(named.site.as_str());
            if let Err(failure) = answer {
                findings.push(finding(&target, site, Status::Unknown, &failure.why, &failure.remedy));
                continue;
            }
            let Some(Ok(servers)) = survey.servers.get(named.zone) else { continue };
            self.settle(&key).await?;
            let decision = self.decide(&key);
            self.noticed.insert(key.clone(), matches!(decision, Decision::Change(_)));
            let is_acting = self.settings.mode == Mode::Act && !is_held;
            let outcome = match decision {
                Decision::Change(_) if is_acting => Some(self.act(named, *family, servers).await?),
                Decision::Change(_) | Decision::Nothing | Decision::Right | Decision::Wait(_) | Decision::Refuse(_) => {
                    None
                }
            };
            let decision = if outcome.is_some() { self.decide(&key) } else { decision };
            findings.extend(self.found(&key, site, *address, decision, outcome));
        }
        Ok(())
    }

    fn decide(&self, key: &Key) -> Decision {
        self.follows.get(key).map_or(Decision::Nothing, |follow| follow.decide(&self.limits, Instant::now()))
    }

    /// What there is to say of a name, if it is not right.
    fn found(
        &mut self,
        key: &Key,
        site: Option<&str>,
        seen: IpAddr,
        decision: Decision,
        outcome: Option<Outcome>,
    ) -> Option<debug::Finding> {
        let target = format!("{} {}", key.0, key.1);
        let says = self.follows.get(key).map(|follow| follow.answer().to_string()).unwrap_or_default();
        let differs = format!("DNS says {says}, and site {} is seen at {seen}", site.unwrap_or_default());
        let (status, text, remedy) = match (decision, outcome) {
            (Decision::Right, _) => {
                self.failures.remove(key);
                return None;
            }
            (_, Some(Outcome::Elsewhere)) => (
                Status::Warning,
                format!("{differs}: another provider acts now"),
                "nothing: it is looked at again".to_owned(),
            ),
            (Decision::Nothing | Decision::Wait(Wait::Stable(_)), _) => return None,
            (Decision::Refuse(refusal), _) => {
                let (why, remedy) = refused(&refusal);
                (Status::Warning, format!("{differs}: {why}"), remedy.to_owned())
            }
            (Decision::Change(_), Some(Outcome::Unconfirmed)) => unanswered(&differs),
            (Decision::Wait(Wait::Interval(left)), _) => {
                let next = format!("next change in {} s at the earliest", left.as_secs() + 1);
                match (self.failures.get(key), self.begun.get(key)) {
                    (Some(failure), _) => {
                        let text = format!("{differs}: the last change failed: {}; {next}", failure.why);
                        (Status::Critical, text, failure.remedy.clone())
                    }
                    (None, Some((begun, _))) if !begun.has_ended => unanswered(&differs),
                    (None, _) => {
                        let text = format!("{differs}: it was changed before; {next}");
                        (Status::Warning, text, "nothing: it is changed then".to_owned())
                    }
                }
            }
            (Decision::Change(_), _) if self.settings.mode == Mode::DryRun => {
                let remedy = "to have it done: `mode = \"act\"` in [ddns]".to_owned();
                (Status::Warning, format!("{differs}: dry-run, nothing is done"), remedy)
            }
            (Decision::Change(_), _) => (
                Status::Warning,
                format!("{differs}: nothing is changed now"),
                "see the finding `hold`, or the database".to_owned(),
            ),
        };
        Some(finding(&target, site, status, &text, &remedy))
    }

    /// Takes in what the database has of changes, ours and others'. What is new is as old as it says there; from then on our
    /// own clock tells its age.
    fn remember(&mut self, changes: Vec<Begun>) {
        let now = Instant::now();
        for change in changes {
            let Some(family) = Family::ALL.into_iter().find(|family| family.to_string() == change.family) else {
                continue;
            };
            let key = (change.name.clone(), family);
            let known = self.begun.get(&key).filter(|(known, _)| known.id == change.id).map(|(_, at)| *at);
            let at = known.unwrap_or_else(|| now.checked_sub(change.age).unwrap_or(now));
            self.follows.entry(key.clone()).or_default().begun(at);
            self.begun.insert(key, (change, at));
        }
    }

    /// Writes down how a change ended that has no end, if that can be told now and nobody is at it.
    async fn settle(&mut self, key: &Key) -> Result<(), postgres::Error> {
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
        if open {
            let (kind, why) =
                if is_there { (CHANGED, "found at a later look") } else { (FAILED, "the name servers never said so") };
            self.end(&**client, key, id, kind, why).await?;
        }
        transaction.commit().await?;
        if is_there {
            self.succeeded(key);
        } else {
            let remedy = "see the zone at its provider, and that its servers follow";
            self.failed(key, Failure::new("it was told, and the name servers never said so", remedy));
        }
        Ok(())
    }

    /// Makes the change that is due, unless another provider is at it or, looked at once more, nothing is due.
    async fn act(&mut self, named: &Named, family: Family, servers: &[SocketAddr]) -> Result<Outcome, postgres::Error> {
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

    fn succeeded(&mut self, key: &Key) {
        self.failures.remove(key);
        self.follows.entry(key.clone()).or_default().succeeded();
    }

    fn failed(&mut self, key: &Key, failure: Failure) {
        let now = Instant::now();
        let put_off = failure.put_off.map(|left| now + left);
        self.follows.entry(key.clone()).or_default().failed(now, put_off);
        self.failures.insert(key.clone(), failure);
    }

    /// Gives the findings to those who show them, each with the time since when it has its status, and tells what changed.
    fn tell(&mut self, mut findings: Vec<debug::Finding>) {
        let now = Timestamp::now();
        let before = std::mem::take(&mut self.since);
        for finding in &mut findings {
            let since =
                before.get(&finding.target).filter(|(status, _)| *status == finding.status).map(|(_, since)| *since);
            if since.is_none() {
                tracing::warn!(target_name = finding.target, status = %finding.status, "{}", finding.text);
                self.event(
                    &finding.target,
                    finding.status,
                    format!("{US}: {CHECK} {} is {}: {}", finding.target, finding.status, finding.text),
                );
            }
            finding.since = Some(since.unwrap_or(now));
            self.since.insert(finding.target.clone(), (finding.status, since.unwrap_or(now)));
        }
        for target in before.keys().filter(|target| !self.since.contains_key(*target)) {
            self.event(target, Status::Ok, format!("{US}: {CHECK} {target} is ok"));
        }
        self.agents.found(findings);
    }

    fn event(&self, target: &str, now: Status, text: String) {
        let mut news = News::new(EventKind::Finding, text);
        news.detail = json!({ "agent": US, "check": CHECK, "target": target, "now": now });
        self.events.tell(news);
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

fn finding(target: &str, site: Option<&str>, status: Status, text: &str, remedy: &str) -> debug::Finding {
    debug::Finding {
        agent: US.to_owned(),
        check: CHECK.to_owned(),
        target: target.to_owned(),
        site: site.map(str::to_owned),
        status,
        text: text.to_owned(),
        since: None,
        remedy: Some(remedy.to_owned()),
    }
}

/// What was changed, and is not there yet.
fn unanswered(differs: &str) -> (Status, String, String) {
    let remedy = "nothing: it is looked at again; the zone's servers may take minutes".to_owned();
    (Status::Warning, format!("{differs}: it was changed, and is not answered yet"), remedy)
}

fn held(who: &str, why: &str) -> debug::Finding {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let text = format!("{who} has stopped all changes of DNS{why}");
    finding("hold", None, Status::Warning, &text, "charliehub-provider ddns release")
}

fn fault_of(name: &str, fault: &Fault) -> debug::Finding {
    let (text, remedy) = match fault {
        Fault::NotOurs => (
            "it is in no zone of the settings, so it is never touched".to_owned(),
            "add its zone as [[ddns.zone]]; or give its row another `dns_mode`, or the site no `wan_name`",
        ),
        Fault::NoSite => ("its row names no site to follow".to_owned(), "set `site` in its row"),
        Fault::UnknownSite(site) => {
            (format!("its row names site {site}, which there is not"), "name a site of `sites list`")
        }
        Fault::Torn => {
            ("its rows name different sites to follow, so it follows none".to_owned(), "name one site in all of them")
        }
    };
    finding(name, None, Status::Warning, &text, remedy)
}

fn refused(refusal: &Refusal) -> (String, &'static str) {
    match refusal {
        Refusal::NotPublic(address) => (
            format!("{address} is not reached from the internet, so it is never published"),
            "see why the site's packets come from there: a tunnel within a network, or a carrier's NAT",
        ),
        Refusal::Several => (
            "several addresses are one name's, and only one would be left".to_owned(),
            "remove by hand all but one of them; it follows then",
        ),
        Refusal::Alias => ("the name is an alias".to_owned(), "remove its CNAME; it gets addresses of its own then"),
    }
}
