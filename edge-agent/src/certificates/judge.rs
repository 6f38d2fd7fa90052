//! Says of each name, of each `acme.json` and of each file how its certificates stand.
//!
//! Pure, between what was read (`served`, `stored`, `files`) and the samples. What is served decides; what is stored
//! explains: a fault that is in both is told once, of what is served. Of several faults the worst is told first.

use std::{path::Path, time::Duration};

use charliehub_proto::finding::Status;
use jiff::{SignedDuration, Timestamp};

use super::{
    chain::{Chain, Fault, Leaf},
    files, lead, name,
    stored::{Content, Kept, Key, Storage},
    turn::Heard,
    wanted::{Origin, Wanted},
};
use crate::{clock::Now, sample::Sample};

pub(super) const SERVED: &str = "certificate";
pub(super) const STORED: &str = "certificate-stored";
pub(super) const FILES: &str = "certificate-files";
pub(super) const STORAGE: &str = "acme-storage";

/// What is wrong with a certificate.
struct Problem {
    status: Status,
    /// Goes on a sentence that begins with whose it is.
    says: String,
    remedy: String,
    /// It is so by the hour, which may be wrong.
    is_by_hour: bool,
    /// It has a window of its own, so that one look is enough.
    is_settled: bool,
}

impl Problem {
    fn new(status: Status, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status, says: says.into(), remedy: remedy.into(), is_by_hour: false, is_settled: false }
    }

    fn critical(says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Status::Critical, says, remedy)
    }

    fn warning(says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Status::Warning, says, remedy)
    }

    fn by_hour(mut self) -> Self {
        self.is_by_hour = true;
        self
    }
}

/// How a chain is looked at.
#[derive(Clone, Copy)]
struct View<'a> {
    /// What it must be for.
    name: &'a str,
    origin: Origin,
    allow_staging: bool,
}

/// What is served for a name. `differs`: for how long that has been another certificate than `acme.json` holds, and the
/// windows for a warning and for critical. `is_missing`: `acme.json` was read, and holds nothing for it.
pub(super) fn served(
    wanted: &Wanted,
    heard: &Heard,
    differs: Option<(Duration, Duration, Duration)>,
    is_missing: bool,
    allow_staging: bool,
    now: Now,
) -> Sample {
    let Wanted { name, origin, .. } = wanted;
    let entry_point = wanted.entry_point.map(|at| at.to_string()).unwrap_or_default();
    let whose = format!("the certificate that is served for {name}");
    let source = format!("TLS handshake with {entry_point}");
    let chain = match heard {
        Heard::Unreachable(why) => {
            return Sample::unknown(SERVED, name, format!("{name} could not be asked for at {entry_point}: {why}"))
                .source(source)
                .remedy(format!(
                    "see that Traefik runs and listens there (`ss -ltn`); `certificates.entry_points` says where {} is",
                    wanted.entry_point_name
                ));
        }
        Heard::Refused(why) => {
            return Sample::critical(SERVED, name, format!("the entry point serves no certificate for {name}: {why}"))
                .source(source)
                .remedy(format!(
                    "see Traefik's log for {name}; `sniStrict` and the TLS options refuse names and clients"
                ));
        }
        Heard::NotACertificate => {
            return Sample::critical(SERVED, name, format!("{whose} is not a certificate"))
                .source(source)
                .remedy(renew(name));
        }
        Heard::Chain(chain) => chain,
    };
    let mut problems = of_chain(chain, View { name, origin: *origin, allow_staging }, now.wall);
    if let Some((lasted, warning, critical)) = differs
        && lasted >= warning
    {
        let status = if lasted >= critical { Status::Critical } else { Status::Warning };
        let says = format!("has been another one than acme.json holds for {}", span(lasted));
        let remedy = "restart Traefik, for it did not load what acme.json holds; or remove the certificate (a file, another \
                      store) that comes before it";
        problems.push(Problem { is_settled: true, ..Problem::new(status, says, remedy) });
    }
    if is_missing && !problems.is_empty() {
        problems.push(Problem::new(Status::Ok, "is not in acme.json: Traefik never got one", ""));
    }
    say(SERVED, name, &whose, problems, &chain.leaf, chain.until, now).source(source)
}

