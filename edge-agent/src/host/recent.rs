//! Things that must have happened lately: the newest file of a glob tells when a backup or a rotation was.

use std::{
    fs::Metadata,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use charliehub_proto::{duration, finding::Status, policy};
use jiff::{SignedDuration, Timestamp};

use super::{
    glob::{Except, Glob, Walk},
    patient::Patient,
};
use crate::{clock::Now, config, sample::Sample};

const CHECK: &str = "recent";

/// A file may be dated so far ahead of the hour.
const AHEAD: SignedDuration = SignedDuration::from_secs(60);

#[derive(Debug)]
pub(super) struct Recents {
    timeout: Duration,
    max_paths: usize,
    patient: Patient<Result<Facts, String>>,
}

/// The newest files of a glob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    /// With something in it.
    newest: Option<(Timestamp, PathBuf)>,
    /// Newer than that, and empty.
    empty: Option<(Timestamp, PathBuf)>,
    /// A directory that could not be read, or too many paths.
    missed: Option<String>,
}

impl Recents {
    pub(super) fn new(settings: &config::Host) -> Self {
        Self { timeout: settings.timeout, max_paths: settings.max_paths, patient: Patient::default() }
    }

    pub(super) async fn look(&mut self, wanted: &[policy::Recent], now: Now) -> Vec<Sample> {
        let max = self.max_paths;
        let questions = wanted.iter().map(|recent| {
            let path = recent.path.clone();
            (recent.name.clone(), move || read(&path, max))
        });
        let facts = self.patient.ask(self.timeout, questions).await;
        wanted.iter().zip(facts).map(|(recent, facts)| judge(recent, facts.flatten(), now)).collect()
    }
}

fn read(glob: &str, max: usize) -> Result<Facts, String> {
    let (glob, except) = (Glob::new(glob)?, Except::new(&[])?);
    let mut facts = Facts::default();
    let mut walk = Walk::new(&except, max, |path: &Path, found: io::Result<Metadata>| {
        let Ok(found) = found else { return };
        let Some(at) = found.modified().ok().and_then(|at| Timestamp::try_from(at).ok()) else { return };
        if !found.is_file() {
            return;
        }
        let newest = if found.len() == 0 { &mut facts.empty } else { &mut facts.newest };
        if newest.as_ref().is_none_or(|(newest, _)| *newest < at) {
            *newest = Some((at, path.to_owned()));
        }
    });
    walk.along(&glob);
    let denied = walk.first_denied.take().map(|(path, error)| format!("{} could not be read: {error}", path.display()));
    facts.missed = denied.or_else(|| walk.was_cut.then(|| format!("only the first {max} paths were looked at")));
    if let (Some((newest, _)), Some((empty, _))) = (&facts.newest, &facts.empty)
        && empty <= newest
    {
        facts.empty = None;
    }
    Ok(facts)
}

fn judge(recent: &policy::Recent, facts: Result<Facts, String>, now: Now) -> Sample {
    let name = recent.name.as_str();
    let unknown = |why: String, remedy: &str| Sample::unknown(CHECK, name, format!("{name}: {why}")).remedy(remedy);
    let facts = match facts {
        Ok(facts) => facts,
        Err(why) => return unknown(why, "correct the policy, or see `dmesg` for a file system that hangs"),
    };
    let Some(max_age) = duration::parse(&recent.max_age).and_then(|age| SignedDuration::try_from(age).ok()) else {
        return unknown(format!("`{}` of the policy is no duration", recent.max_age), "write it as `26h` or `95d`");
    };
    if let Some(why) = facts.missed {
        return unknown(why, "give the agent CAP_DAC_READ_SEARCH, or narrow the glob of the policy");
    }
    let about =
        |sample: Sample| sample.expected(format!("a file not older than {}", recent.max_age)).source(&recent.path);
    let empty = facts.empty.map_or(String::new(), |(_, path)| format!("; {} is newer, and empty", path.display()));
    let run = format!("see why {name} did not run or wrote nothing, and run it");
    let Some((at, path)) = facts.newest else {
        let text = format!("{name}: no file matches {}{empty}", recent.path);
        return about(Sample::critical(CHECK, name, text)).remedy(run);
    };
    if !now.is_trusted {
        return unknown("the hour cannot be believed, so no age can be told".to_owned(), "see `timedatectl`");
    }
    let age = now.wall.duration_since(at);
    if age < -AHEAD {
        return unknown(
            format!("{} is dated {} in the future", path.display(), old(-age)),
            "see `timedatectl`, and `touch` it",
        );
    }
    let status = if age > max_age.saturating_add(max_age / 2) {
        Status::Critical
    } else if age > max_age {
        Status::Warning
    } else {
        Status::Ok
    };
    let text = format!("{name}: {} is {} old{empty}", path.display(), old(age.max(SignedDuration::ZERO)));
    let sample = about(Sample::new(CHECK, name, status, text));
    if status == Status::Ok { sample } else { sample.remedy(run) }
}

