//! Certificates: will one fail us.
//!
//! Between what Traefik serves and keeps, and whoever asks for one of the names that should be served. In order: `wanted`
//! says which names; `authorities` whom clients trust; `stored` reads each `acme.json`, `files` other PEM files; `turn` says
//! which names are asked for now, and `served` asks; `chain` reads what came, `name` and `lead` hold the rules; `judge` says
//! how each stands. `watch` tells that a file changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use charliehub_proto::{expected::Expected, finding::Status};
use futures_util::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};

use self::{
    authorities::Authorities,
    chain::Chain,
    judge::Trouble,
    served::{Answer, Asker},
    stored::{Content, Kept, Storage, Stored},
    turn::{Asked, Heard, Turn},
    wanted::{Origin, Wanted},
    watch::Watch,
};
use crate::{
    catalogue::Check,
    clock::Now,
    config,
    look::Look,
    metrics::{LIFETIME_LEFT, NOT_AFTER, NOT_BEFORE},
    sample::{self, Sample},
};

mod authorities;
mod chain;
mod files;
mod judge;
mod lead;
pub(crate) mod name;
mod served;
mod stamp;
mod stored;
mod turn;
mod wanted;
mod watch;

pub const CHECKS: &[Check] = &[
    Check {
        name: judge::SERVED,
        what: "what the entry point serves for a name, by a handshake with SNI on its real socket",
        why: "It is what visitors get. Critical: expired or not yet valid, for another name, self-signed, without its \
              intermediate or with an expired one, from nobody whom clients trust, not for servers, Traefik's default one; less \
              than a quarter left of the time in which Traefik renews (30 days of 90, 2 days of 6). Warning: less than three \
              quarters left of it; from a staging authority; an RSA key below 2048 bits; SHA-1; the chain in the wrong order. \
              Another certificate than acme.json holds is a warning after 2 minutes and critical after 10. Unknown: the entry \
              point does not answer, or the clock is not trusted. Look at Traefik's log for the name first.",
    },
    Check {
        name: judge::STORED,
        what: "what acme.json holds for a name, of all resolvers; any that fits counts",
        why: "It is what Traefik serves after its next start. What is wrong with the certificate itself is told once, by \
              `certificate`, while the same one is served. Critical: it is not a certificate, or the key beside it is \
              another's. Warning: its leaf is not the first of the chain.",
    },
    Check {
        name: judge::STORAGE,
        what: "each acme.json: its mode, and that it is whole",
        why: "With a mode above 600 Traefik starts without its resolver, so that is critical at once, though everything is \
              served still. Traefik rewrites the file in place: torn once is unknown, three times in 10 s critical. Empty, or \
              without a certificate, is a warning where one is expected.",
    },
    Check {
        name: judge::FILES,
        what: "PEM files and directories that the policy names (`certificates.files`)",
        why: "Certificates that Traefik does not renew: VPNs, mail, the provider's own. Judged by the time left as a part of \
              their lifetime, by key strength, and by the key beside them. Who trusts them is not known, and not judged.",
    },
];

/// An entry point that failed so often in one look, and never answered in it, is not asked again in it; once the look's time
/// is over, one that failed at all.
const GIVEN_UP: u32 = 3;

/// The group.
pub struct Certificates {
    settings: Arc<config::Certificates>,
    asker: Option<Asker>,
    authorities: Arc<Authorities>,
    storages: Vec<Place>,
    turn: Turn,
    asked: BTreeMap<String, Asked>,
    /// Since when another certificate is served than is stored.
    differs: BTreeMap<String, Duration>,
    watch: Option<Watch>,
}

/// An `acme.json` from look to look.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    storage: Option<Storage>,
    /// What it held when it was whole: also while it cannot be read.
    last: Option<Arc<Stored>>,
    /// When it was torn, since it was whole.
    torn: Vec<Duration>,
    /// It was empty when it was read last.
    is_empty: bool,
    trouble: Trouble,
}

