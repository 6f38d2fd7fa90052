//! Files and directories: mode, owner, group and kind as the policy says, and data that its service can really write.
//!
//! A path that is named stands for itself. What a glob matches is one finding of the rule while it is right; each wrong
//! path is a finding of its own, up to [`MOST`] a rule, and stays one for a while, so that it is seen to be mended.
//! A glob that matches nothing is a warning: it proves nothing, and is more often a slip than a wish.

mod plan;
mod rights;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{Metadata, read_link},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use charliehub_proto::{
    finding::Status,
    policy::{self, FileKind},
};

pub use plan::{Mode, Plan, Rights, plan};
pub(super) use rights::Mounts;
use rights::{Names, User, Way};

use super::{
    glob::{Except, Glob, Walk},
    patient::Patient,
};
use crate::{clock::Now, config, sample::Sample};

const CHECK: &str = "file-mode";

/// So many wrong paths of a rule are named.
const MOST: usize = 100;

/// A path that was wrong is a finding of its own for so long after, so that it is seen to be right.
const REMEMBERED: Duration = Duration::from_mins(10);

#[derive(Debug)]
pub(super) struct Files {
    timeout: Duration,
    max_paths: usize,
    patient: Patient<Vec<Sample>>,
    /// What was wrong, and when last.
    wrong: Arc<BTreeMap<String, Duration>>,
}

impl Files {
    pub(super) fn new(settings: &config::Host) -> Self {
        Self {
            timeout: settings.timeout,
            max_paths: settings.max_paths,
            patient: Patient::default(),
            wrong: Arc::default(),
        }
    }

    pub(super) async fn look(&mut self, rules: &[policy::Files], now: Now) -> Vec<Sample> {
        let targets = targets(rules);
        let questions = rules.iter().zip(&targets).map(|(rule, target)| {
            let (rule, wrong, max) = (rule.clone(), self.wrong.clone(), self.max_paths);
            let name = target.clone();
            (target.clone(), move || read(&rule, &name, &wrong, max, &Host::read()))
        });
        let answers = self.patient.ask(self.timeout, questions).await;
        let mut worst: BTreeMap<String, Sample> = BTreeMap::new();
        for (target, samples) in targets.iter().zip(answers) {
            let samples = samples.unwrap_or_else(|why| {
                let text = format!("{target} could not be looked at: {why}");
                let remedy =
                    "see `dmesg`: a network file system whose server is gone? Else narrow the globs of the policy";
                vec![Sample::unknown(CHECK, target.clone(), text).remedy(remedy)]
            });
            for sample in samples {
                match worst.get(&sample.target) {
                    Some(other) if other.status >= sample.status => {}
                    _ => drop(worst.insert(sample.target.clone(), sample)),
                }
            }
        }
        let wrong = worst.values().filter(|sample| sample.status > Status::Unknown);
        let wrong = wrong.map(|sample| (sample.target.clone(), now.boot));
        let before = self.wrong.iter().filter(|(_, at)| now.boot.saturating_sub(**at) < REMEMBERED);
        self.wrong = Arc::new(before.map(|(target, at)| (target.clone(), *at)).chain(wrong).collect());
        worst.into_values().collect()
    }
}

/// What each rule is called: its first glob, numbered where another has the same.
fn targets(rules: &[policy::Files]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let name = |rule: &policy::Files| {
        let first = rule.paths.iter().find(|path| Glob::new(path).is_ok_and(|glob| !glob.is_literal()));
        let first = first.or(rule.paths.first()).map_or("a rule without paths", String::as_str);
        let count = seen.entry(first.to_owned()).and_modify(|count| *count += 1).or_insert(1);
        if *count == 1 { first.to_owned() } else { format!("{first} ({count})") }
    };
    rules.iter().map(name).collect()
}

/// What there is to know of the host for any rule.
#[derive(Debug, Default)]
struct Host {
    names: Names,
    mounts: Mounts,
}

impl Host {
    fn read() -> Self {
        Self { names: Names::read(), mounts: Mounts::read() }
    }
}

/// A rule that can be held against paths.
#[derive(Debug)]
struct Rule {
    kind: FileKind,
    mode: Option<u32>,
    owner: Option<u32>,
    group: Option<u32>,
    writer: Option<User>,
    is_secret: bool,
}

impl Rule {
    fn new(rule: &policy::Files, names: &Names) -> Result<Self, String> {
        let mode = rule.mode.as_ref().map(|text| {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            mode.ok_or_else(|| format!("the mode `{text}` of the policy is not octal"))
        });
        let user = |name: &String| {
            names.user(name).ok_or_else(|| format!("there is no user `{name}` in /etc/passwd; give its number"))
        };
        let group = rule.group.as_ref().map(|name| {
            names.group(name).ok_or_else(|| format!("there is no group `{name}` in /etc/group; give its number"))
        });
        Ok(Self {
            kind: rule.kind,
            mode: mode.transpose()?,
            owner: rule.owner.as_ref().map(user).transpose()?.map(|user| user.uid),
            group: group.transpose()?,
            writer: rule.writable_by.as_ref().map(user).transpose()?,
            is_secret: rule.secret,
        })
    }

