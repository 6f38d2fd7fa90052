//! Who may write where, from what the kernel would look at: users and groups, the modes on the way, and mounts.
//!
//! Names come from `/etc/passwd` and `/etc/group`; users of a directory service are given by number. Access lists are not
//! read, only noticed. Our own mount namespace is not the host's (systemd makes everything read-only for us), so mounts are
//! those of process 1 where we may read them; else only what the file system itself says counts, which we share.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, lgetxattr, statx};

/// A user, with all groups that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub name: String,
    pub uid: u32,
    groups: Vec<u32>,
}

impl User {
    /// May it do all of `want` (1 pass, 2 write, 4 read) with something of this mode and owner?
    pub(super) fn may(&self, want: u32, mode: u32, uid: u32, gid: u32) -> bool {
        let rights = if self.uid == 0 {
            0o7
        } else if self.uid == uid {
            mode >> 6
        } else if self.groups.contains(&gid) {
            mode >> 3
        } else {
            mode
        };
        rights & want == want
    }
}

/// The users and groups of this host.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Name, number, number of the first group.
    users: Vec<(String, u32, u32)>,
    /// Name, number, members.
    groups: Vec<(String, u32, Vec<String>)>,
}

impl Names {
    pub(super) fn read() -> Self {
        let read = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        Self::parse(&read("/etc/passwd"), &read("/etc/group"))
    }

    /// Of the two files; lines that are none are left out.
    pub(super) fn parse(passwd: &str, group: &str) -> Self {
        let user = |line: &str| {
            let mut fields = line.split(':');
            let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            Some((name.to_owned(), uid.parse().ok()?, gid.parse().ok()?))
        };
        let group_of = |line: &str| {
            let mut fields = line.split(':');
            let (name, _, gid, members) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            let members = members.split(',').filter(|name| !name.is_empty()).map(str::to_owned);
            Some((name.to_owned(), gid.parse().ok()?, members.collect()))
        };
        Self { users: passwd.lines().filter_map(user).collect(), groups: group.lines().filter_map(group_of).collect() }
    }

    /// By name or number. A number that nobody has is a user without a name, as those of containers are.
    pub(super) fn user(&self, name: &str) -> Option<User> {
        let number = name.parse::<u32>().ok();
        let known = self.users.iter().find(|(known, uid, _)| known == name || Some(*uid) == number);
        let Some((known, uid, gid)) = known else {
            let uid = number?;
            return Some(User { name: name.to_owned(), uid, groups: vec![uid] });
        };
        let others = self.groups.iter().filter(|(_, _, members)| members.contains(known)).map(|(_, gid, _)| *gid);
        Some(User { name: known.clone(), uid: *uid, groups: std::iter::once(*gid).chain(others).collect() })
    }

    pub(super) fn group(&self, name: &str) -> Option<u32> {
        let known = self.groups.iter().find(|(known, ..)| known == name).map(|(_, gid, _)| *gid);
        known.or_else(|| name.parse().ok())
    }

    pub(super) fn of_user(&self, uid: u32) -> String {
        let known = self.users.iter().find(|(_, other, _)| *other == uid);
        known.map_or_else(|| uid.to_string(), |(name, ..)| name.clone())
    }

    pub(super) fn of_group(&self, gid: u32) -> String {
        let known = self.groups.iter().find(|(_, other, _)| *other == gid);
        known.map_or_else(|| gid.to_string(), |(name, ..)| name.clone())
    }
}

/// What stands between a writer and a path, beside the path's own mode.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// The mount that nobody may write on.
    pub read_only: Option<PathBuf>,
    /// `chattr +i`
    pub is_immutable: bool,
    pub has_access_list: bool,
    /// The directories above it, from the root.
    pub above: Vec<Above>,
}

#[derive(Debug)]
pub(super) struct Above {
    pub path: PathBuf,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Way {
    pub(super) fn read(path: &Path, mounts: &Mounts) -> Self {
        let attributes = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
        let mut above: Vec<Above> = path
            .ancestors()
            .skip(1)
            .filter_map(|path| {
                let found = path.metadata().ok()?;
                Some(Above { path: path.to_owned(), mode: found.mode(), uid: found.uid(), gid: found.gid() })
            })
            .collect();
        above.reverse();
        Self {
            read_only: mounts.read_only(path).map(Path::to_owned),
            is_immutable: attributes.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::IMMUTABLE)),
            has_access_list: lgetxattr(path, "system.posix_acl_access", &mut [0_u8; 0][..]).is_ok_and(|size| size > 0),
            above,
        }
    }
}