/// A name that is listed, and where to ask for it is not said.
pub(super) fn unasked(wanted: &Wanted) -> Sample {
    let Wanted { name, entry_point_name, .. } = wanted;
    Sample::unknown(SERVED, name, format!("nobody says where entry point {entry_point_name} is, to ask for {name}"))
        .remedy(format!(
            "write it in the agent's file: `[certificates.entry_points]`, `{entry_point_name} = \"127.0.0.1:443\"`"
        ))
}

/// What `acme.json` holds for a name: the best of all that fit. None when it holds nothing, unless nobody tells what is
/// served.
pub(super) fn stored(
    wanted: &Wanted,
    kept: &[&Kept],
    heard: Option<&Heard>,
    is_missing: bool,
    allow_staging: bool,
    now: Now,
) -> Option<Sample> {
    let Wanted { name, origin, .. } = wanted;
    if *origin == Origin::Default {
        return None;
    }
    let served = match heard {
        Some(Heard::Chain(chain)) => Some(&chain.leaf.fingerprint),
        Some(Heard::Refused(_) | Heard::NotACertificate | Heard::Unreachable(_)) | None => None,
    };
    let judged = kept.iter().map(|kept| {
        let whose = format!("the certificate that acme.json holds for {name}");
        let source = format!("resolver {}", kept.resolver);
        let Some(chain) = &kept.chain else {
            return Sample::critical(STORED, name, format!("{whose} is not a certificate"))
                .source(source)
                .remedy(forget(name));
        };
        let is_served = served == Some(&chain.leaf.fingerprint);
        let mut problems = Vec::new();
        if !is_served {
            problems = of_chain(chain, View { name, origin: *origin, allow_staging }, now.wall);
        }
        if kept.key == Key::Other {
            problems.push(Problem::critical("has a key beside it that is not its own", forget(name)));
        }
        if !kept.is_leaf_first {
            problems.push(Problem::warning("has its chain in the wrong order: the leaf is not first", forget(name)));
        }
        if is_served && problems.is_empty() {
            return Sample::ok(STORED, name, format!("{whose} is the one that is served")).source(source);
        }
        say(STORED, name, &whose, problems, &chain.leaf, chain.until, now).source(source)
    });
    let best = judged.min_by_key(|sample| sample.status);
    let missing = || {
        let text = format!("acme.json holds no certificate for {name}");
        Sample::warning(STORED, name, text).remedy(renew(name))
    };
    best.or_else(|| (is_missing && served.is_none()).then(missing))
}

/// What to say of a file that is not whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    /// It was torn three times within the window: nobody is writing it.
    pub is_torn_for_good: bool,
    /// It was empty before.
    pub was_empty: bool,
}

