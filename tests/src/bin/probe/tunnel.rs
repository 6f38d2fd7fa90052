//! A loopback port that leads, through TLS with a server name of choice, to a TCP route.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use charliehub_tests::open_tls;

/// Prints the port, then carries connections until stopped.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Traefik's entry point
    #[arg(long)]
    connect: SocketAddr,
    /// The TLS server name to ask for
    #[arg(long)]
    sni: String,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let carriers = TaskTracker::new();
    loop {
        let (client, _) = listener.accept().await?;
        let (connect, sni) = (args.connect, args.sni.clone());
        carriers.spawn(async move { carry(client, connect, &sni).await.inspect_err(|error| eprintln!("{error:#}")) });
    }
}

async fn carry(mut client: TcpStream, connect: SocketAddr, sni: &str) -> anyhow::Result<()> {
    let mut server = open_tls(connect, sni).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
