//! What the handbook says of TCP is true: its rows are written by psql, its commands are run, and they print what it shows.
//! Behind the hub's own Traefik are the real mosquitto with the hub's settings, and the real PostgreSQL.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "a story fails by panicking")]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
};

use charliehub_tests::{
    Alias, Authority, Home, Hub, Process, Rendered, Row, Signal, handbook, is_root, replaced, repository, secs, until,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    process::Command,
};

const BANNER: &str = "SSH-2.0-OpenSSH_9.2p1 Debian-2";
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The hub's broker, without a container: its own settings, with the places of this test.
struct Broker {
    process: Process,
    users: PathBuf,
    address: SocketAddr,
}

impl Broker {
    async fn start(home: &Home) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let (users, data) = (home.join("mqtt_users"), home.join("mqtt-data"));
        fs::create_dir(&data).unwrap();
        password(&users, "exporter", "a password", true).await;
        let text = fs::read_to_string(repository().join("deploy/mosquitto/mosquitto.conf")).unwrap();
        let text = replaced(
            &text,
            &[
                ("listener 1883\n", format!("user root\nlistener {} 127.0.0.1\n", address.port())),
                ("/run/secrets/mqtt_users", users.display().to_string()),
                ("/mosquitto/data/", format!("{}/", data.display())),
            ],
        );
        let config = home.join("hub-mosquitto.conf");
        fs::write(&config, text).unwrap();
        let mut command = std::process::Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "mosquitto", "-c"]).arg(config);
        let process = Process::start(home, "hub-mosquitto", command);
        until("the broker listens", secs(20), async || TcpStream::connect(address).await).await;
        Self { process, users, address }
    }
}

async fn password(users: &Path, name: &str, password: &str, new: bool) {
    let mut command = Command::new("mosquitto_passwd");
    if new {
        command.arg("-c");
    }
    let done = command.arg("-b").arg(users).args([name, password]).status().await.unwrap();
    assert!(done.success());
}

/// An SSH server as far as its first line.
async fn ssh(home: &Home) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    home.tasks().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(format!("{BANNER}\r\n").as_bytes()).await.ok();
        }
    });
    address
}

/// A server that ends TLS itself.
async fn proxmox(home: &Home, authority: &Authority) -> (Process, SocketAddr) {
    let (certificate, key) = authority.issue("px1", &["px1.charliehub.net"]);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
    let mut command = std::process::Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "--",
        "openssl",
        "s_server",
        "-quiet",
        "-www",
        "-accept",
        &address.to_string(),
    ]);
    let process = Process::start(home, "px1", {
        command.arg("-cert").arg(certificate).arg("-key").arg(key);
        command
    });
    until("px1 listens", secs(20), async || TcpStream::connect(address).await).await;
    (process, address)
}

/// What commands printed, and whether they all went well.
#[derive(Debug)]
struct Ran {
    right: bool,
    out: String,
    err: String,
}