/// An `acme.json` itself. `is_wanted`: there is a name that is in none; `leftover`: names that it holds and nobody expects.
pub(super) fn storage(
    path: &Path,
    storage: &Storage,
    trouble: Trouble,
    is_wanted: bool,
    leftover: &[String],
) -> Sample {
    let target = path.display().to_string();
    let unknown = |text: String, remedy: &str| Sample::unknown(STORAGE, &target, text).remedy(remedy);
    let good = |text: String| Sample::ok(STORAGE, &target, text);
    let write = |text: String| {
        let remedy = "look at it beside a backup, and at the disk's room: Traefik starts without the certificates of a file \
                      that it cannot read";
        Sample::critical(STORAGE, &target, text).remedy(remedy).confirmed_by(1)
    };
    let sample = match &storage.content {
        Content::Missing => unknown(
            format!("there is no {target}"),
            "name the file that Traefik's `storage` names in `certificates.acme_json`; Traefik makes it when it starts",
        ),
        Content::Directory => write(format!("{target} is a directory")).remedy(format!(
            "stop Traefik, `rmdir {0} && install -m 600 /dev/null {0}`, start it: Docker made a directory where the \
             mount's file was missing",
            quoted(&target)
        )),
        Content::Unreadable(why) => unknown(
            format!("{target} cannot be read: {why}"),
            "give the agent's unit CAP_DAC_READ_SEARCH (`AmbientCapabilities=`)",
        ),
        Content::TooLarge(bytes) => unknown(
            format!("{target} has {} MiB: it is not read", bytes >> 20),
            "raise `certificates.largest`, if this is what Traefik wrote",
        ),
        Content::Empty if !trouble.was_empty => {
            unknown(format!("{target} is empty: it may be in the middle of being written"), "look again")
        }
        Content::Empty if is_wanted => {
            Sample::warning(STORAGE, &target, format!("{target} is empty: Traefik has nothing yet"))
                .remedy("see Traefik's log for what its resolver says; it needs a router that names it")
        }
        Content::Empty => good(format!("{target} is empty, and nothing is missing in it")),
        Content::Torn(why) if trouble.is_torn_for_good => write(format!("{target} {why}, and nobody is writing it")),
        Content::Torn(why) => {
            unknown(format!("{target} {why}: it may be in the middle of being written"), "look again")
        }
        Content::Whole(stored) if stored.certificates.is_empty() && is_wanted => {
            Sample::warning(STORAGE, &target, format!("{target} holds no certificate"))
                .remedy("see Traefik's log for what its resolver says: `docker logs traefik 2>&1 | grep -i acme`")
        }
        Content::Whole(stored) => {
            let sample = good(format!("{target} holds {} certificates", stored.certificates.len()));
            if leftover.is_empty() {
                sample
            } else {
                sample.observed(format!("nobody expects {} of them: {}", leftover.len(), some(leftover)))
            }
        }
    };
    match storage.mode {
        Some(mode) if mode & 0o077 != 0 && sample.status != Status::Critical => Sample::critical(
            STORAGE,
            &target,
            format!("{target} has mode {mode:o}: Traefik refuses it at its next start"),
        )
        .observed(format!("{mode:o}"))
        .expected("600")
        .remedy(format!("chmod 600 {}", quoted(&target))),
        _ => sample,
    }
}

/// A PEM file. Whose it is and who trusts it is not known: time, strength and key are judged, of each certificate in it.
pub(super) fn file(file: &files::File, now: Now) -> Sample {
    let target = file.path.display().to_string();
    let (leaves, key) = match &file.content {
        files::Content::Missing => {
            return Sample::critical(FILES, &target, format!("there is no {target}"))
                .remedy("put the certificate there, or take it out of the policy (`certificates.files`)");
        }
        files::Content::Unreadable(why) => {
            return Sample::unknown(FILES, &target, format!("{target} cannot be read: {why}"))
                .remedy("give the agent's unit CAP_DAC_READ_SEARCH (`AmbientCapabilities=`)");
        }
        files::Content::None => {
            return Sample::critical(FILES, &target, format!("{target} holds no certificate"))
                .remedy("put the certificate there as PEM, or take it out of the policy (`certificates.files`)");
        }
        files::Content::Certificates(leaves, key) => (leaves, *key),
    };
    let whose = |leaf: &Leaf| format!("the certificate of {} in {target}", leaf.subject);
    let judged = leaves.iter().enumerate().map(|(at, leaf)| {
        let mut problems = Vec::from_iter(of_time(leaf, leaf.not_after, "renew it", now.wall));
        problems.extend(of_strength(leaf, "make a new key, and a certificate for it"));
        if at == 0 && key == Key::Other {
            problems
                .push(Problem::critical("has a key beside it that is not its own", "put the certificate's key there"));
        }
        say(FILES, &target, &whose(leaf), problems, leaf, leaf.not_after, now)
    });
    let worst = judged.reduce(|worst, next| if next.status > worst.status { next } else { worst });
    worst.unwrap_or_else(|| Sample::unknown(FILES, &target, format!("{target} holds no certificate")))
}