impl Certificates {
    pub fn new(settings: &config::Certificates) -> Self {
        let asker = Asker::new(settings.handshake)
            .inspect_err(|error| tracing::error!(%error, "no TLS: nothing can be asked for"))
            .ok();
        let place = |path: &PathBuf| Place {
            path: path.clone(),
            storage: None,
            last: None,
            torn: Vec::new(),
            is_empty: false,
            trouble: Trouble::default(),
        };
        Self {
            asker,
            authorities: Arc::default(),
            storages: settings.acme_json.iter().map(place).collect(),
            turn: Turn::default(),
            asked: BTreeMap::new(),
            differs: BTreeMap::new(),
            watch: None,
            settings: Arc::new(settings.clone()),
        }
    }

    fn watched(&self) -> Vec<PathBuf> {
        self.settings.acme_json.iter().chain(&self.settings.authorities).cloned().collect()
    }

    /// All that is on disk.
    async fn read(&mut self, paths: Vec<String>, now: Now) -> Vec<files::File> {
        let (settings, mut authorities) = (self.settings.clone(), self.authorities.clone());
        let mut earlier: Vec<_> = self.storages.iter_mut().map(|place| mem::take(&mut place.storage)).collect();
        let reading = tokio::task::spawn_blocking(move || {
            if authorities.are_stale(&settings.authorities, now.boot) {
                authorities = Arc::new(Authorities::read(&settings.authorities, now.boot));
            }
            for (storage, path) in earlier.iter_mut().zip(&settings.acme_json) {
                *storage = Some(Storage::read(path, settings.largest, &authorities, now.wall, storage.as_ref()));
            }
            (authorities, earlier, files::read(&paths))
        });
        // A panic in there is this look's, as everywhere.
        let (authorities, read, files) = match reading.await {
            Ok(read) => read,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return Vec::new(),
            },
        };
        self.authorities = authorities;
        for (place, storage) in self.storages.iter_mut().zip(read) {
            place.take(storage, self.settings.torn, now.boot);
        }
        files
    }

    /// Asks for those names whose turn it is.
    async fn ask(&mut self, wanted: &[Wanted], now: Now) {
        self.asked.retain(|name, _| wanted.binary_search_by(|wanted| wanted.name.cmp(name)).is_ok());
        let Some(asker) = &self.asker else { return };
        let names = wanted.iter().filter_map(|wanted| Some((wanted.name.as_str(), wanted.entry_point?)));
        let picked = self.turn.pick(names, &self.asked, self.settings.rate, now.boot);
        let until = tokio::time::Instant::now() + self.settings.handshake;
        let silent = &Mutex::new(BTreeMap::<SocketAddr, (u32, String)>::new());
        let asking = picked.into_iter().map(|(name, at)| async move {
            // A look ends in time, however slow they are.
            let is_late = tokio::time::Instant::now() > until;
            let given_up = {
                let silent = silent.lock().unwrap_or_else(PoisonError::into_inner);
                silent.get(&at).filter(|(times, _)| is_late || *times >= GIVEN_UP).map(|(_, why)| why.clone())
            };
            let answer = match given_up {
                Some(why) => Answer::Unreachable(why),
                // It answers, so the next look asks for the rest.
                None if is_late => return None,
                None => asker.ask(at, &name::asked(&name)).await,
            };
            let mut silent = silent.lock().unwrap_or_else(PoisonError::into_inner);
            match &answer {
                Answer::Unreachable(why) => silent.entry(at).or_insert_with(|| (0, why.clone())).0 += 1,
                Answer::Chain(_) | Answer::Refused(_) => {
                    silent.remove(&at);
                }
            }
            Some((name, at, answer))
        });
        let answers: Vec<_> = stream::iter(asking).buffer_unordered(self.settings.concurrency.max(1)).collect().await;
        for (name, at, answer) in answers.into_iter().flatten() {
            let earlier = self.asked.get(&name);
            let (heard, digest) = hear(answer, &self.authorities, earlier, now);
            if wanted.len() > self.settings.one_by_one
                && let Heard::Chain(chain) = &heard
            {
                let left = chain.until.duration_since(now.wall).as_secs_f64() / chain.leaf.lifetime().as_secs_f64();
                ::metrics::histogram!(LIFETIME_LEFT).record(left.clamp(0.0, 1.0));
            }
            self.asked.insert(name, Asked { at, when: now.boot, heard, digest, is_ok: false });
        }
    }

    fn judge(&mut self, expected: &Expected, wanted: &[Wanted], files: &[files::File], now: Now) -> Vec<Sample> {
        let (one_by_one, allow_staging) = (self.settings.one_by_one, expected.policy.certificates.allow_staging);
        let is_few = wanted.len() <= one_by_one;
        let lasts: Vec<_> = self.storages.iter().filter_map(|place| place.last.clone()).collect();
        let index = index(&lasts);
        let is_read = !self.storages.is_empty() && self.storages.iter().all(Place::is_known);
        let (mut served, mut stored, mut differs) = (Vec::new(), Vec::new(), BTreeMap::new());
        for wanted in wanted {
            let kept = fitting(&index, &wanted.name);
            let is_missing = is_read && kept.is_empty() && wanted.origin == Origin::Acme;
            let asked = self.asked.get_mut(&wanted.name).filter(|_| wanted.entry_point.is_some());
            if let Some(asked) = asked {
                let since = (is_read && differ(wanted, &asked.heard, &kept))
                    .then(|| self.differs.get(&wanted.name).copied().unwrap_or(now.boot));
                let lasted = since.map(|since| {
                    let lasted = now.boot.saturating_sub(since);
                    (lasted, self.settings.differs_warning, self.settings.differs_critical)
                });
                let sample = judge::served(wanted, &asked.heard, lasted, is_missing, allow_staging, now);
                asked.is_ok = sample.status == Status::Ok && since.is_none();
                differs.extend(since.map(|since| (wanted.name.clone(), since)));
                if let Heard::Chain(chain) = &asked.heard
                    && (is_few || sample.status != Status::Ok)
                {
                    show(&wanted.name, "served", &chain.leaf);
                }
                served.push(sample);
            } else if wanted.origin == Origin::Any && wanted.entry_point.is_none() {
                served.push(judge::unasked(wanted));
            }
            let heard = self.asked.get(&wanted.name).map(|asked| &asked.heard);
            if let Some(sample) = judge::stored(wanted, &kept, heard, is_missing, allow_staging, now) {
                let newest =
                    kept.iter().filter_map(|kept| kept.chain.as_ref()).max_by_key(|chain| chain.leaf.not_after);
                if let Some(chain) = newest.filter(|_| is_few || sample.status != Status::Ok) {
                    show(&wanted.name, "stored", &chain.leaf);
                }
                stored.push(sample);
            }
        }
        self.differs = differs;
        let (all_served, all_stored) = (served.len(), stored.len());
        let mut samples = sample::few(judge::SERVED, "the certificates", served, all_served, one_by_one);
        samples.extend(sample::few(judge::STORED, "the certificates", stored, all_stored, one_by_one));
        let is_wanted =
            wanted.iter().any(|wanted| wanted.origin != Origin::Default && fitting(&index, &wanted.name).is_empty());
        samples.extend(self.storages.iter().filter_map(|place| {
            let leftover = place.last.as_ref().map_or_else(Vec::new, |stored| leftover(stored, wanted));
            Some(judge::storage(&place.path, place.storage.as_ref()?, place.trouble, is_wanted, &leftover))
        }));
        for file in files {
            if let files::Content::Certificates(leaves, _) = &file.content
                && let Some(leaf) = leaves.first()
            {
                show(&file.path.display().to_string(), "file", leaf);
            }
            samples.push(judge::file(file, now));
        }
        samples
    }
}

