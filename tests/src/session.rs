//! A TCP connection from one network namespace to another, as somebody has who is logged in.

use std::{net::SocketAddr, time::Duration};

use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{secs, switch::within};

/// Closed when it is dropped.
pub struct Session {
    client: TcpStream,
    server: TcpStream,
}

impl Session {
    /// To this address and port of `host`, from this address at `place`.
    pub async fn open(host: &str, to: &str, place: &str, from: &str) -> Self {
        let to: SocketAddr = to.parse().expect("an address and port");
        let from: SocketAddr = format!("{from}:0").parse().expect("an address");
        let listener = within(host, move || std::net::TcpListener::bind(to)).await.expect("a port to listen on");
        let connect = move || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&from.into())?;
            socket.connect_timeout(&to.into(), secs(5))?;
            Ok(std::net::TcpStream::from(socket))
        };
        let client = within(place, connect).await.expect("a connection");
        let (server, _) = listener.accept().expect("a connection");
        let ours = |stream: std::net::TcpStream| {
            stream.set_nonblocking(true).expect("a stream that does not block");
            TcpStream::from_std(stream).expect("a stream")
        };
        Self { client: ours(client), server: ours(server) }
    }

    /// A byte goes both ways.
    pub async fn lives(&mut self) -> bool {
        let there_and_back = async {
            self.client.write_all(b"?").await?;
            let mut byte = [0];
            self.server.read_exact(&mut byte).await?;
            self.server.write_all(&byte).await?;
            self.client.read_exact(&mut byte).await.map(drop)
        };
        timeout(Duration::from_secs(3), there_and_back).await.is_ok_and(|done| done.is_ok())
    }
}