fn of_chain(chain: &Chain, view: View<'_>, now: Timestamp) -> Vec<Problem> {
    let View { name, origin, allow_staging } = view;
    let leaf = &chain.leaf;
    let remedy = renew(name);
    let mut problems = Vec::new();
    if origin != Origin::Default && leaf.subject == "TRAEFIK DEFAULT CERT" {
        problems.push(Problem::critical("is Traefik's default one", remedy));
        return problems;
    }
    problems.extend(of_time(leaf, chain.until, &remedy, now));
    // With no resolver the entry point's own certificate is what is wanted: nobody trusts it, and it has no names.
    if !(origin == Origin::Default && leaf.is_self_signed) {
        if !leaf.names.iter().any(|alternative| name::covers(alternative, name)) {
            let says = match leaf.names.as_slice() {
                [] => "is for no name: clients do not look at its common name".to_owned(),
                names => format!("is not for it but for {}", some(names)),
            };
            problems.push(Problem::critical(
                says,
                format!("give the router a certificate for {name}: `tls.domains`, its resolver"),
            ));
        }
        let is_staging = leaf.issuer.contains("STAGING") || leaf.issuer.starts_with("Fake ");
        if is_staging && !allow_staging {
            let says = format!("is from a staging authority, `{}`, which clients do not trust", leaf.issuer);
            problems.push(Problem::warning(
                says,
                "take `caServer` out of Traefik's resolver, remove the certificate from acme.json, restart Traefik",
            ));
        }
        problems.extend(
            chain.fault.as_ref().filter(|_| !(is_staging && allow_staging)).map(|fault| of_fault(fault, &remedy, now)),
        );
    }
    if !leaf.is_for_servers {
        problems.push(Problem::critical("is not for servers: its extended key usage lacks serverAuth", remedy.clone()));
    }
    problems.extend(of_strength(leaf, "set `keyType` of Traefik's resolver, and have it get a new certificate"));
    if !chain.is_in_order {
        problems.push(Problem::warning("has its chain in the wrong order, which some clients refuse", remedy));
    }
    problems
}

/// `until`: when it or what it hangs on ends.
fn of_time(leaf: &Leaf, until: Timestamp, remedy: &str, now: Timestamp) -> Option<Problem> {
    let left = until.duration_since(now);
    if leaf.not_before > now {
        let says =
            format!("is not valid before {}, in {}", leaf.not_before, lead::span(leaf.not_before.duration_since(now)));
        let remedy =
            "see that the clock of this host and of who issued it are right (`timedatectl`); else get another one";
        return Some(Problem::critical(says, remedy).by_hour());
    }
    if leaf.not_after < now {
        let says = format!("expired {} ago, at {}", lead::span(now.duration_since(leaf.not_after)), leaf.not_after);
        return Some(Problem::critical(says, remedy).by_hour());
    }
    if until < now {
        return Some(Problem::critical("hangs on an intermediate that expired", remedy).by_hour());
    }
    let (lifetime, status) = (leaf.lifetime(), lead::judge(left, leaf.lifetime()));
    if status == Status::Ok {
        return None;
    }
    let mut remedy = remedy.to_owned();
    if lifetime < SignedDuration::from_hours(30 * 24) {
        remedy.push_str(
            "; Traefik's `certificatesDuration` must say its lifetime in hours, or it is tried only once a day",
        );
    }
    let before = lead::span(lead::lead(lifetime));
    let says = format!(
        "has {} left of {}: it should have been renewed {before} before",
        lead::span(left),
        lead::span(lifetime)
    );
    Some(Problem::new(status, says, remedy).by_hour())
}

fn of_strength(leaf: &Leaf, remedy: &str) -> Vec<Problem> {
    let weak = leaf.rsa_bits.filter(|bits| *bits < 2_048).map(|bits| format!("has an RSA key of {bits} bits"));
    let sha1 = (leaf.is_sha1 && !leaf.is_self_signed).then(|| "is signed with SHA-1".to_owned());
    weak.into_iter().chain(sha1).map(|says| Problem::warning(says, remedy)).collect()
}

