//! Debian's mirror for a container that has no network: one port of its loopback leads there.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, TcpListener as Blocking},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use crate::{Home, Systemd};

const PORT: u16 = 3142;

/// Has apt in it reach the mirror that its root was made from, until it reboots.
pub async fn mirror(home: &Home, systemd: &Systemd) {
    let sources = std::fs::read_to_string(systemd.path("/etc/apt/sources.list")).expect("sources.list");
    let host = sources.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("a mirror").to_owned();
    systemd.must(&format!(
        "echo '127.0.0.1 {host}' >>/etc/hosts && sed -i 's#//{host}/#//{host}:{PORT}/#' /etc/apt/sources.list"
    ));
    let root = systemd.path("");
    let network = root.parent().map(|process| process.join("ns/net")).expect("its process");
    let listener = listen(network).await.expect("a socket inside");
    let tasks = home.tasks().clone();
    home.tasks().spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let host = host.clone();
            tasks.spawn(async move {
                if let Ok(mut server) = TcpStream::connect((host.as_str(), 80)).await {
                    copy_bidirectional(&mut client, &mut server).await.ok();
                }
            });
        }
    });
}

/// A thread stays in the namespace that it moves into; the socket that it made there can be used from here.
async fn listen(network: PathBuf) -> io::Result<TcpListener> {
    let inside = move |network: &Path| -> io::Result<Blocking> {
        move_into_link_name_space(File::open(network)?.as_fd(), Some(LinkNameSpaceType::Network))?;
        let listener = Blocking::bind((Ipv4Addr::LOCALHOST, PORT))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let (done, made) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || done.send(inside(&network)).ok());
    TcpListener::from_std(made.await.expect("the thread answers")?)
}
