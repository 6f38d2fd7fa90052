//! The operator's handbook, walked: a bare Debian 12 that really boots becomes a hub by the very commands that stand in it, from
//! its packages to a reboot at the end. Secrets are rotated while Traefik's sockets are held by a real systemd, under load.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "fails as its stories do")]

use std::{
    io::ErrorKind,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use charliehub_tests::{
    Caller, Home, Systemd, Traefik, handbook, measured, mirror, ms, package, replaced, repository, secs, until,
};

/// What the handbook has apt bring for itself: found there already, so that the story does not load it each time.
const DEBIAN: [&str; 8] =
    ["curl", "jq", "logrotate", "mosquitto", "mosquitto-clients", "openssl", "postgresql", "redis-tools"];
const VERSION: &str = env!("CARGO_PKG_VERSION");

const FROM_BARE: &str = "From a bare Debian 12 to a hub";
const TLS: &str = "TLS and the private authority";
const SECRETS: &str = "Secrets and their rotation";
const HARDEN: &str = "Harden the host";
const BACKUP: &str = "Backup, restore, and a second PostgreSQL";
const UPGRADE: &str = "Upgrade, and the way back";

struct Walk {
    systemd: Systemd,
}

impl Walk {
    /// Pastes the block of this chapter that has these words, by root's bash in root's home; no line may fail. What is
    /// replaced is what differs here. All that it printed.
    fn paste(&self, chapter: &str, words: &str, differs: &[(&str, &str)]) -> String {
        let blocks = handbook(chapter);
        let mut found = blocks.iter().filter(|(language, text)| language == "sh" && text.contains(words));
        let (_, text) = found.next().unwrap_or_else(|| panic!("{chapter}: no block with `{words}`"));
        assert!(found.next().is_none(), "{chapter}: `{words}` is in several blocks");
        let differs: Vec<_> = differs.iter().map(|(from, to)| (*from, (*to).to_owned())).collect();
        std::fs::write(self.systemd.path("/root/block.sh"), replaced(text, &differs)).unwrap();
        let began = Instant::now();
        let said =
            self.systemd.must("cd /root && PATH=/usr/local/sbin:/usr/local/bin:$PATH bash -euo pipefail block.sh");
        measured(&format!("`{words}`"), began.elapsed());
        said
    }

    fn must(&self, line: &str) -> String {
        self.systemd.must(line)
    }

    async fn until(&self, what: &str, line: &str) {
        until(what, secs(180), async || {
            let (well, said) = self.systemd.try_sh(line);
            if well { Ok(()) } else { Err(said) }
        })
        .await;
    }

    fn api(&self) -> Caller {
        self.systemd.caller("127.0.0.1:8001".parse().unwrap())
    }

    fn copy(&self, from: &Path, to: &str) {
        std::fs::copy(from, self.systemd.path(to)).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_debian_becomes_a_hub_by_the_commands_of_the_handbook() {
    if !Systemd::can_boot() {
        return;
    }
    let began = Instant::now();
    let home = Home::new();
    for revision in ["1", "2"] {
        package(&home.join("debs"), &["--revision", revision]);
    }
    let mut hub = Walk { systemd: Systemd::boot_with(&home, &DEBIAN).await };
    bare(&home, &hub).await;
    measured("packed and booted", began.elapsed());

    install(&hub).await;
    certificates(&hub);
    rotate(&hub).await;
    harden(&hub).await;
    back_up_and_restore(&hub).await;
    upgrade_and_back(&hub);

    hub.systemd.reboot().await;
    hub.until("all is back after a reboot", "charliehub-provider check").await;
    hub.must(
        "systemctl is-active traefik traefik-web.socket charliehub-edge-agent charliehub-provider netfilter-persistent",
    );
    hub.must("iptables-save -t raw | grep -- '--dport 5432 -j DROP'");
    let failed = hub.must("systemctl --failed --plain --no-legend | grep -v auditd || true");
    assert_eq!(failed, "", "auditd alone does not run in a container");
    measured("all of it", began.elapsed());
}

/// What `scp` brings, and nothing of what `harden` is to install.
async fn bare(home: &Home, hub: &Walk) {
    hub.must("dpkg --purge iptables-persistent netfilter-persistent iptables");
    mirror(home, &hub.systemd).await;
    let debs = std::fs::read_dir(home.join("debs")).unwrap();
    for deb in debs.map(|entry| entry.unwrap()).filter(|entry| entry.path().extension().is_some_and(|it| it == "deb")) {
        let name = deb.file_name().to_string_lossy().into_owned();
        // Those of the upgrade come later, as they do in life.
        let folder = if name.contains("-2_") { "/srv" } else { "/root" };
        hub.copy(&deb.path(), &format!("{folder}/{name}"));
    }
    let deploy = Command::new("cp").arg("-a").arg(repository().join("deploy")).arg(hub.systemd.path("/root")).status();
    assert!(deploy.unwrap().success());
    hub.copy(&Traefik::program(), "/root/traefik");
}

async fn install(hub: &Walk) {
    let said = hub.paste(FROM_BARE, "apt-get update", &[]);
    assert!(said.contains("no routes yet: polls are held until the first row"), "{said}");
    hub.paste(FROM_BARE, "useradd --system", &[]);
    let said = hub.paste(FROM_BARE, "cat >>/etc/charliehub/provider.toml", &[]);
    assert!(said.contains("ok        database: PostgreSQL"), "{said}");
    hub.until("Traefik polls, and its API answers", "charliehub-provider check | grep 'ok .*Traefik hub2'").await;
    let said = hub.paste(FROM_BARE, "domains add docs", &[]);
    assert!(said.contains("docs.charliehub.net") && said.contains("\"ready\":true") && said.contains("ch_"), "{said}");
    let runs = "curl -sf http://127.0.0.1:8091/api/http/routers | grep -q docs.charliehub.net";
    hub.until("Traefik runs the first route", runs).await;
    // The hub of the sample is another: much of what it wants is not here.
    let lines = [("charliehub-edge-agent check ", "charliehub-edge-agent check || true ")];
    hub.paste(FROM_BARE, "--role agent", &lines);
    hub.until("the agent reports", "charliehub-provider agents list | grep '^hub2 .* ago'").await;
}

fn certificates(hub: &Walk) {
    let said = hub.paste(TLS, "$pki init $dir", &[("docker restart traefik", "systemctl restart traefik")]);
    assert_eq!(said.lines().filter(|line| line.ends_with(" ok")).count(), 4, "{said}");
    hub.paste(TLS, "charliehub-pki.{service,timer}", &[]);
    hub.must("systemctl start charliehub-pki.service");
}

/// Writes, polls and visits Traefik, each time on a connection of its own, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    fn start(hub: &Walk, token: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let web = hub.systemd.caller("127.0.0.1:80".parse().unwrap());
        let (api, token) = (hub.api(), token.to_owned());
        let writes = {
            let token = token.clone();
            move |number: usize| {
                let row = format!(
                    r#"{{"domain":"n{number}.test","tls_mode":"none","backend_host":"127.0.0.1","backend_port":9}}"#
                );
                expected(api.send("POST", "/api/domains", &token, &row), &[201])
            }
        };
        let polls = move |_| expected(api.send("GET", "/traefik?instance=load", &token, ""), &[200]);
        // To https; one that has just started knows no entry point's redirect for a moment, and one that ends closes what
        // it accepted in that moment. Nobody is refused.
        let visits = move |_| match web.send("GET", "/", "", "") {
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => Ok(()),
            other => expected(other, &[301, 404]),
        };
        let threads = vec![until_told(&stop, writes), until_told(&stop, polls), until_told(&stop, visits)];
        Self { stop, threads }
    }

    /// How often each did it, and what went wrong.
    fn stop(self) -> (Vec<usize>, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let done: Vec<_> = self.threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        (done.iter().map(|(count, _)| *count).collect(), done.into_iter().flat_map(|(_, errors)| errors).collect())
    }
}

fn expected(answer: std::io::Result<(u16, String)>, statuses: &[u16]) -> Result<(), String> {
    match answer {
        Ok((status, _)) if statuses.contains(&status) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[expect(clippy::disallowed_methods, reason = "on a thread of its own, to leave the processor to what is rotated")]
fn until_told(
    stop: &Arc<AtomicBool>,
    act: impl Fn(usize) -> Result<(), String> + Send + 'static,
) -> thread::JoinHandle<(usize, Vec<String>)> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let (mut count, mut errors) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            match act(count) {
                Ok(()) => count += 1,
                Err(error) => errors.push(error),
            }
            thread::sleep(ms(20));
        }
        (count, errors)
    })
}

