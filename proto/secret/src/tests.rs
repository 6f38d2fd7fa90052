use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A program with this text, in a folder that goes with it.
fn program(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let path = path.display().to_string();
    (folder, path)
}

fn read(setting: &str) -> Result<String, String> {
    Source::from(Path::new(setting)).read().map_err(|error| error.to_string())
}

#[test]
fn a_file_or_what_a_command_prints() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, " a b \r\n").unwrap();
    assert_eq!(read(&file.display().to_string()).as_deref(), Ok(" a b "));
    let (_folder, vault) = program("printf ' %s-%s-%s \\n\\n' \"$1\" \"$2\" $#");
    assert_eq!(read(&format!("exec:{vault} kv  field=x")).as_deref(), Ok("kv-field=x-2"));
    // No shell reads the words.
    assert_eq!(read(&format!("exec:{vault} $HOME ;id")).as_deref(), Ok("$HOME-;id-2"));
}

#[test]
fn what_is_wrong_names_the_command_and_its_first_word_but_never_the_secret() {
    let (_folder, vault) = program("echo hunter2hunter2; echo 'sealed: hunter2hunter2' >&2; echo more >&2; exit 3");
    let said = read(&format!("exec:{vault} token=hunter2")).unwrap_err();
    assert!(said.starts_with(&format!("the command {vault} failed (exit status: 3): sealed: ***;")), "{said}");
    assert!(!said.contains("hunter2") && !said.contains('\n'), "{said}");
    let (_folder, silent) = program("exit 1");
    assert!(read(&format!("exec:{silent}")).unwrap_err().contains("it said nothing on stderr"));
    let (_folder, empty) = program("echo");
    assert!(read(&format!("exec:{empty}")).unwrap_err().contains("printed nothing; it must print"));
    let (_folder, binary) = program("printf '\\377\\376'");
    assert!(read(&format!("exec:{binary}")).unwrap_err().contains("it is not UTF-8"));
    // However it takes it that nobody reads on.
    let (_folder, long) = program("head -c 70000 /dev/zero | tr '\\0' x; exit 3");
    assert!(read(&format!("exec:{long}")).unwrap_err().contains("longer than 64 KiB"));
    for (setting, said) in [
        ("exec:vault read", "`exec:vault` does not name a command by its whole path; write exec:/usr/local/bin"),
        ("exec:", "`exec:` does not name a command"),
        ("exec:/nowhere/vault x", "the command /nowhere/vault cannot be started: No such file"),
        ("/nowhere/secret", "/nowhere/secret cannot be read: No such file"),
    ] {
        let error = read(setting).unwrap_err();
        assert!(error.starts_with(said), "{setting}: {error}");
    }
}

#[test]
fn a_command_that_hangs_is_ended_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    for text in ["sleep 300 & echo $! >>PIDS; echo $$ >>PIDS; wait", "echo $$ >>PIDS; exec >&- 2>&-; exec sleep 300"] {
        let (_folder, vault) = program(&text.replace("PIDS", &pids.display().to_string()));
        let source = Source::from(Path::new(&format!("exec:{vault}")));
        let began = Instant::now();
        let error = source.read_within(Duration::from_millis(800)).unwrap_err();
        assert!(matches!(error, Error::Late { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
    for pid in fs::read_to_string(&pids).unwrap().lines() {
        let gone = (0..500).any(|_| {
            let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let gone = state.is_empty() || state.contains(") Z ");
            if !gone {
                thread::park_timeout(Duration::from_millis(10));
            }
            gone
        });
        assert!(gone, "process {pid} still runs");
    }
}
