use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use super::{rights::Above, *};

fn names() -> Names {
    Names::parse("root:x:0:0::/:/bin/sh\nana:x:1000:1000::/:/bin/sh\n", "root:x:0:\nana:x:1000:\ndocker:x:999:ana\n")
}

fn rule(text: &str) -> Rule {
    Rule::new(&policy(text), &names()).unwrap()
}

fn policy(text: &str) -> policy::Files {
    toml::from_str(&format!("paths = ['/x']\n{text}")).unwrap()
}

fn file(mode: u32, uid: u32, gid: u32) -> Seen {
    Seen { kind: Kind::File, mode, uid, gid, way: None }
}

#[test]
fn modes_and_owners() {
    let code = "mode = '444'\nowner = 'root'\ngroup = 'docker'";
    let secret = "mode = '600'\nsecret = true";
    for (policy, seen, wrong) in [
        (code, file(0o444, 0, 999), None),
        (code, file(0o644, 0, 999), Some((false, "mode 644 instead of 444", "chmod 444 /x"))),
        (code, file(0o444, 5, 999), Some((false, "owner 5 instead of root", "chown root /x"))),
        (code, file(0o444, 0, 0), Some((false, "group root instead of docker", "chown :docker /x"))),
        (
            code,
            file(0o666, 1000, 0),
            Some((
                true,
                "mode 666 instead of 444; everyone may write it; owner ana instead of root; group root instead of docker",
                "chown root:docker /x && chmod 444 /x",
            )),
        ),
        (secret, file(0o600, 0, 0), None),
        (secret, file(0o640, 0, 0), Some((false, "mode 640 instead of 600", "chmod 600 /x"))),
        (
            secret,
            file(0o644, 0, 0),
            Some((true, "mode 644 instead of 600; it is a secret, and everyone may read it", "chmod 600 /x")),
        ),
        ("owner = 'root'", file(0o640, 0, 0), None),
        (
            "owner = 'root'",
            file(0o646, 0, 0),
            Some((true, "mode 646 instead of 644; everyone may write it", "chmod 644 /x")),
        ),
        ("mode = '666'", file(0o666, 0, 0), None),
        ("mode = '4755'", file(0o755, 0, 0), Some((false, "mode 755 instead of 4755", "chmod 4755 /x"))),
    ] {
        let found = judge(&rule(policy), "/x", &seen, &names());
        let found = found.map(|wrong| (wrong.is_critical, wrong.what.join("; "), wrong.remedy.join(" && ")));
        assert_eq!(
            found,
            wrong.map(|(critical, what, remedy)| (critical, what.to_owned(), remedy.to_owned())),
            "{seen:?}"
        );
    }
}

#[test]
fn a_writer_must_be_able_to() {
    let above = |mode| Above { path: "/".into(), mode, uid: 0, gid: 0 };
    let way = || Way { above: vec![above(0o755)], ..Way::default() };
    let directory = |mode, uid, gid, way| Seen { kind: Kind::Directory, mode, uid, gid, way: Some(way) };
    for (seen, wrong) in [
        (directory(0o775, 0, 999, way()), None),
        (directory(0o755, 1000, 0, way()), None),
        (directory(0o755, 0, 999, way()), Some(("ana cannot write it", "chown ana /x"))),
        (directory(0o555, 1000, 0, way()), Some(("ana cannot write it", "chmod u+wx /x"))),
        (
            directory(0o775, 0, 999, Way { above: vec![above(0o750)], ..Way::default() }),
            Some(("ana cannot write it: it cannot pass /", "chmod o+x /")),
        ),
        (
            directory(0o775, 0, 999, Way { read_only: Some("/data".into()), ..way() }),
            Some((
                "ana cannot write it: /data is mounted read-only",
                "see `dmesg` for why; then `mount -o remount,rw /data`",
            )),
        ),
        (
            directory(0o775, 0, 999, Way { is_immutable: true, ..way() }),
            Some(("ana cannot write it: it is immutable", "chattr -i /x")),
        ),
    ] {
        let found = judge(&rule("kind = 'directory'\nwritable_by = 'ana'"), "/x", &seen, &names());
        let found = found.map(|wrong| (wrong.what.join("; "), wrong.remedy.join(" && ")));
        assert_eq!(found, wrong.map(|(what, remedy)| (what.to_owned(), remedy.to_owned())), "{seen:?}");
    }
    let seen = directory(0o755, 0, 0, Way { has_access_list: true, ..way() });
    assert!(judge(&rule("kind = 'directory'\nwritable_by = 'ana'"), "/x", &seen, &names()).unwrap().is_unknown);
}

