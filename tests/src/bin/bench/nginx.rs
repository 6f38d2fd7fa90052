//! The nginx that stands behind routes, or beside us.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
};

use charliehub_tests::{Home, Process, Signal, is_root, ms, secs, until};

use crate::{
    keepalive::{Connection, pause},
    watch::request,
};

/// An nginx, as fast as it can be made to be.
pub(crate) struct Nginx {
    pub(crate) port: u16,
    process: Process,
}

impl Nginx {
    /// `server` is what its one server does; its files are in `nginx` of the home.
    pub(crate) async fn start(home: &Home, server: &str) -> anyhow::Result<Self> {
        let root = home.join("nginx");
        fs::create_dir_all(&root)?;
        let port = home.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let user = if is_root() { "user root;" } else { "" };
        let dir = root.display();
        let config = root.join("nginx.conf");
        let text = format!(
            "daemon off; {user} worker_processes 2; pid {dir}/pid; error_log {dir}/error.log;
             events {{ worker_connections 1024; }}
             http {{
               access_log off; sendfile on;
               keepalive_requests 1000000000; keepalive_timeout 1h;
               open_file_cache max=16 inactive=1h; open_file_cache_valid 1h; open_file_cache_min_uses 1;
               client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};
               uwsgi_temp_path {dir}; scgi_temp_path {dir};
               server {{ listen {port} reuseport; root {dir}; {server} }}
             }}"
        );
        fs::write(&config, text)?;
        let mut command = std::process::Command::new("nginx");
        command.arg("-e").arg(root.join("error.log")).arg("-c").arg(&config);
        let nginx = Self { port, process: Process::start(home, "nginx", command) };
        until("nginx answers", secs(5), async || Connection::plain(address)?.ask(&request(address, "", ""))).await;
        Ok(nginx)
    }
}

impl Drop for Nginx {
    /// Its workers outlive a master that is killed.
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        while self.process.exit().is_none() {
            pause(ms(5));
        }
    }
}