async fn rotate(hub: &Walk) {
    let said = hub.paste(SECRETS, "rotate-secrets --dry-run", &[]);
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in ["internal agent a new token in", "config traefik a new token in", "config pki runs"] {
        assert!(words.contains(line), "{said}");
    }
    let said = hub.paste(SECRETS, "charliehub-rotate-secrets.{service,timer}", &[]);
    assert!(said.contains("charliehub-rotate-secrets.service"), "{said}");
    hub.must("sed -i 's/^grace = 30/grace = 2/' /etc/charliehub/rotate-secrets.conf");

    let secret = |file: &str| hub.must(&format!("cat {file}")).trim().to_owned();
    let leaf = "/etc/charliehub/provider-tls/server-hub2.example.org.pem";
    let files = ["/etc/credstore/traefik-token", "/etc/credstore/agent-token", leaf];
    let before = files.map(secret);
    let process = hub.must("systemctl show -P MainPID traefik");
    let load = Load::start(hub, &secret("/var/lib/charliehub-provider/admin.token"));
    let began = Instant::now();
    hub.must("systemctl start charliehub-rotate-secrets.service");
    measured("a rotation by its unit", began.elapsed());
    let (done, errors) = load.stop();
    println!("meanwhile {done:?} writes, polls and visits");
    assert_eq!(errors, Vec::<String>::new(), "requests during the rotation");
    assert!(done.iter().all(|count| *count > 10), "{done:?}");

    let told = hub.must("journalctl -u charliehub-rotate-secrets -o cat --no-pager");
    for name in ["agent", "traefik", "pki"] {
        assert!(told.contains(&format!("{name}: rotated")), "{name}: {told}");
    }
    let after = files.map(secret);
    assert!(before.iter().zip(&after).all(|(old, new)| old != new), "each is another");
    assert_ne!(hub.must("systemctl show -P MainPID traefik"), process, "Traefik was started anew");
    let opens = |token: &str| hub.api().send("GET", "/traefik?instance=hub2", token, "").unwrap().0;
    assert_eq!(before.first().map(|old| opens(old)), Some(401));
    assert_eq!(after.first().map(|new| opens(new)), Some(200));
    let rows = "charliehub-provider psql -- -Atc \"SELECT count(*) FROM domains WHERE domain LIKE 'n%.test'\"";
    assert_eq!(hub.must(rows).trim().parse().ok(), done.first().copied(), "every row that was answered is there");
    hub.until("the agent reports with its new token", "charliehub-provider agents list | grep '^hub2 .* [0-9] s ago'")
        .await;
    // The log of changes is still the provider's.
    hub.must("charliehub-provider domains add late.charliehub.net --backend 127.0.0.1:9 --tls none");
    hub.until("it is in the log of changes", "grep late.charliehub.net /var/log/charliehub/changes.log").await;
    assert_eq!(hub.must("stat -c %U /var/log/charliehub").trim(), "charliehub-provider");
}

