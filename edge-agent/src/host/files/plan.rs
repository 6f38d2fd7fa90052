//! What would give the policy's files their modes and owners: the steps of `policy plan`.
//!
//! Only of what is there and of the right kind. A link, a special file, a path that is missing and one that two rules want to be
//! different are told instead: what is right cannot be known here. Reads, and changes nothing.

use std::{
    collections::BTreeMap,
    fs::Metadata,
    io,
    path::{Path, PathBuf},
};

use charliehub_proto::policy;

use super::{FileKind, Glob, Host, Kind, Rule, Seen, Walk, is_meant, shown};
use crate::{config, host::glob::Except};

/// Mode, user and group.
pub type Rights = (u32, u32, u32);

/// A path that must have other rights than it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mode {
    pub path: PathBuf,
    pub wanted: Rights,
    pub now: Rights,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub modes: Vec<Mode>,
    /// What is wrong and has no step, and what to do about it.
    pub left: Vec<(String, String)>,
}

/// Of all rules of the policy.
pub fn plan(settings: &config::Host, rules: &[policy::Files]) -> Plan {
    let host = Host::read();
    let mut plan = Plan::default();
    let mut all: BTreeMap<PathBuf, Rights> = BTreeMap::new();
    for policy in rules {
        if let Err(why) = of_rule(policy, settings.max_paths, &host, &mut plan, &mut all) {
            plan.left.push((why, "correct the policy".to_owned()));
        }
    }
    plan
}

fn of_rule(
    policy: &policy::Files,
    max: usize,
    host: &Host,
    plan: &mut Plan,
    all: &mut BTreeMap<PathBuf, Rights>,
) -> Result<(), String> {
    let rule = Rule::new(policy, &host.names)?;
    let globs = policy.paths.iter().map(|path| Glob::new(path)).collect::<Result<Vec<Glob>, String>>()?;
    let except = Except::new(&policy.except)?;
    let mut left = max;
    for glob in &globs {
        let mut count = 0_usize;
        let mut walk = Walk::new(&except, left, |path: &Path, found: io::Result<Metadata>| {
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    let remedy = "put it there, or take it out of the policy";
                    plan.left.push((format!("{}: {error}", shown(path)), remedy.to_owned()));
                    return;
                }
            };
            let seen = Seen::read(path, &found, &rule, &host.mounts);
            if !glob.is_literal() && !is_meant(rule.kind, &seen.kind) {
                return;
            }
            count += 1;
            of_path(path, &rule, &seen, plan, all);
        });
        walk.along(glob);
        let (rest, was_cut, denied) = (walk.left, walk.was_cut, walk.first_denied.take());
        left = rest;
        if was_cut {
            let remedy = "narrow the globs of the policy, or raise `host.max_paths`";
            plan.left.push((format!("{}: only the first {max} paths were looked at", glob.text), remedy.to_owned()));
        }
        if let Some((path, error)) = denied {
            plan.left.push((format!("{}: {error}", shown(&path)), "run this as root".to_owned()));
        }
        if count == 0 && !glob.is_literal() {
            let remedy = "put back what is missing, or correct the glob of the policy";
            plan.left.push((format!("nothing matches {}", glob.text), remedy.to_owned()));
        }
    }
    Ok(())
}

fn of_path(path: &Path, rule: &Rule, seen: &Seen, plan: &mut Plan, all: &mut BTreeMap<PathBuf, Rights>) {
    let (wanted_kind, called) = match rule.kind {
        FileKind::File => (Kind::File, "file"),
        FileKind::Directory => (Kind::Directory, "directory"),
    };
    let name = shown(path);
    if seen.kind != wanted_kind {
        let remedy = format!("find who made it so, then put the {called} back");
        plan.left.push((format!("{name} is no {called}"), remedy));
        return;
    }
    if path.to_str().is_none() || name.chars().any(|one| one == '\\' || one.is_control()) {
        plan.left.push((format!("{name}: its name has characters that no step can hold"), "rename it".to_owned()));
        return;
    }
    let now = (seen.mode, seen.uid, seen.gid);
    let wanted = wanted(rule, seen);
    match all.get(path) {
        Some(other) if *other != wanted => {
            let text = format!("{name}: two rules of the policy want {:03o} and {:03o}", other.0, wanted.0);
            plan.left.push((text, "leave it out of one of them (`except`)".to_owned()));
            plan.modes.retain(|one| one.path != path);
            return;
        }
        Some(_) => return,
        None => drop(all.insert(path.to_owned(), wanted)),
    }
    if let (Some(user), Some(way)) = (&rule.writer, &seen.way)
        && let Some(above) = way.above.iter().find(|above| !user.may(0o1, above.mode, above.uid, above.gid))
    {
        let text = format!("{} cannot pass {} to write {name}", user.name, shown(&above.path));
        plan.left.push((text, format!("chmod o+x {}", shown(&above.path))));
    }
    if now != wanted {
        plan.modes.push(Mode { path: path.to_owned(), wanted, now });
    }
}

/// What its rights must be; it belongs to its writer where its mode and group do not let that one write.
fn wanted(rule: &Rule, seen: &Seen) -> Rights {
    let open = if seen.mode & 0o1000 == 0 || seen.kind == Kind::File { 0o002 } else { 0 };
    let others = if rule.is_secret { 0o004 } else { 0 };
    let mode = rule.mode.unwrap_or(seen.mode & !open & !others);
    let (mut uid, gid) = (rule.owner.unwrap_or(seen.uid), rule.group.unwrap_or(seen.gid));
    let need = if seen.kind == Kind::Directory { 0o3 } else { 0o2 };
    if let Some(user) = rule.writer.as_ref().filter(|user| rule.owner.is_none() && !user.may(need, mode, uid, gid)) {
        uid = user.uid;
    }
    (mode, uid, gid)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn rule(path: String, mode: &str) -> policy::Files {
        policy::Files {
            paths: vec![path],
            except: Vec::new(),
            kind: FileKind::File,
            mode: Some(mode.to_owned()),
            owner: None,
            group: None,
            writable_by: None,
            secret: false,
        }
    }

    #[test]
    fn wrong_modes_are_steps_and_what_is_no_file_is_told() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for (name, mode) in [("a.py", 0o644), ("b.py", 0o444), ("c.sh", 0o777)] {
            fs::write(at(name), "").unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink("a.py", at("link.py")).unwrap();
        let glob = |name: &str| format!("{}/{name}", home.path().display());
        let settings = config::Host::default();
        let found = plan(&settings, &[rule(glob("*.py"), "444"), rule(glob("c.sh"), "555"), rule(glob("gone"), "600")]);
        let modes: Vec<_> = found.modes.iter().map(|one| (one.path.clone(), one.wanted.0, one.now.0)).collect();
        assert_eq!(modes, [(at("a.py"), 0o444, 0o644), (at("c.sh"), 0o555, 0o777)]);
        let left: Vec<_> = found.left.iter().map(|(what, _)| what.replace(&glob(""), "")).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left[0] == "link.py is no file" && left[1].starts_with("gone: "), "{left:?}");
        let torn = plan(&settings, &[rule(glob("a.py"), "444"), rule(glob("*.py"), "440")]);
        assert!(torn.modes.iter().all(|one| one.path != at("a.py")), "{torn:?}");
        assert!(
            torn.left.iter().any(|(what, _)| what.contains("two rules of the policy want 444 and 440")),
            "{torn:?}"
        );
        assert!(plan(&settings, &[rule(glob("*.none"), "444")]).left[0].0.starts_with("nothing matches"));
    }
}
