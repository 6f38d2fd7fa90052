//! What should be: what the provider says, kept on disk for the next start, and the agent's own file on top.
//!
//! [`merge`] is pure. [`Kept`] is the provider's part as it was heard last; [`follow`] asks for what changed, and is held
//! until something does. Nonsense is told and changes nothing: what is held stays.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use charliehub_proto::expected::{Expected, ExpectedDelta, Served};
use serde::Deserialize;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    config::Config,
    provider::{Pause, Provider},
    rounds::Shared,
    state::State,
};

/// The provider holds a question so long, and a little is on top for the way.
const HOLD: Duration = Duration::from_secs(55);
const PATIENCE: Duration = Duration::from_secs(70);

/// Between two questions, at least: a server that holds nothing is not asked all the time.
const APART: Duration = Duration::from_secs(1);

/// Names of the policy are served on this entry point.
const ENTRY_POINT: &str = "websecure";

/// What is expected of both: sites, clients of the VPN and interfaces of theirs in the own file replace the provider's of the same
/// name, everything else adds up.
pub fn merge(heard: Expected, config: &Config) -> Expected {
    let mut all = heard;
    all.agent.clone_from(&config.name);
    for own in &config.sites {
        all.sites.retain(|site| site.name != own.name);
        all.sites.push(own.clone());
    }
    for own in &config.peers {
        all.peers.retain(|peer| peer.name != own.name);
        all.peers.push(own.clone());
    }
    let own = config.policy.clone();
    let policy = &mut all.policy;
    policy.firewall = match (policy.firewall.take(), own.firewall) {
        (Some(mut heard), Some(own)) => {
            heard.rules.extend(own.rules);
            heard.unit = own.unit;
            Some(heard)
        }
        (heard, own) => own.or(heard),
    };
    policy.files.extend(own.files);
    policy.units.extend(own.units);
    policy.containers.extend(own.containers);
    policy.gateways.extend(own.gateways);
    policy.disks.extend(own.disks);
    policy.recent.extend(own.recent);
    policy.vpn.retain(|heard| own.vpn.iter().all(|own| own.interface != heard.interface));
    policy.vpn.extend(own.vpn);
    policy.certificates.names.extend(own.certificates.names);
    policy.certificates.except.extend(own.certificates.except);
    policy.certificates.files.extend(own.certificates.files);
    policy.certificates.allow_staging |= own.certificates.allow_staging;
    for name in &policy.certificates.names {
        let served = Served { entry_point: ENTRY_POINT.to_owned(), ..Served::default() };
        all.names.entry(name.clone()).or_insert(served);
    }
    for name in &policy.certificates.except {
        all.names.remove(name);
    }
    all
}

/// The provider's part, on disk: `expected.json` in the state directory.
#[derive(Clone, Debug)]
pub struct Kept(PathBuf);

impl Kept {
    pub fn below(state_dir: &Path) -> Self {
        Self(state_dir.join("expected.json"))
    }

    /// None: never heard, or not readable any more, which is told.
    pub fn load(&self) -> Option<Expected> {
        let bytes = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %self.0.display(), %error, "the last expectation cannot be read");
                return None;
            }
        };
        let kept = serde_json::from_slice(&bytes);
        kept.inspect_err(|error| tracing::warn!(path = %self.0.display(), %error, "the last expectation is torn")).ok()
    }

    /// Replaces it whole.
    pub fn store(&self, heard: &Expected) -> io::Result<()> {
        let dir = self.0.parent().unwrap_or(Path::new("."));
        let mut draft = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer(&mut draft, heard)?;
        draft.as_file().sync_all()?;
        draft.persist(&self.0)?;
        fs::File::open(dir)?.sync_all()
    }
}

/// What the provider said last to this agent. None: never heard, or there is no provider.
pub fn held(config: &Config) -> Option<Expected> {
    config.provider.as_ref()?;
    Kept::below(&config.state_dir).load().filter(|kept| kept.agent == config.name)
}

/// An answer of `/expected`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Answer {
    Delta(ExpectedDelta),
    Whole(Expected),
}

/// Follows the provider for ever, from what is held on: keeps a question open until something else is expected, merges, and
/// tells the groups.
pub async fn follow(
    provider: Provider,
    mut held: Option<Expected>,
    config: Arc<Config>,
    shared: Arc<Shared>,
    state: Arc<State>,
) {
    let kept = Kept::below(&config.state_dir);
    let mut has_missed = false;
    let mut pause = Pause::default();
    loop {
        let asked = Instant::now();
        let have = held.as_ref().filter(|_| !has_missed).map(|held| held.digest.as_str());
        let answer = ask(&provider, &config.name, have).await;
        shared.provider.store(provider.address().map(Arc::new));
        state.heard(answer.as_ref().map(|_| ()).map_err(Clone::clone));
        match answer {
            Ok(None) => {
                pause = Pause::default();
                sleep_until(asked + APART).await;
            }
            Ok(Some(answer)) => {
                pause = Pause::default();
                let Some(next) = apply(held.as_ref(), answer) else {
                    has_missed = true;
                    sleep_until(asked + APART).await;
                    continue;
                };
                has_missed = false;
                let (revision, digest) = (next.revision, &next.digest);
                tracing::info!(revision, digest, sites = next.sites.len(), names = next.names.len(), "expected");
                keep(&kept, next.clone()).await;
                shared.expect(merge(next.clone(), &config));
                held = Some(next);
            }
            Err(_) => sleep(pause.longer()).await,
        }
    }
}

async fn keep(kept: &Kept, next: Expected) {
    let kept = kept.clone();
    if let Ok(Err(error)) = spawn_blocking(move || kept.store(&next)).await {
        tracing::warn!(%error, "what is expected is not kept on disk: a start without the provider has the one before");
    }
}