    fn wanted(&self, names: &Names) -> String {
        let mode = self.mode.map_or("any mode".to_owned(), |mode| format!("{mode:03o}"));
        let any = || "any".to_owned();
        let owner = self.owner.map_or_else(any, |uid| names.of_user(uid));
        let group = self.group.map_or_else(any, |gid| names.of_group(gid));
        let writer = self.writer.as_ref().map_or(String::new(), |user| format!(", writable by {}", user.name));
        format!("{mode} {owner}:{group}{writer}")
    }
}

/// A path that is there.
#[derive(Debug)]
struct Seen {
    kind: Kind,
    mode: u32,
    uid: u32,
    gid: u32,
    /// What stands between a writer and it, where the rule has one.
    way: Option<Way>,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    /// Where to, and whether a directory is there.
    Link(PathBuf, bool),
    Other,
}

impl Seen {
    fn read(path: &Path, found: &Metadata, rule: &Rule, mounts: &Mounts) -> Self {
        let kind = found.file_type();
        let kind = if kind.is_symlink() {
            Kind::Link(read_link(path).unwrap_or_default(), path.is_dir())
        } else if kind.is_dir() {
            Kind::Directory
        } else if kind.is_file() {
            Kind::File
        } else {
            Kind::Other
        };
        let way = rule.writer.as_ref().map(|_| Way::read(path, mounts));
        Self { kind, mode: found.mode() & 0o7777, uid: found.uid(), gid: found.gid(), way }
    }
}

/// How a path differs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wrong {
    is_critical: bool,
    what: Vec<String>,
    remedy: Vec<String>,
    /// It may be right, but that cannot be told.
    is_unknown: bool,
}

/// Holds a path against a rule; none where it is right.
fn judge(rule: &Rule, path: &str, seen: &Seen, names: &Names) -> Option<Wrong> {
    let wanted = match rule.kind {
        FileKind::File => Kind::File,
        FileKind::Directory => Kind::Directory,
    };
    if seen.kind != wanted {
        return Some(other_kind(rule.kind, path, &seen.kind));
    }
    let mut wrong = Wrong::default();
    let quoted = quoted(path);
    let is_open = seen.mode & 0o002 != 0 && (wanted == Kind::File || seen.mode & 0o1000 == 0);
    let mode = rule.mode.unwrap_or_else(|| {
        let open = if is_open { 0o002 } else { 0 };
        seen.mode & !open & !(if rule.is_secret { 0o004 } else { 0 })
    });
    if seen.mode != mode {
        wrong.what.push(format!("mode {:03o} instead of {mode:03o}", seen.mode));
        wrong.remedy.push(format!("chmod {mode:03o} {quoted}"));
    }
    if is_open && mode & 0o002 == 0 {
        wrong.is_critical = true;
        wrong.what.push("everyone may write it".to_owned());
    }
    if rule.is_secret && seen.mode & 0o004 != 0 {
        wrong.is_critical = true;
        wrong.what.push("it is a secret, and everyone may read it".to_owned());
    }
    let owner = rule.owner.filter(|uid| *uid != seen.uid);
    let group = rule.group.filter(|gid| *gid != seen.gid);
    if let Some(uid) = owner {
        wrong.what.push(format!("owner {} instead of {}", names.of_user(seen.uid), names.of_user(uid)));
    }
    if let Some(gid) = group {
        wrong.what.push(format!("group {} instead of {}", names.of_group(seen.gid), names.of_group(gid)));
    }
    if owner.is_some() || group.is_some() {
        let owner = owner.map_or(String::new(), |uid| names.of_user(uid));
        let group = group.map_or(String::new(), |gid| format!(":{}", names.of_group(gid)));
        // chown takes away what chmod set of set-user-id.
        wrong.remedy.insert(0, format!("chown {owner}{group} {quoted}"));
    }
    if let (Some(user), Some(way)) = (&rule.writer, &seen.way) {
        cannot_write(user, way, path, seen, &mut wrong);
    }
    (!wrong.what.is_empty()).then_some(wrong)
}

