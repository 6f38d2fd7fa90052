//! Decides whether rows may be read: whether what they need fits below the limit that the kernel would kill us at.
//!
//! A limit is a cgroup's (`MemoryMax` of the unit, that of the container): ours, or of any group above. Where there is
//! none everything fits, since nobody said how much of the machine is for us; what cannot be read of `/proc` or `/sys` is
//! no limit either. What the rows need is an estimate from their number, measured and rounded up.
//!
//! [`Room`] is pure; [`room`] reads a few small files.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// So many rows are read without a question: they weigh less than what is kept in reserve.
pub const ALWAYS: u64 = 1000;

/// Bytes of a row while it is read. 100,000 short rows, changed all at once, took 2.0 KB each.
const READ: u64 = 2 << 10;
/// Bytes of a new row beside that: compiled, encoded, kept. 10,000 short rows took 4.8 KB each in all, 100,000 4.1 KB.
const KEPT: u64 = 4 << 10;
/// Bytes that stay free whatever is read.
const RESERVE: u64 = 8 << 20;
/// What an unlimited group of version 1 has for a limit is about this.
const UNLIMITED: u64 = 1 << 60;

/// Bytes of one group: how many it may have, and how many it has that cannot be taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    limit: u64,
    used: u64,
}

/// What is left below the tightest limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    limit: u64,
    left: u64,
}

/// Rows that do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{rows} rows are too large for the memory limit: they need about {} MiB more, and {} of {} MiB are left; raise \
     MemoryMax of the unit, or the container's memory limit", mib(*.needed), mib(*.left), mib(*.limit)
)]
pub struct TooLarge {
    pub rows: u64,
    /// Bytes.
    pub needed: u64,
    pub left: u64,
    pub limit: u64,
}

impl Room {
    fn tightest(own: u64, groups: impl IntoIterator<Item = Group>) -> Option<Self> {
        let room = |group: Group| {
            let used = group.used.max(own).saturating_add(RESERVE);
            Self { limit: group.limit, left: group.limit.saturating_sub(used) }
        };
        groups.into_iter().map(room).min_by_key(|room| room.left)
    }

    /// How many new rows fit.
    pub fn rows(&self) -> u64 {
        (self.left / (READ + KEPT)).max(ALWAYS)
    }

    /// Judges a read of all of `rows`, about `known` of which are here already.
    pub fn fits(&self, rows: u64, known: u64) -> Result<(), TooLarge> {
        let new = rows.saturating_sub(known);
        let needed = rows.saturating_mul(READ).saturating_add(new.saturating_mul(KEPT));
        if rows <= ALWAYS || needed <= self.left {
            return Ok(());
        }
        Err(TooLarge { rows, needed, left: self.left, limit: self.limit })
    }
}

/// What is left for us now; `None` without a limit.
pub fn room() -> Option<Room> {
    let ours = fs::read_to_string("/proc/self/cgroup").ok()?;
    let groups: Vec<Group> = directories(&ours).iter().filter_map(|directory| group(directory)).collect();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // In KiB. Mapped files are not counted: the kernel drops them before it kills.
    Room::tightest(number(&status, "RssAnon:").unwrap_or_default() << 10, groups)
}

/// Where the kernel may tell of the groups that `/proc/self/cgroup` names and of those above them. Inside a container its
/// own group may be mounted at the top, whatever its path is called.
fn directories(ours: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in ours.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            list if list.split(',').any(|name| name == "memory") => "/sys/fs/cgroup/memory",
            _ => continue,
        };
        let relative = Path::new(path.trim_start_matches('/'));
        found.extend(relative.ancestors().map(|path| Path::new(root).join(path)));
    }
    found
}

/// The group in `directory`, of either version, if it has a limit.
fn group(directory: &Path) -> Option<Group> {
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    let limit = read("memory.max").or_else(|| read("memory.limit_in_bytes"))?;
    let limit = limit.trim().parse().ok().filter(|limit| *limit < UNLIMITED)?;
    let stat = read("memory.stat").unwrap_or_default();
    // Version 1 counts the groups below under names of their own.
    let used = |new, old| number(&stat, old).or_else(|| number(&stat, new)).unwrap_or_default();
    Some(Group { limit, used: used("anon", "total_rss") + used("shmem", "total_shmem") })
}

/// The number behind `key` on a line of its own.
fn number(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(char::is_whitespace))?;
    value.split_whitespace().next()?.parse().ok()
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_tightest_group_counts_with_all_that_is_in_it() {
        let group = |limit: u64, used: u64| Group { limit: limit * MIB, used: used * MIB };
        assert_eq!(Room::tightest(MIB, []), None, "no limit, no question");
        for (own, groups, left) in [
            (20, &[group(64, 5)][..], 36),
            (20, &[group(64, 50)], 6),
            (20, &[group(64, 5), group(100, 90)], 2),
            (90, &[group(64, 5)], 0),
        ] {
            assert_eq!(Room::tightest(own * MIB, groups.iter().copied()).unwrap().left, left * MIB, "{own} {groups:?}");
        }
    }

    #[test]
    fn rows_that_are_here_already_need_less() {
        let room = Room { limit: 512 * MIB, left: 300 * MIB };
        for (rows, known, fits) in
            [(10_000, 0, true), (100_000, 0, false), (100_000, 100_000, true), (200_000, 200_000, false)]
        {
            assert_eq!(room.fits(rows, known).is_ok(), fits, "{rows} {known}");
        }
        let full = Room { limit: MIB, left: 0 };
        assert_eq!((full.fits(ALWAYS, 0), full.rows()), (Ok(()), ALWAYS), "few rows are never refused");
        assert_eq!(
            room.fits(100_000, 0).unwrap_err().to_string(),
            "100000 rows are too large for the memory limit: they need about 585 MiB more, and 300 of 512 MiB are left; \
             raise MemoryMax of the unit, or the container's memory limit"
        );
    }

    #[test]
    fn both_versions_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        assert_eq!(group(directory.path()), None);
        put("memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(group(directory.path()), None, "version 1 without a limit");
        put("memory.limit_in_bytes", "67108864\n");
        put("memory.stat", "rss 1\nshmem 2\ntotal_rss 30\ntotal_shmem 4\n");
        assert_eq!(group(directory.path()), Some(Group { limit: 64 * MIB, used: 34 }));
        put("memory.max", "max\n");
        assert_eq!(group(directory.path()), None, "version 2 without a limit");
        put("memory.max", "67108864\n");
        put("memory.stat", "anon 30\nanon_thp 9\nfile 7\nshmem 4\n");
        assert_eq!(group(directory.path()), Some(Group { limit: 64 * MIB, used: 34 }));
    }

    #[test]
    fn a_group_has_those_above_it() {
        let paths = |ours: &str| directories(ours).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(
            paths("0::/system.slice/edge.service\n"),
            ["/sys/fs/cgroup/system.slice/edge.service", "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/"]
        );
        assert_eq!(
            paths("9:name=systemd:/\n4:hugetlb,memory:/a\n"),
            ["/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory/"]
        );
    }
}