/// What is mounted where.
#[derive(Debug, Default)]
pub(in super::super) struct Mounts(Vec<Mount>);

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    is_read_only: bool,
}

impl Mounts {
    /// Those of process 1 where we may; else our own, of which only what the file systems themselves say counts.
    pub(in super::super) fn read() -> Self {
        let text = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        match text("/proc/1/mountinfo") {
            Ok(theirs) => Self::parse(&theirs, true),
            Err(_) => Self::parse(&text("/proc/self/mountinfo").unwrap_or_default(), false),
        }
    }

    /// Lines as `36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda rw`, as proc(5) has them.
    fn parse(text: &str, are_theirs: bool) -> Self {
        let read_only = |options: &str| options.split(',').any(|option| option == "ro");
        let mount = |line: &str| {
            let mut fields = line.split(' ').skip(4);
            let (point, options) = (fields.next()?, fields.next()?);
            let of_file_system = fields.skip_while(|field| *field != "-").nth(3)?;
            let is_read_only = read_only(of_file_system) || (are_theirs && read_only(options));
            Some(Mount { point: PathBuf::from(unescaped(point)), is_read_only })
        };
        Self(text.lines().filter_map(mount).collect())
    }

    /// The mount that a path is on, where nobody may write on it.
    pub(in super::super) fn read_only(&self, path: &Path) -> Option<&Path> {
        let real = path.canonicalize();
        let path = real.as_deref().unwrap_or(path);
        let on = self.0.iter().filter(|mount| path.starts_with(&mount.point));
        // The last of equals covers those before it.
        let on = on.max_by_key(|mount| mount.point.components().count())?;
        on.is_read_only.then_some(on.point.as_path())
    }
}

/// A space is `\040` there, a tab `\011`, a line break `\012`, a backslash `\134`.
fn unescaped(text: &str) -> String {
    [(r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, one)| text.replace(escaped, one))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nana:x:1000:1000::/:/bin/sh\nnonsense\n";
    const GROUP: &str = "root:x:0:\nana:x:1000:\ndocker:x:999:ana,bob\n:\n";

    #[test]
    fn users_and_groups_by_name_and_number() {
        let names = Names::parse(PASSWD, GROUP);
        let ana = User { name: "ana".to_owned(), uid: 1000, groups: vec![1000, 999] };
        assert_eq!((names.user("ana"), names.user("1000")), (Some(ana.clone()), Some(ana.clone())));
        assert_eq!(names.user("472").map(|user| (user.uid, user.groups)), Some((472, vec![472])));
        assert_eq!((names.user("eve"), names.group("docker"), names.group("7")), (None, Some(999), Some(7)));
        assert_eq!(
            (names.of_user(0), names.of_user(5), names.of_group(999)),
            ("root".into(), "5".into(), "docker".into())
        );
        for (want, mode, uid, gid, may) in [
            (2, 0o644, 1000, 0, true),
            (2, 0o044, 1000, 0, false), // the owner's rights count for the owner, not the wider ones
            (3, 0o775, 0, 999, true),
            (3, 0o755, 0, 999, false),
            (3, 0o757, 0, 0, true),
        ] {
            assert_eq!(ana.may(want, mode, uid, gid), may, "{mode:o} {uid}:{gid}");
        }
    }

    #[test]
    fn a_mount_is_read_only_for_everyone_or_for_us_alone() {
        let text = "1 0 8:1 / / rw - ext4 /dev/sda rw,errors=remount-ro\n\
                    2 1 0:1 / /data\\040one ro,nosuid shared:1 - ext4 /dev/sdb rw\n\
                    3 1 0:2 / /broken rw - ext4 /dev/sdc ro\n\
                    4 1 0:3 / /twice ro - tmpfs t rw\n\
                    5 1 0:3 / /twice rw - tmpfs t rw\nnonsense\n";
        let on = |theirs, path: &str| Mounts::parse(text, theirs).read_only(path.as_ref()).map(Path::to_owned);
        for (path, theirs, ours) in [
            ("/etc", None, None),
            ("/data one/x", Some("/data one"), None),
            ("/broken/x", Some("/broken"), Some("/broken")),
            ("/twice/x", None, None),
        ] {
            assert_eq!(
                (on(true, path), on(false, path)),
                (theirs.map(PathBuf::from), ours.map(PathBuf::from)),
                "{path}"
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_panics(text in "(?s)[0-9a-z:,/\\\\ \n-]{0,200}") {
            Names::parse(&text, &text).user("a");
            Mounts::parse(&text, true).read_only("/a".as_ref());
        }
    }
}