async fn harden(hub: &Walk) {
    let said = hub.paste(
        HARDEN,
        "deploy/harden apply --yes --install",
        &[
            ("deploy/harden check    ", "deploy/harden check || true    "),
            ("deploy/harden apply    ", "deploy/harden apply || true    "),
            ("charliehub-edge-agent check    ", "charliehub-edge-agent check || true    "),
            ("deploy/harden undo --yes", "true"),
        ],
    );
    assert!(said.contains("==> installing iptables-persistent auditd") && said.contains("==> done;"), "{said}");
    hub.must("cd /root && deploy/harden check");
    hub.must("systemctl is-enabled netfilter-persistent && systemctl is-active netfilter-persistent");
    // No kernel of its own, so no rules are loaded; auditd's own tool says that the files and what it made of them agree.
    let said = hub.must("augenrules --check && grep charliehub /etc/audit/audit.rules");
    assert!(said.contains("No change") && said.contains("-w /etc/iptables -p wa -k charliehub"), "{said}");
    let right = "found=$(charliehub-edge-agent check); ! echo \"$found\" | grep '^critical  firewall' && \
                 echo \"$found\" | grep '^ok        firewall-required' && echo \"$found\" | grep 'ok .*netfilter-persistent'";
    hub.until("the agent finds the firewall in order", right).await;
}

async fn back_up_and_restore(hub: &Walk) {
    let said = hub.paste(BACKUP, "charliehub-provider backup --keep 14", &[]);
    let file = said.lines().find(|line| line.ends_with(".tar.gz")).unwrap_or_else(|| panic!("{said}")).to_owned();
    // The next one is made by the unit, in the same directory, by another user.
    hub.paste(BACKUP, "charliehub-backup.timer\nsystemctl start", &[]);
    assert_eq!(hub.must("ls /var/lib/charliehub-provider/backups").lines().count(), 2);
    let said = hub.paste(BACKUP, "restore FILE --dry-run", &[("FILE", &file)]);
    assert!(said.contains("domains"), "{said}");

    hub.must("charliehub-provider domains add mistake.charliehub.net --backend 127.0.0.1:9 --tls none");
    let said = hub.paste(BACKUP, "restore FILE --replace", &[("FILE", &file)]);
    assert!(said.contains("as in the backup"), "{said}");
    let listed = hub.must("charliehub-provider domains list");
    assert!(listed.contains("late.charliehub.net") && !listed.contains("mistake"), "{listed}");
    hub.until("the provider serves what was restored", "charliehub-provider check").await;
}

fn upgrade_and_back(hub: &Walk) {
    hub.must("cp /srv/*.deb /root/");
    let (newer, older) = (format!("{VERSION}-2"), format!("{VERSION}-1"));
    hub.paste(UPGRADE, "apt-get install -y ./charliehub-provider_0.2.0-1", &[("0.2.0-1", &newer)]);
    let installed = "dpkg-query -W -f '${Version}' charliehub-provider";
    assert_eq!(hub.must(installed), newer);
    hub.paste(UPGRADE, "--allow-downgrades", &[("0.1.0-1", &older)]);
    assert_eq!(hub.must(installed), older);
}
