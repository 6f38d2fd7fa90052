//! Section `[act]`: what the agent may do to its host.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use charliehub_proto::duration::text;
use ipnet::IpNet;
use serde::Deserialize;

/// Section `[act]`: what the agent may do to its host. Nothing, unless it is said here.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Act {
    /// Where it notes what it does, until the next boot. A file `hold` in it stops everything, `hold-SITE` what is about a site.
    pub run_dir: PathBuf,
    /// Where wg-quick reads `IF.conf` from: the keys that a boot has.
    pub conf_dir: PathBuf,
    pub failover: Vec<Failover>,
    pub restart: Vec<Restart>,
    pub re_resolve: Vec<ReResolve>,
    pub rotate: Vec<Rotate>,
    pub peers: Vec<Peers>,
    /// Who is connected to one of these TCP ports manages this host: the peer that leads there is not removed.
    pub management_ports: Vec<u16>,
    /// Networks that this host is managed from, connected or not: the same.
    pub managed_from: Vec<IpNet>,
}

impl Default for Act {
    fn default() -> Self {
        Self {
            run_dir: PathBuf::from("/run/charliehub-edge-agent"),
            conf_dir: PathBuf::from("/etc/wireguard"),
            failover: Vec::new(),
            restart: Vec::new(),
            re_resolve: Vec::new(),
            rotate: Vec::new(),
            peers: Vec::new(),
            management_ports: vec![22],
            managed_from: Vec::new(),
        }
    }
}

/// The key, its value, and why that cannot be.
type Wrong = (&'static str, String, String);

impl Act {
    pub(super) fn judge(&self) -> Result<(), Wrong> {
        for (key, dir) in [("run_dir", &self.run_dir), ("conf_dir", &self.conf_dir)] {
            if !dir.is_absolute() {
                return Err((key, dir.display().to_string(), "must begin with `/`".to_owned()));
            }
        }
        let Self { failover, restart, re_resolve, rotate, peers, .. } = self;
        each_once("failover", failover.iter().map(|one| &*one.site), is_site)?;
        each_once("restart", restart.iter().map(|one| &*one.site), is_site)?;
        each_once("re_resolve", re_resolve.iter().map(|one| &*one.site), is_site)?;
        each_once("rotate", rotate.iter().map(|one| &*one.site), is_site)?;
        each_once("peers", peers.iter().map(|one| &*one.interface), is_interface)
    }
}

/// What a name cannot be.
type Judged = Result<(), &'static str>;

fn is_site(name: &str) -> Judged {
    let is_one = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_one.then_some(()).ok_or("is no name of a site: letters, digits and hyphens, as its row has it")
}

fn is_interface(name: &str) -> Judged {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=+".contains(&byte);
    let is_one = (1..=15).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_plain);
    is_one
        .then_some(())
        .ok_or("is no name of an interface: at most 15 letters, digits and `-_.=+`, as `wg show` has it")
}

fn each_once<'a>(
    key: &'static str,
    names: impl Iterator<Item = &'a str>,
    judge: fn(&str) -> Judged,
) -> Result<(), Wrong> {
    let mut known = BTreeSet::new();
    for name in names {
        judge(name).map_err(|why| (key, name.to_owned(), why.to_owned()))?;
        if !known.insert(name) {
            return Err((key, name.to_owned(), format!("is named twice: leave one [[act.{key}]] for it")));
        }
    }
    Ok(())
}

/// What becomes of something that the agent could do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    #[default]
    Off,
    /// It is told when and what, and nothing is done.
    DryRun,
    Act,
}

/// How soon a silence is an outage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// A probe each second, and half a minute to think it over: some 40 s.
    #[default]
    Normal,
    /// A probe each half second, and 3 s: some 7 s.
    Fast,
}

/// Section `[[act.failover]]`: a site whose networks move from its tunnel of rank 1 to that of rank 2, and back.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failover {
    /// Its row has the networks, the tunnels, and the hosts that prove them.
    pub site: String,
    #[serde(default)]
    pub mode: Mode,
    #[serde(default)]
    pub profile: Profile,
    /// The first tunnel answers so long before anything moves back. Doubled, up to an hour, each time it was silent again.
    #[serde(with = "text", default = "return_after")]
    pub return_after: Duration,
    /// So long after a return a silence needs no second thought.
    #[serde(with = "text", default = "trial")]
    pub trial: Duration,
}

const fn return_after() -> Duration {
    Duration::from_mins(5)
}

const fn trial() -> Duration {
    Duration::from_secs(30)
}

/// Section `[[act.restart]]`: a site whose tunnels are started again when they are gone.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    pub site: String,
    #[serde(default)]
    pub mode: Mode,
    /// An interface that is gone comes back within so long, or is started again.
    #[serde(with = "text", default = "gone")]
    pub after: Duration,
}

const fn gone() -> Duration {
    Duration::from_secs(15)
}

/// Section `[[act.re_resolve]]`: a site that is called by a name, whose address may change.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReResolve {
    pub site: String,
    #[serde(default)]
    pub mode: Mode,
    /// The name is asked for once the last handshake is so old. A session that is in use is renewed after 120 s.
    #[serde(with = "text", default = "stale")]
    pub after: Duration,
}

const fn stale() -> Duration {
    Duration::from_secs(155)
}

/// Section `[[act.rotate]]`: a site whose tunnel may get another key: ours by `rotate-keys`, that of the far end when its agent
/// offers one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    pub site: String,
    #[serde(default)]
    pub mode: Mode,
    /// Also where no other way leads to the site. The old key comes back by itself at both ends, if the new one fails.
    #[serde(default)]
    pub only_way: bool,
}

/// Section `[[act.peers]]`: an interface whose peers are brought to what the rows say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// `wg-clients`, `wg-uk`: one that rows of sites or the policy's `vpn` have.
    pub interface: String,
    #[serde(default)]
    pub mode: Mode,
}