fn other_kind(wanted: FileKind, path: &str, seen: &Kind) -> Wrong {
    let wanted = match wanted {
        FileKind::File => "file",
        FileKind::Directory => "directory",
    };
    let seen = match seen {
        Kind::Link(to, _) => format!("a link to {}", shown(to)),
        Kind::File => "a file".to_owned(),
        Kind::Directory => "a directory".to_owned(),
        Kind::Other => "a special file".to_owned(),
    };
    Wrong {
        is_critical: true,
        what: vec![format!("{seen} instead of a {wanted}")],
        remedy: vec![format!("find who made it so, then put the {wanted} back in place of {}", quoted(path))],
        is_unknown: false,
    }
}

/// Says why a user cannot write there, unless what is wrong already explains it.
fn cannot_write(user: &User, way: &Way, path: &str, seen: &Seen, wrong: &mut Wrong) {
    let need = if seen.kind == Kind::Directory { 0o3 } else { 0o2 };
    let name = &user.name;
    if let Some(mount) = &way.read_only {
        wrong.what.push(format!("{name} cannot write it: {} is mounted read-only", shown(mount)));
        wrong.remedy.push(format!("see `dmesg` for why; then `mount -o remount,rw {}`", quoted(&shown(mount))));
    } else if way.is_immutable {
        wrong.what.push(format!("{name} cannot write it: it is immutable"));
        wrong.remedy.push(format!("chattr -i {}", quoted(path)));
    } else if let Some(above) = way.above.iter().find(|above| !user.may(0o1, above.mode, above.uid, above.gid)) {
        wrong.what.push(format!("{name} cannot write it: it cannot pass {}", shown(&above.path)));
        wrong.remedy.push(format!("chmod o+x {}", quoted(&shown(&above.path))));
    } else if !user.may(need, seen.mode, seen.uid, seen.gid) {
        if way.has_access_list {
            wrong.is_unknown = wrong.what.is_empty();
            wrong.what.push(format!("whether {name} can write it is in its access list"));
            wrong.remedy.push(format!("see `getfacl {}`; or give it to {name} by owner and mode", quoted(path)));
            return;
        }
        wrong.what.push(format!("{name} cannot write it"));
        if !wrong.remedy.is_empty() {
            return;
        }
        if seen.uid != user.uid {
            wrong.remedy.push(format!("chown {name} {}", quoted(path)));
        }
        if (seen.mode >> 6) & need != need {
            let rights = if need == 0o3 { "u+wx" } else { "u+w" };
            wrong.remedy.push(format!("chmod {rights} {}", quoted(path)));
        }
    }
}

/// Looks at all paths of a rule, and holds each against it where it is seen: no list of a hundred thousand is kept.
fn read(
    policy: &policy::Files,
    target: &str,
    known: &BTreeMap<String, Duration>,
    max: usize,
    host: &Host,
) -> Vec<Sample> {
    let globs: Result<Vec<Glob>, String> = policy.paths.iter().map(|path| Glob::new(path)).collect();
    let (rule, globs, except) = match (Rule::new(policy, &host.names), globs, Except::new(&policy.except)) {
        (Ok(rule), Ok(globs), Ok(except)) => (rule, globs, except),
        (Err(why), _, _) | (_, Err(why), _) | (_, _, Err(why)) => {
            return vec![Sample::unknown(CHECK, target, why).remedy("correct the policy")];
        }
    };
    let mut samples = Vec::new();
    let mut tally = Tally::default();
    let (literal, matching): (Vec<&Glob>, Vec<&Glob>) = globs.iter().partition(|glob| glob.is_literal());
    let mut walk = Walk::new(&except, max, |path: &Path, found: io::Result<Metadata>| match found {
        Ok(found) => samples.push(say(&rule, path, &Seen::read(path, &found, &rule, &host.mounts), &host.names)),
        Err(error) => samples.push(not_seen(path, &error)),
    });
    for glob in literal {
        walk.along(glob);
    }
    if matching.is_empty() {
        return samples;
    }
    let mut left = max;
    for glob in matching {
        let mut count = 0_usize;
        let mut walk = Walk::new(&except, left, |path: &Path, found: io::Result<Metadata>| {
            let Ok(found) = found else { return };
            let seen = Seen::read(path, &found, &rule, &host.mounts);
            if is_meant(rule.kind, &seen.kind) {
                count += 1;
                tally.take(say(&rule, path, &seen, &host.names), known);
            }
        });
        walk.along(glob);
        let Walk { left: rest, was_cut, denied, first_denied, .. } = walk;
        left = rest;
        tally.was_cut |= was_cut;
        tally.denied += denied;
        tally.first_denied = tally.first_denied.take().or(first_denied);
        if count == 0 {
            tally.barren.push(glob.text.clone());
        }
    }
    samples.push(tally.sum_up(target, max));
    samples.append(&mut tally.samples);
    samples
}