#[test]
fn what_a_policy_cannot_mean_is_unknown() {
    for text in
        ["mode = '9'", "mode = 'rw'", "mode = '100000'", "owner = 'eve'", "group = 'eve'", "writable_by = 'eve'"]
    {
        let samples =
            read(&policy(text), "/x", &BTreeMap::new(), 10, &Host { names: names(), mounts: Mounts::default() });
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].status, Status::Unknown, "{text}");
    }
}

/// All that is said of a rule over real files, worst first.
fn said(policy: &policy::Files, known: &[String], max: usize) -> Vec<(Status, String)> {
    let known = known.iter().map(|path| (path.clone(), Duration::ZERO)).collect();
    let samples = read(policy, "rule", &known, max, &Host { names: names(), mounts: Mounts::default() });
    samples.into_iter().map(|sample| (sample.status, sample.text)).collect()
}

#[test]
fn a_glob_is_one_finding_and_one_for_each_wrong_path() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (name, mode) in [("a.py", 0o444), ("b.py", 0o644), ("c.py", 0o446), ("d.txt", 0o777)] {
        fs::write(at(name), "").unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink(at("a.py"), at("e.py")).unwrap();
    fs::create_dir(at("f.py")).unwrap();
    let root = dir.path().display();
    let policy = policy::Files {
        paths: vec![format!("{root}/**/*.py"), format!("{root}/*.none"), format!("{root}/gone")],
        ..policy("mode = '444'")
    };
    assert_eq!(
        said(&policy, &[], 1_000),
        [
            (Status::Critical, format!("{root}/gone does not exist")),
            (Status::Warning, format!("1 paths of rule are right, 3 are not; nothing matches {root}/*.none")),
            (Status::Warning, format!("{root}/b.py: mode 644 instead of 444")),
            (Status::Critical, format!("{root}/c.py: mode 446 instead of 444; everyone may write it")),
            (Status::Critical, format!("{root}/e.py: a link to {root}/a.py instead of a file")),
        ]
    );
    let known = at("a.py").display().to_string();
    let again = said(&policy, std::slice::from_ref(&known), 1_000);
    assert!(again.iter().any(|(status, text)| *status == Status::Ok && text.starts_with(&known)), "{again:?}");
    let cut = said(&policy, &[], 2);
    assert!(cut[1].1.contains("only the first 2 paths were looked at"), "{cut:?}");
}

#[test]
fn many_wrong_paths_are_counted_past_a_hundred() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..130 {
        fs::write(dir.path().join(format!("{number:03}")), "").unwrap();
    }
    let policy = policy::Files { paths: vec![format!("{}/*", dir.path().display())], ..policy("mode = '400'") };
    let said = said(&policy, &[], 1_000);
    assert_eq!(said.len(), 101);
    assert_eq!(said[0], (Status::Warning, "0 paths of rule are right, 130 are not (100 of them are named)".to_owned()));
}

#[test]
fn rules_have_targets_of_their_own() {
    let rule =
        |paths: &[&str]| policy::Files { paths: paths.iter().map(|path| (*path).to_owned()).collect(), ..policy("") };
    let rules = [rule(&["/a", "/a/*"]), rule(&["/a/*"]), rule(&["/b"]), rule(&[])];
    assert_eq!(targets(&rules), ["/a/*", "/a/* (2)", "/b", "a rule without paths"]);
}

#[test]
fn commands_and_texts_survive_any_name() {
    assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
    assert_eq!(shown(Path::new("/a\nb")), r"/a\nb");
}