impl Look for Certificates {
    const NAME: &'static str = "certificates";

    async fn look(&mut self, expected: &Arc<Expected>, now: Now) -> Vec<Sample> {
        // Before anything is read, so that no change falls between.
        if self.watch.is_none() {
            let watch = Watch::on(&self.watched());
            self.watch = watch.inspect_err(|error| tracing::warn!(%error, "files are not watched")).ok();
        }
        let (wanted, strange) = wanted::wanted(expected, &self.settings.entry_points);
        let files = self.read(expected.policy.certificates.files.clone(), now).await;
        self.ask(&wanted, now).await;
        let mut samples = self.judge(expected, &wanted, &files, now);
        samples.extend(strange.into_iter().map(|name| {
            let text = format!("`{name}` cannot be asked for");
            Sample::unknown(judge::SERVED, name, text)
                .remedy("write it in lower case letters, digits and hyphens, other letters in punycode (`xn--`)")
        }));
        samples.extend(self.authorities.unread.iter().map(|(path, why)| {
            let path = path.display().to_string();
            let text = format!("the authorities of {path} are not known: {why}");
            Sample::unknown(judge::FILES, path, text)
                .remedy("mend `certificates.authorities`: a PEM file that we may read")
        }));
        samples
    }

    /// A file changed; or one that was torn may be whole by now.
    async fn wake(&mut self) {
        let again = self.storages.iter().any(Place::is_doubtful).then_some(self.settings.torn / 8);
        let again = async {
            match again {
                Some(again) => tokio::time::sleep(again).await,
                None => std::future::pending().await,
            }
        };
        let paths = self.watched();
        let changed = async {
            if let Some(watch) = &mut self.watch {
                match watch.changed(&paths).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%error, "files are not watched any more"),
                }
            }
            // Looks at their interval go on, and watch again.
            self.watch = None;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = again => {}
            () = changed => {}
        }
    }
}