/// None: nothing new.
async fn ask(provider: &Provider, agent: &str, have: Option<&str>) -> Result<Option<Answer>, String> {
    let hold = HOLD.as_secs();
    let path = match have {
        Some(digest) => format!("/api/agents/{agent}/expected?wait={hold}s&have={digest}"),
        None => format!("/api/agents/{agent}/expected"),
    };
    let answer = provider.get(&path, PATIENCE).await.map_err(|error| error.to_string())?;
    match answer.status().as_u16() {
        200 => {
            let answer: Answer = serde_json::from_slice(answer.body())
                .map_err(|error| format!("what it expects is not understood ({error}); is it another version?"))?;
            let digest = match &answer {
                Answer::Delta(delta) => &delta.digest,
                Answer::Whole(whole) => &whole.digest,
            };
            Ok((have != Some(digest)).then_some(answer))
        }
        304 => Ok(None),
        status => Err(refused(status, answer.body())),
    }
}

fn apply(held: Option<&Expected>, answer: Answer) -> Option<Expected> {
    match answer {
        Answer::Whole(whole) => Some(whole),
        Answer::Delta(delta) => held?.clone().changed_by(delta),
    }
}

/// Why a request was refused, in the provider's own words where there are some.
pub fn refused(status: u16, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        #[serde(default)]
        title: String,
        #[serde(default)]
        detail: String,
    }
    let words = serde_json::from_slice(body).map(|Problem { title, detail }| format!("{title}: {detail}"));
    let words = words.unwrap_or_else(|_| "it gives no reason".to_owned());
    let remedy = match status {
        401 => "; make a token with `charliehub-provider token create --role agent`",
        403 => "; the token is another agent's, or of another role",
        _ => "",
    };
    format!("it answers {status}: {}{remedy}", words.chars().take(300).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> Config {
        toml::from_str(toml).unwrap()
    }

    const OWN: &str = r#"
        name = "edge"
        [[sites]]
        name = "uk"
        networks = ["10.44.0.0/16"]
        tunnels = []
        [policy.certificates]
        names = ["own.test"]
        except = ["elsewhere.test"]
        [[policy.units]]
        name = "docker.service"
        [[policy.vpn]]
        interface = "wg-clients"
        public_key = "k"
        endpoint = "own.test:51820"
        addresses = ["10.99.0.1/24"]
        [[peers]]
        name = "anna"
        public_key = "own"
        addresses = ["10.99.0.7/32"]
    "#;

    #[test]
    fn the_own_file_replaces_sites_and_adds_the_rest() {
        let heard: Expected = serde_json::from_value(serde_json::json!({
            "agent": "edge", "revision": 4, "digest": "d",
            "sites": [{ "name": "uk", "networks": ["10.1.0.0/16"], "tunnels": [] }, { "name": "fr", "networks": [], "tunnels": [] }],
            "policy": {
                "units": [{ "name": "cron.service" }],
                "vpn": [{ "interface": "wg-clients", "public_key": "h", "endpoint": "h.test:1", "addresses": [] }],
            },
            "peers": [
                { "name": "anna", "public_key": "heard", "addresses": ["10.99.0.8/32"] },
                { "name": "ben", "public_key": "heard", "addresses": ["10.99.0.9/32"] },
            ],
            "names": { "a.test": { "entry_point": "web2", "resolver": "le" }, "elsewhere.test": { "entry_point": "web2" } },
        }))
        .unwrap();
        let all = merge(heard, &config(OWN));
        let uk = all.sites.iter().find(|site| site.name == "uk").unwrap();
        assert_eq!((all.sites.len(), uk.networks[0].to_string()), (2, "10.44.0.0/16".to_owned()));
        assert_eq!(
            all.policy.units.iter().map(|unit| &*unit.name).collect::<Vec<_>>(),
            ["cron.service", "docker.service"]
        );
        assert_eq!(all.names.keys().map(String::as_str).collect::<Vec<_>>(), ["a.test", "own.test"]);
        assert_eq!(all.names["a.test"].resolver.as_deref(), Some("le"));
        let peers: Vec<_> = all.peers.iter().map(|peer| (&*peer.name, &*peer.public_key)).collect();
        assert_eq!(peers, [("ben", "heard"), ("anna", "own")]);
        assert_eq!(all.policy.vpn.iter().map(|vpn| &*vpn.endpoint).collect::<Vec<_>>(), ["own.test:51820"]);
    }

    #[test]
    fn the_file_alone_is_enough() {
        let all = merge(Expected::default(), &config(OWN));
        assert_eq!((&*all.agent, all.sites.len(), all.names.len()), ("edge", 1, 1));
    }

    #[test]
    fn what_is_kept_is_read_back_and_what_is_torn_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::below(dir.path());
        assert_eq!(kept.load(), None);
        let heard = Expected { digest: "d".to_owned(), ..Expected::default() };
        kept.store(&heard).unwrap();
        assert_eq!(kept.load(), Some(heard));
        fs::write(dir.path().join("expected.json"), b"{\"agent\":\"e").unwrap();
        assert_eq!(kept.load(), None);
    }

    #[test]
    fn a_refusal_is_told_in_the_providers_words() {
        let said = refused(403, br#"{"title":"Not allowed","detail":"this token is of agent hub3"}"#);
        assert_eq!(
            said,
            "it answers 403: Not allowed: this token is of agent hub3; the token is another agent's, or of another role"
        );
        assert_eq!(refused(502, b"<html>"), "it answers 502: it gives no reason");
    }
}