/// True for what a glob of the rule is about: a glob matches files and directories alike.
fn is_meant(wanted: FileKind, seen: &Kind) -> bool {
    match (wanted, seen) {
        (FileKind::File, Kind::File) | (FileKind::Directory, Kind::Directory) => true,
        (wanted, Kind::Link(_, to_directory)) => (wanted == FileKind::Directory) == *to_directory,
        (FileKind::File, Kind::Directory | Kind::Other) | (FileKind::Directory, Kind::File | Kind::Other) => false,
    }
}

/// What is said of a path that is there.
fn say(rule: &Rule, path: &Path, seen: &Seen, names: &Names) -> Sample {
    let target = shown(path);
    let observed = format!("{:03o} {}:{}", seen.mode, names.of_user(seen.uid), names.of_group(seen.gid));
    let Some(wrong) = judge(rule, &target, seen, names) else {
        let text = format!("{target} is as it should be: {observed}");
        return Sample::ok(CHECK, target, text);
    };
    let status = match wrong {
        Wrong { is_critical: true, .. } => Status::Critical,
        Wrong { is_unknown: true, .. } => Status::Unknown,
        Wrong { .. } => Status::Warning,
    };
    let text = format!("{target}: {}", wrong.what.join("; "));
    Sample::new(CHECK, target, status, text)
        .observed(observed)
        .expected(rule.wanted(names))
        .source("lstat")
        .remedy(wrong.remedy.join(" && "))
}

/// What is said of a named path that could not be seen.
fn not_seen(path: &Path, error: &io::Error) -> Sample {
    let target = shown(path);
    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
        let text = format!("{target} does not exist");
        return Sample::critical(CHECK, target, text)
            .source("lstat")
            .remedy("put it back, or take it out of the policy");
    }
    let text = format!("{target} could not be looked at: {error}");
    Sample::unknown(CHECK, target, text).source("lstat").remedy(LET_US)
}

const LET_US: &str = "give the agent CAP_DAC_READ_SEARCH, as its unit file has it";

/// What came of the globs of a rule.
#[derive(Debug, Default)]
struct Tally {
    right: usize,
    /// Those that are findings of their own, and those that were right only since lately.
    samples: Vec<Sample>,
    named: usize,
    /// Wrong ones past [`MOST`], and the worst of them.
    hidden: usize,
    worst_hidden: Status,
    barren: Vec<String>,
    was_cut: bool,
    denied: usize,
    first_denied: Option<(PathBuf, io::Error)>,
}

impl Tally {
    fn take(&mut self, sample: Sample, known: &BTreeMap<String, Duration>) {
        if sample.status == Status::Ok {
            self.right += 1;
            if known.contains_key(&sample.target) {
                self.samples.push(sample);
            }
        } else if self.named < MOST {
            self.named += 1;
            self.samples.push(sample);
        } else {
            self.hidden += 1;
            self.worst_hidden = self.worst_hidden.max(sample.status);
        }
    }

    /// The finding of the rule itself.
    fn sum_up(&self, target: &str, max: usize) -> Sample {
        let mut status = self.worst_hidden;
        let mut text = format!("{} paths of {target} are right", self.right);
        let mut remedies = Vec::new();
        if self.named + self.hidden > 0 {
            write!(text, ", {} are not", self.named + self.hidden).ok();
        }
        if self.hidden > 0 {
            write!(text, " ({MOST} of them are named)").ok();
            remedies.push("mend those that are named; the others are named then".to_owned());
        }
        if !self.barren.is_empty() {
            status = status.max(Status::Warning);
            write!(text, "; nothing matches {}", self.barren.join(" and ")).ok();
            remedies.push("put back what is missing, or correct the glob of the policy".to_owned());
        }
        if self.was_cut {
            status = status.max(Status::Unknown);
            write!(text, "; only the first {max} paths were looked at").ok();
            remedies.push("narrow the globs of the policy, or raise `host.max_paths`".to_owned());
        }
        if let Some((path, error)) = &self.first_denied {
            status = status.max(Status::Unknown);
            let others = if self.denied > 1 { format!(" and {} more", self.denied - 1) } else { String::new() };
            write!(text, "; {}{others} could not be read: {error}", shown(path)).ok();
            remedies.push(LET_US.to_owned());
        }
        let sample = Sample::new(CHECK, target, status, text).source("lstat");
        if remedies.is_empty() { sample } else { sample.remedy(remedies.join("; ")) }
    }
}

/// A path as text: what is not printable is escaped, so that a line stays one.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    if !text.chars().any(char::is_control) {
        return text.into_owned();
    }
    text.chars().map(|one| if one.is_control() { one.escape_default().to_string() } else { one.to_string() }).collect()
}

/// As a shell reads it.
fn quoted(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@:,%".contains(&byte);
    if path.bytes().all(is_plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests;