impl Place {
    fn take(&mut self, storage: Option<Storage>, window: Duration, boot: Duration) {
        self.storage = storage;
        let Some(storage) = &self.storage else { return };
        let was_empty = mem::replace(&mut self.is_empty, storage.content == Content::Empty);
        match &storage.content {
            Content::Whole(stored) => {
                self.last = Some(stored.clone());
                self.torn.clear();
                self.trouble = Trouble::default();
            }
            Content::Torn(_) => {
                self.torn.retain(|at| boot.saturating_sub(*at) <= window);
                self.torn.push(boot);
                let is_torn_for_good = self.trouble.is_torn_for_good || self.torn.len() >= 3;
                self.trouble = Trouble { is_torn_for_good, was_empty: false };
            }
            Content::Empty => {
                self.trouble = Trouble { is_torn_for_good: false, was_empty };
                if was_empty {
                    self.last = None;
                }
            }
            Content::Missing | Content::Directory | Content::Unreadable(_) | Content::TooLarge(_) => {
                self.trouble = Trouble::default();
            }
        }
    }

    /// What it holds was read, or that it holds nothing.
    fn is_known(&self) -> bool {
        match self.storage.as_ref().map(|storage| &storage.content) {
            Some(Content::Whole(_)) => true,
            Some(Content::Empty) => self.trouble.was_empty,
            Some(
                Content::Torn(_)
                | Content::Missing
                | Content::Directory
                | Content::Unreadable(_)
                | Content::TooLarge(_),
            )
            | None => false,
        }
    }

    fn is_doubtful(&self) -> bool {
        match self.storage.as_ref().map(|storage| &storage.content) {
            Some(Content::Torn(_)) => !self.trouble.is_torn_for_good,
            Some(Content::Empty) => !self.trouble.was_empty,
            Some(
                Content::Whole(_)
                | Content::Missing
                | Content::Directory
                | Content::Unreadable(_)
                | Content::TooLarge(_),
            )
            | None => false,
        }
    }
}

