//! A certificate will fail us, or has: each way of `cert-case` is made for real, seen, mended, and seen to be mended. Then
//! a real ACME server and a real Traefik, which renews by itself.
#![allow(clippy::expect_used, reason = "fails as its stories do")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command as Blocking,
    time::Duration,
};

use charliehub_proto::finding::{Finding, Status};
use charliehub_tests::{Agent, CertCase, Home, Switch, Traefik, full, measured, secs, until};
use futures_util::{StreamExt as _, stream};
use tokio::process::Command;

use Status::{Critical, Unknown, Warning};

const OURS: [&str; 4] = ["certificate", "certificate-stored", "certificate-files", "acme-storage"];

/// In which check something is found, how bad, and with what in its text.
type Bad = (&'static str, Status, &'static str);

/// What must be found of each case; nothing where it is fine.
const EXPECTATIONS: &[(&str, Option<Bad>)] = &[
    ("valid", None),
    ("wildcard", None),
    ("short-6d-fresh", None),
    ("short-6d-mid", None),
    ("ecdsa", None),
    ("rsa2048", None),
    ("multi-san", None),
    ("cross-day", None),
    ("expires-22d", Some(("certificate", Warning, "d left of 90 d"))),
    ("short-6d-30h", Some(("certificate", Warning, "h left of 6 d"))),
    ("staging", Some(("certificate", Warning, "staging authority"))),
    ("mode-640", Some(("acme-storage", Critical, "has mode 640"))),
    ("expired", Some(("certificate", Critical, "expired"))),
    ("expires-2d", Some(("certificate", Critical, "left of 90 d"))),
    ("short-6d-1h", Some(("certificate", Critical, "min left of 6 d"))),
    ("not-yet-valid", Some(("certificate", Critical, "is not valid before"))),
    ("wrong-san", Some(("certificate", Critical, "is not for it but for other.example.test"))),
    ("cn-only", Some(("certificate", Critical, "is for no name"))),
    ("wildcard-deep", Some(("certificate", Critical, "is not for it but for *.example.test"))),
    ("self-signed", Some(("certificate", Critical, "is self-signed"))),
    ("untrusted-ca", Some(("certificate", Critical, "ends in `Untrusted Root`"))),
    ("no-intermediate", Some(("certificate", Critical, "comes without its issuer"))),
    ("key-mismatch", Some(("certificate-stored", Critical, "has a key beside it that is not its own"))),
    ("client-only", Some(("certificate", Critical, "is not for servers"))),
    ("traefik-default", Some(("certificate", Critical, "is Traefik's default one"))),
    ("served-differs", Some(("certificate", Critical, "another one than acme.json holds"))),
    ("acme-truncated", Some(("acme-storage", Critical, "nobody is writing it"))),
    ("acme-empty-file", Some(("acme-storage", Warning, "is empty"))),
    ("acme-missing", Some(("acme-storage", Unknown, "there is no"))),
    ("corrupt-leaf", Some(("certificate-stored", Critical, "is not a certificate"))),
    ("acme-no-certs", Some(("acme-storage", Warning, "holds no certificate"))),
    ("acme-two-resolvers", None),
    ("weak-rsa1024", Some(("certificate", Warning, "1024 bits"))),
    ("expired-intermediate", Some(("certificate", Critical, "hangs on the intermediate"))),
    ("chain-order", Some(("certificate-stored", Warning, "wrong order"))),
];

#[tokio::test]
async fn each_way_in_which_a_certificate_fails_is_seen_and_its_mending_too() {
    let list = run(tool("cert-case").arg("--list")).await;
    let cases: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let expected: Vec<&str> = EXPECTATIONS.iter().map(|(case, _)| *case).collect();
    assert!(cases.len() >= 35, "{cases:?}");
    for case in &cases {
        assert!(expected.contains(case), "nothing is expected of `{case}`");
    }
    // With real intervals they mostly wait.
    let at_once = if full() { EXPECTATIONS.len() } else { 8 };
    let all = EXPECTATIONS.iter().map(|(case, bad)| seen_and_mended(case, *bad));
    let took: Vec<_> = stream::iter(all).buffer_unordered(at_once).collect().await;
    let slowest = took.iter().max().expect("cases");
    measured("the slowest to be seen", *slowest);
}

