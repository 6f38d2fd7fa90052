//! The broker of the gateways: mosquitto with TLS and a password, which can be stopped, and gateways that publish.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use rcgen::{CertificateParams, KeyPair};
use tokio::net::TcpStream;

use crate::{Home, Process, netns::run, process::guarded, secs, until};

const USER: &str = "agent";
const PASSWORD: &str = "a password";

pub struct Broker {
    home: Home,
    port: u16,
    process: Option<Process>,
}

impl Broker {
    pub async fn start(home: &Home) -> Self {
        let port = home.port();
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(["localhost".to_owned()]).expect("a name").self_signed(&key);
        std::fs::write(home.join("broker.pem"), certificate.expect("a certificate").pem()).expect("its certificate");
        std::fs::write(home.join("broker.key"), key.serialize_pem()).expect("its key");
        let users = home.join("broker.users").display().to_string();
        run("mosquitto_passwd", &["-b", "-c", &users, USER, PASSWORD]);
        std::fs::write(home.join("broker.password"), format!("{PASSWORD}\n")).expect("the password");
        let at = |name: &str| home.join(name).display().to_string();
        let config = format!(
            "user root\nallow_anonymous false\npassword_file {users}\nlistener {port} 127.0.0.1\ncertfile {}\nkeyfile {}\n",
            at("broker.pem"),
            at("broker.key")
        );
        std::fs::write(home.join("broker.conf"), config).expect("its config");
        let mut this = Self { home: home.clone(), port, process: None };
        this.up().await;
        this
    }

    pub async fn up(&mut self) {
        let mut command = guarded(None, "KILL", "mosquitto");
        command.arg("-c").arg(self.home.join("broker.conf"));
        self.process = Some(Process::start(&self.home, "broker", command));
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        until("the broker listens", secs(5), async || TcpStream::connect(address).await).await;
    }

    pub fn down(&mut self) {
        self.process = None;
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What clients are given for it.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    pub fn password_file(&self) -> PathBuf {
        self.home.join("broker.password")
    }

    /// The agent's section for it.
    pub fn settings(&self) -> String {
        format!(
            "[host.mqtt]\naddress = '{}'\ntls = true\nca_file = '{}'\nusername = '{USER}'\npassword_file = '{}'\n",
            self.address(),
            self.home.join("broker.pem").display(),
            self.password_file().display()
        )
    }

    /// A gateway that says something every 100 ms, until it is dropped.
    pub fn gateway(&self, topic: &str) -> Process {
        let words = self.publish(topic);
        // One whose broker dies in the middle may wait for ever.
        let script = format!("while :; do timeout --foreground 2 {words} -m x; sleep 0.1; done");
        let mut command = guarded(None, "KILL", "sh");
        command.args(["-c", &script]);
        Process::start(&self.home, &topic.replace('/', "-"), command)
    }

    /// A message that the broker keeps for whoever subscribes later.
    pub fn retain(&self, topic: &str) {
        let script = format!("{} -r -m kept", self.publish(topic));
        assert!(Command::new("sh").args(["-c", &script]).status().is_ok_and(|status| status.success()), "{script}");
    }

    fn publish(&self, topic: &str) -> String {
        let authority = self.home.join("broker.pem");
        let (port, authority) = (self.port, authority.display());
        format!("mosquitto_pub -h localhost -p {port} --cafile {authority} -u {USER} -P '{PASSWORD}' -t {topic}")
    }
}