/// What was served, read; the same as before is not judged again, unless it was found wanting then.
fn hear(answer: Answer, authorities: &Authorities, earlier: Option<&Asked>, now: Now) -> (Heard, [u8; 32]) {
    let chain = match answer {
        Answer::Chain(chain) => chain,
        Answer::Refused(why) => return (Heard::Refused(why), [0; 32]),
        Answer::Unreachable(why) => return (Heard::Unreachable(why), [0; 32]),
    };
    let mut digest = Sha256::new_with_prefix(authorities.digest);
    for one in &chain {
        digest.update(one);
    }
    let digest = digest.finalize().into();
    match earlier.filter(|earlier| earlier.digest == digest).map(|earlier| &earlier.heard) {
        Some(Heard::Chain(same)) if same.fault.is_none() => (Heard::Chain(same.clone()), digest),
        _ => match Chain::read(&chain, authorities, now.wall) {
            Ok(chain) => (Heard::Chain(Arc::new(chain)), digest),
            Err(_) => (Heard::NotACertificate, digest),
        },
    }
}

/// All that is stored, by the names that it is for: those in the certificate, and those that Traefik asked for.
fn index(stored: &[Arc<Stored>]) -> BTreeMap<&str, Vec<&Kept>> {
    let mut index: BTreeMap<&str, Vec<&Kept>> = BTreeMap::new();
    for kept in stored.iter().flat_map(|stored| &stored.certificates) {
        let names: BTreeSet<&str> = names(kept).collect();
        for name in names {
            index.entry(name).or_default().push(kept);
        }
    }
    index
}

fn names(kept: &Kept) -> impl Iterator<Item = &str> {
    let inside = kept.chain.iter().flat_map(|chain| &chain.leaf.names);
    inside.chain(&kept.domains).map(String::as_str)
}

fn fitting<'a>(index: &BTreeMap<&str, Vec<&'a Kept>>, name: &str) -> Vec<&'a Kept> {
    let wildcard = name.split_once('.').filter(|(label, _)| *label != "*").map(|(_, parent)| format!("*.{parent}"));
    let names = std::iter::once(name).chain(wildcard.as_deref());
    names.filter_map(|name| index.get(name)).flatten().copied().collect()
}

/// True when another certificate is served for it than any that is stored.
fn differ(wanted: &Wanted, heard: &Heard, kept: &[&Kept]) -> bool {
    let Heard::Chain(chain) = heard else { return false };
    let mut stored = kept.iter().filter_map(|kept| kept.chain.as_ref()).peekable();
    wanted.origin != Origin::Default
        && stored.peek().is_some()
        && !stored.any(|stored| stored.leaf.fingerprint == chain.leaf.fingerprint)
}

/// What is stored and nobody expects, by its first name. Nothing where nothing is expected.
fn leftover(stored: &Stored, wanted: &[Wanted]) -> Vec<String> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let exact: BTreeSet<&str> = wanted.iter().map(|wanted| wanted.name.as_str()).collect();
    let parents: BTreeSet<&str> = exact.iter().filter_map(|name| Some(name.split_once('.')?.1)).collect();
    let is_expected =
        |name: &str| exact.contains(name) || name.strip_prefix("*.").is_some_and(|parent| parents.contains(parent));
    let unexpected = stored.certificates.iter().filter(|kept| !names(kept).any(is_expected));
    unexpected.filter_map(|kept| kept.domains.first().cloned()).collect()
}

fn show(domain: &str, source: &'static str, leaf: &chain::Leaf) {
    for (name, at) in [(NOT_BEFORE, leaf.not_before), (NOT_AFTER, leaf.not_after)] {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact below 2^53")]
        let seconds = at.as_second() as f64;
        ::metrics::gauge!(name, "domain" => domain.to_owned(), "source" => source).set(seconds);
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod quiet_hour;
#[cfg(test)]
mod tests;