/// One case on a target of its own. Tells how long it took to be seen.
async fn seen_and_mended(case: &str, bad: Option<Bad>) -> Duration {
    let home = Home::new();
    let domain = if case == "wildcard-deep" { "a.b.example.test" } else { "app.example.test" };
    let good = CertCase::make(&home, "good", domain, "valid", "Good Root").await;
    let root = if case == "untrusted-ca" { "Untrusted Root" } else { "Bad Root" };
    let other = CertCase::make(&home, "other", domain, case, root).await;
    let target = home.join("acme.json");
    let switch = Switch::to(&home, good.port.expect("a port"));
    good.store(&target);
    let agent = Agent::start(&home, &settings(&target, switch.address(), domain, &[&good, &other])).await;
    let (calm, _) = agent
        .until("all is well", budget(secs(30)), |findings| {
            has(findings, "certificate", domain, Status::Ok)
                && has(findings, "certificate-stored", domain, Status::Ok)
                && has(findings, "acme-storage", &target.display().to_string(), Status::Ok)
        })
        .await;
    let elsewhere = not_ok(&calm, |finding| !OURS.contains(&&*finding.check));

    // The fault.
    switch.turn_to(other.port.or(good.port).expect("a port"));
    other.store(&target);
    let budget = match case {
        "served-differs" if full() => secs(10 * 60 + 65),
        "mode-640" | "acme-truncated" | "acme-empty-file" | "acme-missing" | "corrupt-leaf" | "key-mismatch" => {
            secs(15)
        }
        _ => budget(secs(65)),
    };
    let Some((check, status, says)) = bad else {
        let leaf = fingerprint(&other.dir.join("leaf.pem")).await;
        let (_, took) = agent
            .until(&format!("{case}: it is seen, and fine"), budget, |findings| {
                assert_eq!(not_ok(findings, |finding| OURS.contains(&&*finding.check)), Vec::<String>::new(), "{case}");
                let served = findings.iter().find(|finding| finding.check == "certificate");
                served.is_some_and(|served| served.observed.as_ref().is_some_and(|seen| seen.contains(&leaf)))
            })
            .await;
        return took;
    };
    let place = if check == "acme-storage" { target.display().to_string() } else { domain.to_owned() };
    let mine = |finding: &Finding| finding.check == check && finding.target == place;
    let (seen, took) = agent
        .until(&format!("{case}: {check} is {status}"), budget, |findings| {
            // Nothing else changes, at any time.
            let others = not_ok(findings, |finding| OURS.contains(&&*finding.check) && !mine(finding));
            assert_eq!(others, Vec::<String>::new(), "{case}");
            has(findings, check, &place, status)
        })
        .await;
    assert_eq!(not_ok(&seen, |finding| !OURS.contains(&&*finding.check)), elsewhere, "{case}");
    let finding = seen.iter().find(|finding| mine(finding)).expect("it was found");
    assert!(finding.text.contains(says), "{case}: {}", finding.text);
    let remedy = finding.remedy.as_deref().unwrap_or_else(|| panic!("{case} has no remedy"));
    measured(&format!("{case} is {status}"), took);

    // Its mending: by the remedy where that is a command, else the fault is undone.
    if case == "mode-640" {
        run(Command::new("sh").args(["-c", remedy])).await;
    } else {
        switch.turn_to(good.port.expect("a port"));
        good.store(&target);
    }
    agent
        .until(&format!("{case}: it is well again"), budget_to_clear(), |findings| {
            not_ok(findings, |finding| OURS.contains(&&*finding.check)).is_empty()
                && has(findings, "certificate", domain, Status::Ok)
                && has(findings, "certificate-stored", domain, Status::Ok)
        })
        .await;
    took
}

#[tokio::test]
async fn what_a_real_traefik_got_by_acme_is_understood_and_its_mode_matters() {
    let home = Home::new();
    let traefik = Acme::up(&home, &[]).await;
    let agent = Agent::start(&home, &traefik.settings()).await;
    agent.until("both names are well", budget(secs(30)), both_are_well).await;
    let observed = agent.finding("certificate", "app.example.test").await.and_then(|finding| finding.observed);
    assert!(observed.as_ref().is_some_and(|seen| seen.contains("Pebble Intermediate")), "{observed:?}");
    let metrics = agent.metrics().await;
    for source in ["served", "stored"] {
        let series = format!(
            "charliehub_agent_certificate_not_after_timestamp_seconds{{domain=\"api.example.test\",source=\"{source}\"}}"
        );
        assert!(metrics.contains(&series), "{series}");
    }

    // Traefik starts without its resolver, and serves its default certificate.
    traefik.run(&["mode", "640"]).await;
    let (seen, _) = agent
        .until("the mode, and what comes of it", budget(secs(65)), |findings| {
            has(findings, "acme-storage", &traefik.storage, Critical)
                && has(findings, "certificate", "app.example.test", Critical)
        })
        .await;
    let text = |check: &str| seen.iter().find(|finding| finding.check == check).map(|finding| finding.text.clone());
    assert!(text("certificate").is_some_and(|text| text.contains("Traefik's default one")), "{seen:#?}");
    let remedy = seen.iter().find(|finding| finding.check == "acme-storage").and_then(|finding| finding.remedy.clone());
    run(Command::new("sh").arg("-c").arg(remedy.expect("a remedy"))).await;
    traefik.run(&["mode", "600"]).await;
    agent.until("both names are well again", budget_to_clear(), both_are_well).await;
}

