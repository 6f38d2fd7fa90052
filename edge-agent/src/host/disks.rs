//! Room: how much of the file system of a path is free, in bytes and in inodes, as `df` counts.

use std::time::Duration;

use charliehub_proto::{finding::Status, policy};
use rustix::{fs::statvfs, io::Errno};

use super::{files::Mounts, patient::Patient};
use crate::{config, sample::Sample};

const CHECK: &str = "disk";

#[derive(Debug)]
pub(super) struct Disks {
    timeout: Duration,
    patient: Patient<Result<Facts, Errno>>,
}

/// A file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Facts {
    /// Bytes that an ordinary user may still write, and all that there are for one.
    free: u64,
    total: u64,
    /// 0 in all: it has no fixed number of them.
    free_inodes: u64,
    inodes: u64,
    /// For everyone, not for us alone.
    is_read_only: bool,
}

impl Disks {
    pub(super) fn new(settings: &config::Host) -> Self {
        Self { timeout: settings.timeout, patient: Patient::default() }
    }

    pub(super) async fn look(&mut self, disks: &[policy::Disk]) -> Vec<Sample> {
        let questions = disks.iter().map(|disk| {
            let path = disk.path.clone();
            (path.clone(), move || read(&path))
        });
        let facts = self.patient.ask(self.timeout, questions).await;
        disks.iter().zip(facts).map(|(disk, facts)| judge(disk, facts)).collect()
    }
}

fn read(path: &str) -> Result<Facts, Errno> {
    let room = statvfs(path)?;
    let used = room.f_blocks.saturating_sub(room.f_bfree);
    Ok(Facts {
        free: room.f_bavail.saturating_mul(room.f_frsize),
        total: used.saturating_add(room.f_bavail).saturating_mul(room.f_frsize),
        free_inodes: room.f_favail,
        inodes: room.f_files,
        is_read_only: Mounts::read().read_only(path.as_ref()).is_some(),
    })
}

fn judge(disk: &policy::Disk, facts: Result<Result<Facts, Errno>, String>) -> Sample {
    let target = disk.path.as_str();
    let facts = match facts {
        Ok(Ok(facts)) => facts,
        Ok(Err(Errno::NOENT)) => {
            return Sample::critical(CHECK, target, format!("{target} does not exist"))
                .remedy(format!("mount what belongs at {target}, or take it out of the policy"));
        }
        Ok(Err(error)) => {
            return Sample::unknown(CHECK, target, format!("{target} could not be looked at: {error}"))
                .remedy("give the agent CAP_DAC_READ_SEARCH, as its unit file has it");
        }
        Err(why) => {
            return Sample::unknown(CHECK, target, format!("{target} could not be looked at: {why}"))
                .remedy(format!("see `stat -f {target}` and `dmesg`: a network file system whose server is gone?"));
        }
    };
    let room = percent(facts.free, facts.total);
    let inodes = if facts.inodes == 0 { 100.0 } else { percent(facts.free_inodes, facts.inodes) };
    let least = room.min(inodes);
    let status = if facts.is_read_only || least < f64::from(disk.critical_percent) {
        Status::Critical
    } else if least < f64::from(disk.warning_percent) {
        Status::Warning
    } else {
        Status::Ok
    };
    let text = if facts.is_read_only {
        format!("{target} is read-only")
    } else if inodes < room {
        format!("{inodes:.0} % of the inodes of {target} are free")
    } else {
        format!("{room:.0} % of {target} are free: {}", bytes(facts.free))
    };
    let sample = Sample::new(CHECK, target, status, text).source("statvfs");
    if status == Status::Ok {
        return sample;
    }
    let sample = sample
        .observed(format!("{} of {} free, {inodes:.1} % of inodes free", bytes(facts.free), bytes(facts.total)))
        .expected(format!("at least {} % free", disk.warning_percent));
    if facts.is_read_only {
        sample.remedy(format!("see `dmesg` for the error that made it so; then `mount -o remount,rw {target}`"))
    } else if inodes < room {
        sample.remedy(format!("find where the many files are: `du --inodes -x {target} | sort -n | tail`"))
    } else {
        sample.remedy(format!("find what takes the room: `du -x -h --max-depth=3 {target} | sort -h | tail`"))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

fn bytes(count: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", count / unit, count % unit * 10 / unit);
    match count {
        0..1_000_000 => format!("{} kB", count / 1_000),
        1_000_000..1_000_000_000 => format!("{} MB", tenths(1_000_000)),
        1_000_000_000..1_000_000_000_000 => format!("{} GB", tenths(1_000_000_000)),
        _ => format!("{} TB", tenths(1_000_000_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(free: u64, free_inodes: u64, inodes: u64) -> Facts {
        Facts { free: free * 10_000_000, total: 1_000_000_000, free_inodes, inodes, is_read_only: false }
    }

    #[test]
    fn room_and_inodes() {
        let disk = policy::Disk { path: "/data".to_owned(), warning_percent: 10, critical_percent: 5 };
        for (facts, status, text) in [
            (Ok(Ok(facts(40, 50, 100))), Status::Ok, "40 % of /data are free: 400.0 MB"),
            (Ok(Ok(facts(10, 0, 0))), Status::Ok, "10 % of /data are free: 100.0 MB"),
            (Ok(Ok(facts(9, 50, 100))), Status::Warning, "9 % of /data are free: 90.0 MB"),
            (Ok(Ok(facts(0, 50, 100))), Status::Critical, "0 % of /data are free: 0 kB"),
            (Ok(Ok(facts(50, 4, 100))), Status::Critical, "4 % of the inodes of /data are free"),
            (Ok(Ok(Facts { is_read_only: true, ..facts(50, 50, 100) })), Status::Critical, "/data is read-only"),
            (Ok(Err(Errno::NOENT)), Status::Critical, "/data does not exist"),
            (Ok(Err(Errno::ACCESS)), Status::Unknown, "/data could not be looked at: Permission denied (os error 13)"),
            (Err("it hangs".to_owned()), Status::Unknown, "/data could not be looked at: it hangs"),
        ] {
            let sample = judge(&disk, facts);
            assert_eq!((sample.status, sample.text.as_str()), (status, text));
            assert_eq!(sample.remedy.is_some(), status != Status::Ok, "{text}");
        }
    }

    #[test]
    fn the_disk_that_we_are_on_has_room() {
        let facts = read("/").unwrap();
        assert!(facts.total > facts.free && facts.free > 0, "{facts:?}");
    }
}
