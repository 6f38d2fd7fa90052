//! Lets names in DNS follow the addresses that sites are seen at.
//!
//! ```text
//! agents       report where each site's packets come from            sources   files and commands of the settings
//! rows         domains with `dns_mode = 'ddns'`, WAN names of sites; changes before, an operator's hold
//! names    (p) which of them are ours, and whose address each follows
//! ask          what the zone's authoritative servers say now
//! machine  (p) wait, refuse, or change
//! act          tells the zone's provider, by rfc2136 or ovh, and asks again, with authority, whether it is so
//! findings (p) what is said of a name that is not right
//! ```
//!
//! Every provider looks; one acts, by a lock in the database, held for one change. In it all is read and asked once more, the
//! change is written to the audit before it is made, and its end behind it. Killed in between, the next look finds a change
//! without an end, and what the name servers say tells how it ended.

mod act;
mod ask;
mod findings;
mod machine;
mod names;
mod ovh;
mod rfc2136;
mod rows;
mod survey;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use charliehub_proto::{debug, event::EventKind, finding::Status};
use charliehub_secret::Source;
use jiff::Timestamp;
use serde_json::json;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

pub use self::view::{hold, print, release};
use self::{
    findings::{About, fault_of, finding, held, whole},
    machine::{Answer, Decision, Family, Follow, Limits},
    rows::Begun,
    survey::{Sight, Survey, Told, addresses, survey},
};
use crate::{
    agents::Agents,
    config::{Ddns as Settings, Mode},
    events::{Events, Told as News},
    postgres::{self, Pool},
};

/// How often is looked where the sites are.
const TICK: Duration = Duration::from_secs(1);
/// Who finds it, and as which check.
const US: &str = "provider";
const CHECK: &str = "ddns";

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
    noticed: BTreeSet<Key>,
    last: Option<Arc<Survey>>,
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
        noticed: BTreeSet::new(),
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
        let Some(last) = self.last.clone() else { return };
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
            !self.noticed.contains(key) && matches!(follow.decide(&self.limits, now), Decision::Change(_))
        };
        self.settings.mode == Mode::Act && self.follows.iter().any(must)
    }

    async fn look(&mut self) -> Result<(), postgres::Error> {
        let client = self.pool.get().await?;
        let (wishes, sites) = (rows::wishes(&**client).await?, rows::sites(&**client).await?);
        let (changes, hold) = (rows::changes(&**client).await?, rows::hold(&**client).await?);
        // Name servers may take their time: nobody's connection waits for them.
        drop(client);
        self.told = survey::sources(&self.settings).await;
        let endpoints = self.agents.endpoints(Instant::now());
        let survey = Arc::new(survey(&self.settings, &wishes, sites, &endpoints, &self.told).await);
        self.remember(changes);
        let is_wanted = |key: &Key| survey.names.iter().any(|sight| sight.named.name == key.0);
        self.follows.retain(|key, _| is_wanted(key));
        self.noticed.retain(|key| is_wanted(key));
        self.failures.retain(|key, _| is_wanted(key));
        self.last = Some(Arc::clone(&survey));
        let mut findings: Vec<debug::Finding> =
            survey.faults.iter().map(|(name, fault)| fault_of(name, fault)).collect();
        if let Some((who, why)) = &hold {
            findings.push(held(who, why));
        }
        for sight in &survey.names {
            self.judge(sight, &survey, hold.is_some(), &mut findings).await?;
        }
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
            findings.push(finding(
                &whole(&named.name),
                Some(&named.site),
                Status::Warning,
                &trouble.why,
                &trouble.remedy,
            ));
        }
        for (family, address, answer) in &sight.families {
            let key = (named.name.clone(), *family);
            let follow = self.follows.entry(key.clone()).or_default();
            follow.answered(answer.as_ref().cloned().unwrap_or_default());
            let target = format!("{} {family}", named.name);
            if let Err(failure) = answer {
                findings.push(finding(&target, None, Status::Unknown, &failure.why, &failure.remedy));
                continue;
            }
            let Some(Ok(servers)) = survey.servers.get(named.zone) else { continue };
            self.settle(&key).await?;
            // The look may have taken long.
            self.see(Instant::now());
            let decision = self.decide(&key);
            let must_change = matches!(decision, Decision::Change(_));
            if must_change {
                self.noticed.insert(key.clone())
            } else {
                self.noticed.remove(&key)
            };
            let outcome = if must_change && self.settings.mode == Mode::Act && !is_held {
                Some(self.act(named, *family, servers).await?)
            } else {
                None
            };
            let decision = if outcome.is_some() { self.decide(&key) } else { decision };
            if decision == Decision::Right {
                self.succeeded(&key);
            }
            let about = About {
                target: &target,
                site: &named.site,
                seen: *address,
                answer: self.follows.get(&key).map_or(&Answer::Unasked, Follow::answer),
                mode: self.settings.mode,
                failure: self.failures.get(&key),
                is_open: self.begun.get(&key).is_some_and(|(begun, _)| !begun.has_ended),
            };
            findings.extend(about.finding(&decision, outcome.as_ref()));
        }
        Ok(())
    }

    fn decide(&self, key: &Key) -> Decision {
        self.follows.get(key).map_or(Decision::Nothing, |follow| follow.decide(&self.limits, Instant::now()))
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

    /// Gives the findings to those who show them, each with the time since when it has its status, and tells what changed.
    fn tell(&mut self, mut findings: Vec<debug::Finding>) {
        let now = Timestamp::now();
        let before = std::mem::take(&mut self.since);
        for finding in &mut findings {
            let since =
                before.get(&finding.target).filter(|(status, _)| *status == finding.status).map(|(_, since)| *since);
            if since.is_none() {
                tracing::warn!(name = finding.target, status = %finding.status, "{}", finding.text);
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