fn of_fault(fault: &Fault, remedy: &str, now: Timestamp) -> Problem {
    match fault {
        Fault::SelfSigned => Problem::critical("is self-signed", remedy),
        Fault::NoIssuer(issuer) => {
            let remedy = "serve the whole chain: the leaf, then its intermediates";
            Problem::critical(format!("comes without its issuer, `{issuer}`"), remedy)
        }
        Fault::Untrusted(root) => {
            let remedy = format!("{remedy}; an authority of yours is named in `certificates.authorities`");
            Problem::critical(format!("ends in `{root}`, which clients do not trust"), remedy)
        }
        Fault::Expired { intermediate, at } => {
            let ago = lead::span(now.duration_since(*at));
            Problem::critical(format!("hangs on the intermediate `{intermediate}`, which expired {ago} ago"), remedy)
                .by_hour()
        }
        Fault::NoAuthorities => {
            let remedy = "install ca-certificates, or name PEM files in `certificates.authorities`";
            Problem::new(Status::Unknown, "cannot be judged: this machine has no trusted authorities", remedy)
        }
        Fault::Other(said) => Problem::critical(format!("is refused by clients: {said}"), remedy),
    }
}

/// One sample of all problems; ok where there is none.
fn say(
    check: &'static str,
    target: &str,
    whose: &str,
    mut problems: Vec<Problem>,
    leaf: &Leaf,
    until: Timestamp,
    now: Now,
) -> Sample {
    if !now.is_trusted {
        problems.retain(|problem| !problem.is_by_hour);
    }
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.status));
    let mut all = problems.iter();
    let sample = match all.next() {
        Some(first) if first.status != Status::Ok => {
            let also: Vec<_> = all.map(|problem| problem.says.as_str()).collect();
            let also = if also.is_empty() { String::new() } else { format!("; also, it {}", also.join(", ")) };
            Sample::new(check, target, first.status, format!("{whose} {}{also}", first.says))
                .remedy(&first.remedy)
                .confirmed_by(if first.is_settled { 1 } else { 2 })
        }
        _ if !now.is_trusted => {
            Sample::unknown(check, target, format!("whether {whose} is valid cannot be told: the clock is not trusted"))
                .remedy("have the clock synchronised: `timedatectl set-ntp true`, then see `timedatectl`")
        }
        _ => Sample::ok(
            check,
            target,
            format!("{whose} is valid for {} more", lead::span(until.duration_since(now.wall))),
        ),
    };
    sample.observed(format!(
        "`{}` by `{}` for {}, {} to {}, SHA-256 {}",
        leaf.subject,
        leaf.issuer,
        some(&leaf.names),
        leaf.not_before,
        leaf.not_after,
        fingerprint(leaf)
    ))
}

/// As `openssl x509 -fingerprint -sha256` begins.
fn fingerprint(leaf: &Leaf) -> String {
    let [a, b, c, d, ..] = leaf.fingerprint;
    format!("{a:02X}:{b:02X}:{c:02X}:{d:02X}...")
}

fn renew(name: &str) -> String {
    format!(
        "see why Traefik gets none for {name} (`docker logs traefik 2>&1 | grep -i {name}`): the resolver that its router \
         names, where DNS leads, the port of the challenge"
    )
}

fn forget(name: &str) -> String {
    format!("stop Traefik, remove the certificate of {name} from acme.json, start it: it gets another one")
}

fn span(duration: Duration) -> String {
    lead::span(SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX))
}

/// A few of them, and how many more.
fn some(names: &[String]) -> String {
    let (few, more) = names.split_at(names.len().min(5));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    format!("{}{more}", few.join(", "))
}

/// As a shell takes it for one word.
fn quoted(path: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+:@".contains(char);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests;
