//! PgBouncer in transaction mode: the pooler that accepts LISTEN and delivers nothing.

use std::net::{IpAddr, Ipv4Addr};

use tokio::net::TcpStream;

use crate::{
    Home, Postgres, Process,
    postgres::{give_to, user},
    process::guarded,
    secs, until,
};

pub struct PgBouncer {
    port: u16,
    _process: Process,
}

impl PgBouncer {
    pub async fn start(home: &Home, postgres: &Postgres) -> Self {
        let port = home.port();
        let dir = home.join("pgbouncer");
        std::fs::create_dir(&dir).expect("a directory for PgBouncer");
        let (host, db_port) = postgres.host_and_port();
        let users = dir.join("users.txt");
        std::fs::write(&users, "\"postgres\" \"\"\n").expect("its users");
        let config = dir.join("pgbouncer.ini");
        let text = format!(
            "[databases]\ncharliehub = host={host} port={db_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\n\
             ignore_startup_parameters = extra_float_digits,options\nserver_login_retry = 0\n",
            users.display()
        );
        std::fs::write(&config, text).expect("its config");
        if let Some(user) = user() {
            give_to(&dir, user);
        }
        let mut command = guarded(user(), "KILL", "pgbouncer");
        command.arg(&config);
        let process = Process::start(home, "pgbouncer", command);
        until("PgBouncer listens", secs(5), async || TcpStream::connect(("127.0.0.1", port)).await).await;
        Self { port, _process: process }
    }

    /// The database of `postgres` by way of the pooler.
    pub fn url(&self, postgres: &Postgres) -> String {
        postgres.url_at(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port)
    }
}
