//! A hub whose secrets can be rotated: PostgreSQL with passwords, the provider, Traefik behind sockets that outlive it,
//! mosquitto, Redis, and stand-ins for Authelia and Grafana; and those who use the secrets all the while.

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpListener},
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::{Method, Response};
use rustix::io::{FdFlags, fcntl_setfd};
use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Backend, Connection, Home, Pki, Postgres, Process, Provider, Row, Traefik, ms, postgres::try_connect,
    process::guarded, secs, until,
};

/// How those fared who used the secrets meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// What was done.
    pub done: u64,
    /// What was not, in the words of who tried.
    pub failed: Vec<String>,
}

pub struct Keyring {
    pub home: Home,
    pub provider: Provider,
    pub postgres: Postgres,
    web: SocketAddr,
    redis: u16,
    mqtt: u16,
    rows: Arc<AtomicU64>,
    _processes: Vec<Process>,
    backends: Vec<Backend>,
}

impl Keyring {
    /// Where `deploy` is.
    pub fn deploy() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").canonicalize().expect("deploy")
    }

    pub async fn start() -> Self {
        let home = Home::new();
        let api = SocketAddr::from(([127, 0, 0, 1], home.port()));
        let web = SocketAddr::from(([127, 0, 0, 1], home.port()));
        // Before anything else is started, so that nothing else inherits it.
        let listener = TcpListener::bind(web).expect("the socket of web");
        let postgres = Postgres::start(&home).await;
        let url = passwords(&home, &postgres).await;
        let file = home.join("database.url");
        secret(&file, &url);
        let provider = Provider::new(&home, "provider")
            .set("database", "url_file", &format!("\"{}\"", file.display()))
            .start()
            .await;
        provider.until_metric("database_connected", secs(20), |value| value >= 1.0).await;
        for (role, name) in [("traefik", "traefik.token"), ("editor", "editor.token")] {
            secret(&home.join(name), &provider.token(role).await);
        }
        let (redis, mqtt) = (home.port(), home.port());
        let processes =
            vec![traefik(&home, provider.address(), &listener, api), start_redis(&home, redis), mosquitto(&home, mqtt)];
        drop(listener);
        secret(&home.join("session.secret"), "an old session secret");
        secret(&home.join("storage.key"), "an-old-storage-key-of-authelia");
        secret(&home.join("authelia.database"), "an-old-storage-key-of-authelia");
        secret(&home.join("grafana.password"), "an-old-password");
        secret(&home.join("grafana.database"), "an-old-password");
        let pki = Pki::init(&home, "pki").await;
        let copies = home.join("leaf");
        pki.issue("agent", "hub2", &["--to", &copies.display().to_string()]).await;
        stand_ins(&home);
        let hello = Backend::start(&home, "hello").await;
        let grafana = grafana(&home).await;
        let this = Self {
            home,
            provider,
            postgres,
            web,
            redis,
            mqtt,
            rows: Arc::default(),
            _processes: processes,
            backends: vec![hello, grafana],
        };
        this.configure(api);
        this.postgres.sql(&Row::http("first.test", this.backends[0].address()).insert()).await;
        until("the first route answers", secs(30), async || this.site().await.and_then(|status| expect(status, 200)))
            .await;
        for port in [redis, mqtt] {
            until("Redis and the broker listen", secs(20), async || TcpStream::connect(("127.0.0.1", port)).await)
                .await;
        }
        this.in_use().await.expect("a hub that works");
        this
    }

    /// `rotate-secrets.conf`: what is on this hub.
    fn configure(&self, api: SocketAddr) {
        let at = |name: &str| self.home.join(name).display().to_string();
        let command = self.provider.command();
        let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
        let provider: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        let (socket, port) = (at(&format!("s{}", self.postgres.host_and_port().1)), self.postgres.host_and_port().1);
        let mut text = format!(
            "# Made by a story.\n[run]\nstate = {}\nbackups = {}\nlog = {}\ngrace = 2\npatience = 40\n\
             provider = {}\nprovider_url = http://{}\n",
            at("rotation"),
            at("backups"),
            at("rotate.log"),
            provider.join(" "),
            self.provider.address()
        );
        write!(
            text,
            "[database]\nadmin = host={socket} port={port} user=postgres dbname=charliehub\n\
             roles = charliehub_a charliehub_b\nowner = charliehub_owner\nurl_file = {}\n\
             [token editor]\nfile = {}\n\
             [redis]\nport = {}\nfile = {}\n\
             [token traefik]\nphase = config\nfile = {}\ninto = {}\nreload = {}\n\
             wait_url = http://{api}/api/http/middlewares/charliehub-revision@http\n",
            at("database.url"),
            at("editor.token"),
            self.redis,
            at("redis.password"),
            at("traefik.token"),
            at("traefik.yml"),
            at("bin/restart-traefik"),
        )
        .unwrap();
        write!(
            text,
            "[mosquitto]\nusers = edge_a edge_b\nsecrets = {}\npasswords = {}\nbroker_reload = kill -HUP $(cat {})\n\
             into = {}\nport = {}\n\
             [file authelia-session]\nfile = {}\nreload = echo restarted >>{}\n\
             [authelia-storage]\nsettings = /etc/authelia.yml\nkey_file = {}\n\
             [grafana]\nfile = {}\nurl = http://{}\n\
             [command pki]\nchange = {} renew {}\nfiles = {} {}\n\
             [manual ovh]\nsays = make a new consumer key at OVH\n\
             [redis elsewhere]\nfile = {}\n",
            at("mqtt"),
            at("mosquitto.users"),
            at("mosquitto.pid"),
            at("mqtt.conf"),
            self.mqtt,
            at("session.secret"),
            at("restarts"),
            at("storage.key"),
            at("grafana.password"),
            self.backends[1].address(),
            Self::deploy().join("pki").display(),
            at("pki"),
            at("pki"),
            at("leaf"),
            at("nowhere"),
        )
        .unwrap();
        std::fs::write(self.config(), text).expect("its configuration");
    }

    pub fn config(&self) -> PathBuf {
        self.home.join("rotate-secrets.conf")
    }

    /// `deploy/rotate-secrets` with these words, in a group of processes of its own.
    pub fn rotation(&self, words: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::from(guarded(None, "KILL", Self::deploy().join("rotate-secrets")));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}:/usr/sbin", self.home.join("bin").display()));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CHARLIEHUB_")) {
            command.env_remove(name);
        }
        command.arg("--config").arg(self.config()).args(words).process_group(0).kill_on_drop(true);
        command
    }

    /// Runs it to its end; its exit code and what it said.
    pub async fn rotate(&self, words: &[&str]) -> (Option<i32>, String) {
        ended(self.rotation(words)).await
    }

    /// Runs it until it comes to a step of a secret, and is killed there, with all that it started: before the step, or
    /// behind it and before it is noted that it is done.
    pub async fn kill_at(&self, name: &str, step: &str, behind: bool) {
        let (code, said) = self.interrupt(name, step, behind, "kill -KILL -- -$$").await;
        assert_eq!(code, None, "{name} {step}: it was not killed: {said}");
    }

    /// Runs it for one secret, and does something to it at a step: before it, or behind it and before that is noted.
    pub async fn interrupt(&self, name: &str, step: &str, behind: bool, how: &str) -> (Option<i32>, String) {
        let at = if behind { r#"note "$name" "$step" "done""# } else { r#""${kind_of[$name]//-/_}_$step" "$name""# };
        let trap = format!(
            "set -o functrace\ntrap 'if [[ $BASH_COMMAND == '\\''{at}'\\'' && ${{name:-}} == {name} && ${{step:-}} == {step} ]]; then {how}; fi' DEBUG\n"
        );
        let file = self.home.join("trap.sh");
        std::fs::write(&file, trap).expect("a trap");
        let mut command = self.rotation(&["--only", name]);
        command.env("BASH_ENV", file);
        ended(command).await
    }

    /// What a secret's file holds.
    pub fn held(&self, file: &str) -> String {
        std::fs::read_to_string(self.home.join(file)).expect("a file").trim().to_owned()
    }

    /// Everything that the files say opens what it should.
    pub async fn in_use(&self) -> anyhow::Result<()> {
        let (url, home) = (self.held("database.url"), &self.home);
        shell(home, "database", &format!("psql -XAtqc 'SELECT 1' {url}")).await?;
        expect(self.asks("traefik.token", "/traefik").await?, 200)?;
        expect(self.asks("editor.token", "/api/domains?limit=1").await?, 200)?;
        shell(home, "redis", &format!("REDISCLI_AUTH=$(cat redis.password) redis-cli -e -p {} PING", self.redis))
            .await?;
        shell(home, "mosquitto", &publish(self.mqtt)).await
    }

    /// The same of those who stand still while their secret changes, and of the copy of a leaf that its program reads.
    pub async fn those_in_step(&self) {
        assert_eq!(self.held("storage.key"), self.held("authelia.database"));
        assert_eq!(self.held("grafana.password"), self.held("grafana.database"));
        let leaf = "cmp pki/agent-hub2.pem leaf/agent-hub2.pem && cmp pki/agent-hub2.key leaf/agent-hub2.key &&
            openssl verify -CAfile leaf/ca.pem leaf/agent-hub2.pem &&
            cmp <(openssl x509 -in leaf/agent-hub2.pem -noout -pubkey) <(openssl pkey -in leaf/agent-hub2.key -pubout)";
        shell(&self.home, "the leaf", leaf).await.expect("a certificate, its key and its authority");
    }

    async fn asks(&self, token: &str, path: &str) -> anyhow::Result<u16> {
        let bearer = format!("Bearer {}", self.held(token));
        let mut connection = Connection::open(&self.home, self.provider.address()).await?;
        Ok(connection.send(Method::GET, path, &[("authorization", &bearer)], "").await?.status)
    }

    /// Whether this token still opens.
    pub async fn opens(&self, token: &str, path: &str) -> u16 {
        let bearer = format!("Bearer {token}");
        let mut connection = self.provider.connection().await;
        connection.send(Method::GET, path, &[("authorization", &bearer)], "").await.expect("an answer").status
    }

    async fn site(&self) -> anyhow::Result<u16> {
        site(&self.home, self.web).await
    }

    /// Those who use it: they read their secret each time. By name.
    pub fn users(&self) -> Users {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let tallies: Vec<(&'static str, Arc<Mutex<Tally>>)> =
            ["site", "writer", "redis", "mqtt"].map(|name| (name, Arc::default())).into();
        let begin = |which: usize| (self.home.clone(), tallies[which].1.clone(), stop.clone());
        let (home, tally, stopped) = begin(0);
        let web = self.web;
        tasks.spawn(async move {
            while !stopped.is_cancelled() {
                count(&tally, site(&home, web).await.map(|status| (status, 200)));
                tokio::time::sleep(ms(20)).await;
            }
        });
        let (home, tally, stopped) = begin(1);
        let (provider, rows) = (self.provider.address(), self.rows.clone());
        tasks.spawn(async move {
            while !stopped.is_cancelled() {
                let row = Row::http(&format!("row{}.test", rows.load(Ordering::SeqCst)), ([127, 0, 0, 1], 9).into());
                let done = write(&home, provider, &row).await;
                if done.as_ref().is_ok_and(|status| *status == 201) {
                    rows.fetch_add(1, Ordering::SeqCst);
                }
                count(&tally, done.map(|status| (status, 201)));
                tokio::time::sleep(ms(150)).await;
            }
        });
        let scripts = [
            format!("REDISCLI_AUTH=$(cat redis.password) redis-cli -e -p {} INCR writes", self.redis),
            publish(self.mqtt),
        ];
        for (which, script) in scripts.into_iter().enumerate() {
            let (home, tally, stopped) = begin(which + 2);
            tasks.spawn(async move {
                while !stopped.is_cancelled() {
                    count(&tally, shell(&home, "user", &script).await.map(|()| (0, 0)));
                    tokio::time::sleep(ms(200)).await;
                }
            });
        }
        tasks.close();
        Users { tallies, stop, tasks }
    }

    /// The rows that a writer was told are there, and those that are.
    pub async fn rows(&self) -> (u64, u64) {
        let there = self.postgres.value("SELECT count(*) FROM domains WHERE domain LIKE 'row%'").await;
        (self.rows.load(Ordering::SeqCst), there.parse().expect("a count"))
    }

    /// What Redis counted.
    pub async fn counted(&self) -> u64 {
        let script = format!("REDISCLI_AUTH=$(cat redis.password) redis-cli -e -p {} GET writes >counted", self.redis);
        shell(&self.home, "redis", &script).await.expect("an answer of Redis");
        self.held("counted").parse().unwrap_or(0)
    }
}

/// Of [`Keyring::users`].
pub struct Users {
    tallies: Vec<(&'static str, Arc<Mutex<Tally>>)>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Tally {
    /// Of who visits a Traefik that is started anew behind a socket that stays: it knows no route for a moment, and closes a
    /// connection that it accepted in the moment of its end. Nobody is refused.
    pub fn refused_nobody(&self) -> bool {
        self.failed.iter().all(|what| what == "status 404" || what == "connection closed before message completed")
    }
}

impl Users {
    pub fn of(&self, name: &str) -> Tally {
        let (_, tally) = self.tallies.iter().find(|(known, _)| *known == name).expect("a user");
        tally.lock().unwrap().clone()
    }

    /// Waits until each has done this many things more.
    pub async fn go_on(&self, more: u64) {
        for (name, _) in &self.tallies {
            let goal = self.of(name).done + more;
            until(&format!("{name} goes on"), secs(30), async || {
                let tally = self.of(name);
                if tally.done >= goal { Ok(()) } else { Err(tally) }
            })
            .await;
        }
    }

    /// Each ends what it is about.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

fn count(tally: &Mutex<Tally>, outcome: anyhow::Result<(u16, u16)>) {
    let mut tally = tally.lock().unwrap();
    match outcome {
        Ok((is, right)) if is == right => tally.done += 1,
        Ok((is, _)) => tally.failed.push(format!("status {is}")),
        Err(error) => tally.failed.push(format!("{error:#}")),
    }
}

fn expect(is: u16, right: u16) -> anyhow::Result<()> {
    anyhow::ensure!(is == right, "status {is}");
    Ok(())
}

async fn site(home: &Home, web: SocketAddr) -> anyhow::Result<u16> {
    let mut connection = Connection::open(home, web).await?;
    Ok(connection.send(Method::GET, "/", &[("host", "first.test")], "").await?.status)
}

async fn write(home: &Home, provider: SocketAddr, row: &Row) -> anyhow::Result<u16> {
    let token = std::fs::read_to_string(home.join("editor.token"))?;
    let bearer = format!("Bearer {}", token.trim());
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let mut connection = Connection::open(home, provider).await?;
    Ok(connection.send(Method::POST, "/api/domains", &headers, &row.json().to_string()).await?.status)
}

/// A client of the broker that reads its settings, then its password.
fn publish(port: u16) -> String {
    format!(
        "folder=$(mktemp -d -p \"$PWD\" client.XXXXXX); trap 'rm -rf \"$folder\"' EXIT; read -r user file <mqtt.conf\n\
         printf -- '-u %s\\n-P %s\\n' \"$user\" \"$(cat \"$file\")\" >\"$folder/mosquitto_pub\"\n\
         XDG_CONFIG_HOME=$folder mosquitto_pub -h 127.0.0.1 -p {port} -q 1 -t story -m x"
    )
}

/// A few lines of bash in the home.
async fn shell(home: &Home, what: &str, script: &str) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::from(guarded(None, "KILL", "bash"));
    command.args(["-c", script]).current_dir(home.path()).kill_on_drop(true).stdin(std::process::Stdio::null());
    let out = tokio::time::timeout(secs(30), command.output()).await??;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    anyhow::ensure!(out.status.success() && !said.contains("WRONGPASS"), "{what}: {} {}", out.status, said.trim());
    Ok(())
}

async fn ended(mut command: tokio::process::Command) -> (Option<i32>, String) {
    let out = tokio::time::timeout(secs(180), command.stdin(std::process::Stdio::null()).output()).await;
    let out = out.expect("a rotation that ends").expect("deploy/rotate-secrets");
    (out.status.code(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

/// A file for its owner alone.
fn secret(path: &Path, text: &str) {
    std::fs::write(path, format!("{text}\n")).expect("a secret");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640)).expect("its mode");
}

fn program(home: &Home, name: &str, text: &str) {
    let folder = home.join("bin");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join(name), text).expect("a program");
    std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// Roles that take turns; from now on TCP wants their passwords. The URL of the first.
async fn passwords(home: &Home, postgres: &Postgres) -> String {
    let hba = postgres.data().join("pg_hba.conf");
    let text = std::fs::read_to_string(&hba).expect("pg_hba.conf");
    let text: Vec<String> = text
        .lines()
        .map(|line| if line.starts_with("host") { line.replace("trust", "md5") } else { line.to_owned() })
        .collect();
    std::fs::write(&hba, text.join("\n") + "\n").expect("pg_hba.conf");
    // SCRAM, which a hub has, costs a program that is built without optimization a second for each connection.
    postgres.sql("ALTER SYSTEM SET password_encryption = 'md5'").await;
    postgres.sql("SELECT pg_reload_conf()").await;
    until("new passwords are of the other kind", secs(20), async || {
        let kind = postgres.value("SHOW password_encryption").await;
        if kind == "md5" { Ok(()) } else { Err(kind) }
    })
    .await;
    postgres
        .sql(
            "CREATE ROLE charliehub_owner; ALTER DATABASE charliehub OWNER TO charliehub_owner;
             CREATE ROLE charliehub_a LOGIN PASSWORD 'old' IN ROLE charliehub_owner;
             ALTER ROLE charliehub_a SET role = 'charliehub_owner';
             SELECT pg_reload_conf()",
        )
        .await;
    let (address, port) = postgres.host_and_port();
    let url = format!("postgres://charliehub_a:old@{address}:{port}/charliehub");
    let wrong = url.replace(":old@", ":wrong@").parse().expect("a URL");
    until("a wrong password is refused", secs(20), async || {
        try_connect(home, &wrong).await.err().ok_or("it is let in")
    })
    .await;
    url
}

/// The real Traefik, whose socket is held by somebody else, as systemd does.
fn traefik(home: &Home, provider: SocketAddr, listener: &TcpListener, api: SocketAddr) -> Process {
    let token = std::fs::read_to_string(home.join("traefik.token")).expect("its token");
    let text = format!(
        "global:\n  checkNewVersion: false\n  sendAnonymousUsage: false\napi:\n  insecure: true\nentryPoints:\n  web:\n    \
         address: \"127.0.0.1:1\"\n  traefik:\n    address: \"{api}\"\nproviders:\n  providersThrottleDuration: 10ms\n  \
         http:\n    endpoint: \"http://{provider}/traefik?wait=55s&instance=hub2\"\n    pollInterval: 10ms\n    \
         pollTimeout: 60s\n    headers:\n      Authorization: \"Bearer {}\"\n",
        token.trim()
    );
    std::fs::write(home.join("traefik.yml"), text).expect("Traefik's static configuration");
    program(
        home,
        "hold-traefik",
        "#!/bin/bash\n# FD PROGRAM: starts it with the socket FD named web, and again after each HUP.\n\
         exec 3<&\"$1\"\ncd \"$(dirname \"$0\")/..\"\necho $$ >holder.pid\ntrap : HUP\nwhile :; do\n\
         LISTEN_FDS=1 LISTEN_FDNAMES=web setpriv --pdeathsig KILL -- bash -c 'LISTEN_PID=$$ exec \"$0\" --configfile=traefik.yml' \"$2\" &\n\
         child=$!\necho $child >traefik.pid\nwait $child\nkill -TERM $child 2>/dev/null\n\
         while kill -0 $child 2>/dev/null; do wait $child; done\ndone\n",
    );
    program(
        home,
        "restart-traefik",
        "#!/bin/bash\ncd \"$(dirname \"$0\")/..\"\nold=$(cat traefik.pid)\nkill -HUP \"$(cat holder.pid)\"\n\
         while [[ $(cat traefik.pid) == \"$old\" ]]; do sleep 0.02; done\n",
    );
    fcntl_setfd(listener, FdFlags::empty()).expect("a socket to hand on");
    let mut command = guarded(None, "KILL", home.join("bin/hold-traefik"));
    command.arg(listener.as_raw_fd().to_string()).arg(Traefik::program());
    let process = Process::start(home, "traefik", command);
    fcntl_setfd(listener, FdFlags::CLOEXEC).expect("a socket of our own");
    process
}

fn start_redis(home: &Home, port: u16) -> Process {
    secret(&home.join("redis.password"), "old-password-of-redis");
    let text = format!(
        "bind 127.0.0.1\nport {port}\nsave \"\"\nappendonly no\ndir {}\nrequirepass old-password-of-redis\n",
        home.path().display()
    );
    std::fs::write(home.join("redis.conf"), text).expect("its config");
    let mut command = guarded(None, "KILL", "redis-server");
    command.arg(home.join("redis.conf"));
    Process::start(home, "redis", command)
}

fn mosquitto(home: &Home, port: u16) -> Process {
    let at = |name: &str| home.join(name).display().to_string();
    std::fs::create_dir(home.join("mqtt")).expect("a folder");
    secret(&home.join("mqtt/edge_a"), "old-password");
    std::fs::write(home.join("mqtt.conf"), format!("edge_a {}\n", at("mqtt/edge_a"))).expect("the client's settings");
    crate::netns::run("mosquitto_passwd", &["-b", "-c", &at("mosquitto.users"), "edge_a", "old-password"]);
    let text = format!(
        "user root\nallow_anonymous false\npassword_file {}\nlistener {port} 127.0.0.1\npid_file {}\n",
        at("mosquitto.users"),
        at("mosquitto.pid")
    );
    std::fs::write(home.join("mosquitto.conf"), text).expect("its config");
    let mut command = guarded(None, "KILL", "mosquitto");
    command.arg("-c").arg(home.join("mosquitto.conf"));
    Process::start(home, "mosquitto", command)
}

/// Programs that are not here, as far as the rotation knows them. Each notes what it was called with.
fn stand_ins(home: &Home) {
    program(
        home,
        "authelia",
        "#!/bin/bash\ncd \"$(dirname \"$0\")/..\"\necho \"authelia $1 $2 $3\" >>calls\nkey=$(cat \"$AUTHELIA_STORAGE_ENCRYPTION_KEY_FILE\")\n\
         case $3 in\n check) if [[ $key == \"$(cat authelia.database)\" ]]; then echo 'Storage Encryption Key Validation: SUCCESS'\n\
         else echo 'Storage Encryption Key Validation: FAILURE'; fi ;;\n\
         change-key) [[ $key == \"$(cat authelia.database)\" ]] || exit 1\n echo \"$5\" >authelia.new && mv authelia.new authelia.database ;;\nesac\n",
    );
    program(
        home,
        "grafana",
        "#!/bin/bash\ncd \"$(dirname \"$0\")/..\"\necho \"grafana $*\" >>calls\ncat >grafana.new && mv grafana.new grafana.database\n",
    );
    // What is written outlives a kill anyway; a busy disk would only make the story slow.
    program(home, "sync", "#!/bin/sh\n");
}

/// Grafana's answer to whoever comes with a password.
async fn grafana(home: &Home) -> Backend {
    let database = home.join("grafana.database");
    Backend::with(home, move |seen| {
        let password = std::fs::read_to_string(&database).unwrap_or_default();
        let right = format!("Basic {}", BASE64_STANDARD.encode(format!("admin:{}", password.trim())));
        let status = if seen.headers.get("authorization") == Some(&right) { 200 } else { 401 };
        Response::builder().status(status).body(String::new()).expect("a response")
    })
    .await
}