#[tokio::test]
async fn a_renewal_is_followed_without_a_false_alarm() {
    let home = Home::new();
    // Traefik renews 20 min before the end, and looks each minute.
    let traefik = Acme::up(&home, &["--lifetime", "1201"]).await;
    let agent = Agent::start(&home, &traefik.settings()).await;
    agent.until("both names are well", budget(secs(30)), both_are_well).await;
    let seen = async || agent.finding("certificate", "app.example.test").await.and_then(|finding| finding.observed);
    for renewal in 0..if full() { 5 } else { 1 } {
        let before = seen().await;
        let (_, took) = until("another one is served", secs(150), async || {
            let findings = agent.findings().await;
            assert!(both_are_well(&findings), "{findings:#?}");
            let now = seen().await;
            if now == before { Err(now) } else { Ok(now) }
        })
        .await;
        measured(&format!("renewal {renewal} after"), took);
    }
    agent
        .until("what is served is what is stored", budget(secs(70)), |findings| {
            let stored = findings.iter().filter(|finding| finding.check == "certificate-stored");
            both_are_well(findings)
                && stored.map(|finding| &finding.text).all(|text| text.contains("the one that is served"))
        })
        .await;
}

fn both_are_well(findings: &[Finding]) -> bool {
    not_ok(findings, |finding| OURS.contains(&&*finding.check)).is_empty()
        && ["app.example.test", "api.example.test"].iter().all(|name| {
            has(findings, "certificate", name, Status::Ok) && has(findings, "certificate-stored", name, Status::Ok)
        })
        && findings.iter().any(|finding| finding.check == "acme-storage")
}

/// The budget of `edge.md` with the real intervals; CI looks each half a second.
fn budget(real: Duration) -> Duration {
    if full() { real } else { secs(20) }
}

/// Two looks that span `timing.clear`.
fn budget_to_clear() -> Duration {
    budget(secs(150))
}

fn has(findings: &[Finding], check: &str, target: &str, status: Status) -> bool {
    findings.iter().any(|finding| finding.check == check && finding.target == target && finding.status == status)
}

fn not_ok(findings: &[Finding], concerns: impl Fn(&Finding) -> bool) -> Vec<String> {
    let bad = findings.iter().filter(|finding| finding.status != Status::Ok && concerns(finding));
    bad.map(|finding| format!("{} {}: {}", finding.check, finding.target, finding.text)).collect()
}

fn settings(acme_json: &Path, entry_point: SocketAddr, domain: &str, made: &[&CertCase]) -> String {
    let roots: Vec<String> = made.iter().map(|made| format!("\"{}\"", made.dir.join("root.pem").display())).collect();
    format!(
        "{timing}\n[certificates]\nacme_json = [\"{acme_json}\"]\nauthorities = [{}]\n{windows}\n\
         [certificates.entry_points]\nwebsecure = \"{entry_point}\"\n[policy.certificates]\nnames = [\"{domain}\"]\n",
        roots.join(", "),
        timing = timing(),
        acme_json = acme_json.display(),
        windows = if full() { "" } else { "differs_warning = \"500ms\"\ndiffers_critical = \"2s\"" },
    )
}

fn timing() -> &'static str {
    if full() { "" } else { "[timing]\ncertificates = \"500ms\"\ndoubt = \"200ms\"\nclear = \"400ms\"" }
}

fn tool(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(name))
}

async fn run(command: &mut Command) -> String {
    let out = command.output().await.expect("a tool that starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{command:?}: {}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

/// As findings begin it.
async fn fingerprint(pem: &Path) -> String {
    let said = run(Command::new("openssl").args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(pem)).await;
    said.split_once('=').map(|(_, bytes)| bytes.chars().take(11).collect()).expect("a fingerprint")
}

/// The `NAME=value` of what a tool says.
fn value(said: &str, name: &str) -> Option<String> {
    said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

/// A real ACME server, and a real Traefik that gets its certificates there.
struct Acme {
    work: PathBuf,
    https: u16,
    storage: String,
    root: String,
}

impl Acme {
    async fn up(home: &Home, options: &[&str]) -> Self {
        let work = home.join("acme");
        let mut command = tool("acme-traefik");
        command.arg("up").arg("--work").arg(&work).arg("--traefik").arg(Traefik::program()).args(options);
        command.arg("--base-port").arg(home.ports(7).to_string());
        let said = run(&mut command).await;
        let value = |name| value(&said, name).unwrap_or_else(|| panic!("no {name} in {said}"));
        Self {
            https: value("HTTPS_PORT").parse().expect("a port"),
            storage: value("ACME_JSON"),
            root: value("CA_ROOT"),
            work,
        }
    }

    async fn run(&self, words: &[&str]) {
        let [command, rest @ ..] = words else { panic!("no command") };
        run(tool("acme-traefik").arg(command).arg("--work").arg(&self.work).args(rest)).await;
    }

    fn settings(&self) -> String {
        format!(
            "{timing}\n[certificates]\nacme_json = [{:?}]\nauthorities = [{:?}]\n[certificates.entry_points]\n\
             websecure = \"127.0.0.1:{}\"\n[policy.certificates]\nnames = [\"app.example.test\", \"api.example.test\"]\n",
            self.storage,
            self.root,
            self.https,
            timing = timing(),
        )
    }
}

impl Drop for Acme {
    fn drop(&mut self) {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/acme-traefik");
        Blocking::new(tool).args(["down", "--work"]).arg(&self.work).output().ok();
    }
}