/// In the largest unit of which there are two.
fn old(age: SignedDuration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_file_that_holds_something_counts() {
        let dir = tempfile::tempdir().unwrap();
        let glob = format!("{}/*.gz", dir.path().display());
        assert_eq!(read(&glob, 10), Ok(Facts::default()));
        for (name, text, age) in [("a.gz", "x", 300), ("b.gz", "x", 200), ("c.gz", "", 100), ("d.txt", "x", 1)] {
            std::fs::write(dir.path().join(name), text).unwrap();
            let at = std::time::SystemTime::now() - Duration::from_secs(age);
            std::fs::File::open(dir.path().join(name)).unwrap().set_modified(at).unwrap();
        }
        let facts = read(&glob, 10).unwrap();
        assert!(facts.newest.unwrap().1.ends_with("b.gz"));
        assert!(facts.empty.unwrap().1.ends_with("c.gz"));
        assert_eq!(read(&glob, 2).unwrap().missed.as_deref(), Some("only the first 2 paths were looked at"));
        assert!(read("relative", 2).is_err());
    }

    #[test]
    fn age_is_judged_while_the_hour_is_believed() {
        let recent =
            |max_age: &str| policy::Recent { name: "backup".into(), path: "/b/*".into(), max_age: max_age.into() };
        let wall = Timestamp::from_second(10_000_000).unwrap();
        let now = |is_trusted| Now { boot: Duration::ZERO, wall, is_trusted };
        let aged = |seconds| {
            let at = wall - SignedDuration::from_secs(seconds);
            Ok(Facts { newest: Some((at, "/b/x".into())), ..Facts::default() })
        };
        let empty = || Facts { empty: Some((wall, "/b/y".into())), ..Facts::default() };
        let missed = || Ok(Facts { missed: Some("/b could not be read".into()), ..Facts::default() });
        for (max_age, facts, trusted, status, text) in [
            ("26h", aged(3_600 * 26), true, Status::Ok, "backup: /b/x is 26 h old"),
            ("26h", aged(3_600 * 27), true, Status::Warning, "backup: /b/x is 27 h old"),
            ("26h", aged(3_600 * 40), true, Status::Critical, "backup: /b/x is 40 h old"),
            (
                "26h",
                aged(3_600 * 72),
                false,
                Status::Unknown,
                "backup: the hour cannot be believed, so no age can be told",
            ),
            ("26h", aged(-30), true, Status::Ok, "backup: /b/x is 0 s old"),
            ("26h", aged(-90), true, Status::Unknown, "backup: /b/x is dated 90 s in the future"),
            ("26h", Ok(empty()), true, Status::Critical, "backup: no file matches /b/*; /b/y is newer, and empty"),
            ("26h", missed(), true, Status::Unknown, "backup: /b could not be read"),
            ("soon", aged(1), true, Status::Unknown, "backup: `soon` of the policy is no duration"),
            ("26h", Err("it hangs".to_owned()), true, Status::Unknown, "backup: it hangs"),
        ] {
            let sample = judge(&recent(max_age), facts, now(trusted));
            assert_eq!((sample.status, sample.text.as_str()), (status, text));
            assert_eq!(sample.remedy.is_some(), status != Status::Ok, "{text}");
        }
    }
}