/// Runs it where names lead to these addresses.
async fn run(hosts: &Path, script: &str, secret: &str) -> Ran {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec bash -euc \"$1\""]);
    command.arg(hosts).arg(script).env("PASSWORD", secret).stdin(Stdio::null()).kill_on_drop(true);
    let Ok(output) = tokio::time::timeout(secs(20), command.output()).await else {
        return Ran { right: false, out: String::new(), err: "no end in 20 s".to_owned() };
    };
    let output = output.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\r', "");
    Ran { right: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_handbook_do_what_they_say() {
    assert!(is_root(), "names lead elsewhere in a mount namespace");
    let home = Home::new();
    let web = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
    let tunnel = Alias::new(44);
    let [postgres, ssh_at, internal] = [(); 3].map(|()| SocketAddr::from((tunnel.ip(), home.port())));
    let values = [format!("POSTGRES={postgres}"), format!("SSH={ssh_at}"), format!("INTERNAL={internal}")];
    let rendered = Rendered { with: &["postgres", "ssh", "internal"], values: &values, environment: &[] };
    let hub = Hub::start(home.clone(), web, "http://127.0.0.1:9/", &rendered).await;
    let broker = Broker::start(&home).await;
    let (own, banner) = (Authority::new(&home, "px"), ssh(&home).await);
    let (_px1, px1) = proxmox(&home, &own).await;
    hub.world.psql("CREATE ROLE reader LOGIN").await;

    // Its rows, as an operator would paste them.
    let blocks = handbook("TCP: MQTT, PostgreSQL, SSH");
    let of = |language: &str| -> Vec<&String> {
        blocks.iter().filter(|block| block.0 == language).map(|block| &block.1).collect()
    };
    let at = |address: SocketAddr| format!("'{}', {}", address.ip(), address.port());
    let (host, port) = hub.world.postgres.host_and_port();
    let backends = [
        ("'mosquitto', 1883", at(broker.address)),
        ("'10.44.0.20', 5432", at(SocketAddr::new(host, port))),
        ("'10.44.0.30', 22", at(banner)),
        ("'10.44.0.11', 8006", at(px1)),
    ];
    assert_eq!(of("sql").len(), backends.len());
    for (sql, backend) in of("sql").into_iter().zip(backends) {
        hub.world.psql(&replaced(sql, &[backend])).await;
    }
    until("Traefik runs all four", secs(20), async || {
        let routers = hub.traefik.api("/api/tcp/routers").await;
        let enabled = routers.as_array().unwrap().iter().filter(|router| router["status"] == "enabled").count();
        if enabled == 4 { Ok(()) } else { Err(routers) }
    })
    .await;

    // A user more, while the broker runs.
    password(&broker.users, "gw-uk", "of the gateway", false).await;
    broker.process.signal(Signal::HUP);

    let hosts = home.join("hosts");
    let ip = tunnel.ip();
    fs::write(
        &hosts,
        format!(
            "127.0.0.1 mqtt.verdegris.eu\n{ip} db.charliehub.net\n{ip} git.charliehub.net\n{ip} px1.charliehub.net\n"
        ),
    )
    .unwrap();
    let signed = |text: &str| text.replace(AUTHORITIES, &hub.authority.file().display().to_string());
    let ports = [
        ("8883", hub.traefik.mqtt().port().to_string()),
        ("5432", postgres.port().to_string()),
        ("/2222", format!("/{}", ssh_at.port())),
        ("8443", internal.port().to_string()),
    ];
    let (commands, shown) = (of("sh"), of("text"));
    assert_eq!((commands.len(), shown.len()), (ports.len(), ports.len()));
    let mut scripts = Vec::new();
    for ((command, shown), port) in commands.into_iter().zip(shown).zip(ports) {
        let script = signed(&replaced(command, &[port]))
            .replace("/etc/charliehub/px1-ca.pem", &own.file().display().to_string());
        let output = run(&hosts, &script, "of the gateway").await;
        assert_eq!(&output.out, shown, "{script}\n{}", output.err);
        scripts.push(script);
    }

    // What must not work does not.
    let strangers = [
        (scripts[0].clone(), "a wrong password", "not authori"),
        (scripts[1].replace("sslmode=verify-full", "sslmode=disable connect_timeout=3"), "", "timeout expired"),
        (scripts[1].replace("host=db.", &format!("hostaddr={ip} host=other.")), "", "eof"),
        (scripts[3].replace(&own.file().display().to_string(), &hub.authority.file().display().to_string()), "", ""),
    ];
    for (script, secret, said) in strangers {
        let output = run(&hosts, &script, secret).await;
        assert!(
            !output.right && output.out != "42\n" && output.err.to_lowercase().contains(said),
            "{script}\n{output:?}"
        );
    }

    // The second on an entry point without names.
    let second = Row::tcp("second.charliehub.net", "ssh", banner).with("tls_mode", "none");
    let refused = hub.world.post(&second).await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.text().contains("takes all connections of this entry point"), "{}", refused.text());
}
