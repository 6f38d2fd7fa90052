//! An address that leads to one port of this host or another, so that what is served there changes at once; also from
//! inside a network namespace, whose loopback is not ours.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener as Blocking},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use crate::Home;

pub struct Switch {
    address: SocketAddr,
    port: Arc<AtomicU16>,
}

impl Switch {
    /// On this host.
    pub fn to(home: &Home, port: u16) -> Self {
        let listener = Blocking::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        Self::over(home, listener, port)
    }

    /// On the loopback of a namespace; at the port that it leads to, where that is free there.
    pub async fn inside(home: &Home, namespace: &str, port: u16) -> Self {
        let listener = within(namespace, move || Blocking::bind((Ipv4Addr::LOCALHOST, port))).await;
        Self::over(home, listener.expect("a socket"), port)
    }

    /// On an address of a namespace, such as one inside a tunnel.
    pub async fn at(home: &Home, namespace: &str, address: Ipv4Addr, port: u16) -> Self {
        let listener = within(namespace, move || Blocking::bind((address, port))).await;
        Self::over(home, listener.expect("a socket"), port)
    }

    /// From this host to a port on the loopback of a namespace.
    pub async fn out_of(home: &Home, namespace: &str, port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        let (address, port) = (listener.local_addr().expect("an address"), Arc::new(AtomicU16::new(port)));
        let (leads, tasks, namespace) = (port.clone(), home.tasks().clone(), namespace.to_owned());
        home.tasks().spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (port, namespace) = (leads.load(Ordering::SeqCst), namespace.clone());
                tasks.spawn(async move {
                    let connect = move || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port));
                    let Ok(server) = within(&namespace, connect).await else { return };
                    if server.set_nonblocking(true).is_err() {
                        return;
                    }
                    if let Ok(mut server) = TcpStream::from_std(server) {
                        copy_bidirectional(&mut client, &mut server).await.ok();
                    }
                });
            }
        });
        Self { address, port }
    }

    fn over(home: &Home, listener: Blocking, port: u16) -> Self {
        listener.set_nonblocking(true).expect("a socket that does not block");
        let listener = TcpListener::from_std(listener).expect("a socket");
        let (address, port) = (listener.local_addr().expect("an address"), Arc::new(AtomicU16::new(port)));
        let (leads, tasks) = (port.clone(), home.tasks().clone());
        home.tasks().spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let port = leads.load(Ordering::SeqCst);
                tasks.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                        copy_bidirectional(&mut client, &mut server).await.ok();
                    }
                });
            }
        });
        Self { address, port }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn turn_to(&self, port: u16) {
        self.port.store(port, Ordering::SeqCst);
    }
}

/// Runs something in a network namespace: a socket that is made there stays there.
pub(crate) async fn within<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = format!("/run/netns/{namespace}");
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let enter = || {
            move_into_link_name_space(File::open(namespace)?.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(io::Error::from)
        };
        done.send(enter().and_then(|()| work())).ok();
    });
    result.await.expect("the thread answers")
}
