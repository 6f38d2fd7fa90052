//! What the bench `fanout` holds the provider against: the least that can answer many held polls after a NOTIFY.
//!
//! `broadcaster ADDRESS ANSWER URL`: file ANSWER is a whole answer to `GET /traefik`, URL the database. One thread and one
//! epoll; a connection's first request is answered at once, a later one with the next notification. No HTTP is
//! understood, nobody is asked who he is, and all get the same bytes, in which only the number of the revision counts up.

use std::{
    fs,
    future::poll_fn,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
};

use anyhow::{Context as _, bail};
use charliehub_tests::raise_open_files;
use rustix::{
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    net::listen,
};
use tokio_postgres::{AsyncMessage, NoTls};

const FIELD: &str = "x-charliehub-revision: ";
/// What is no connection.
const LISTENER: u64 = u64::MAX;
const NEWS: u64 = u64::MAX - 1;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, answer, url] = words.as_slice() else { bail!("usage: broadcaster ADDRESS ANSWER URL") };
    raise_open_files();
    let (mut tell, hear) = UnixStream::pair()?;
    let url = url.clone();
    std::thread::spawn(move || {
        let heard = follow(&url, &mut tell);
        eprintln!("the database is not followed any more: {heard:?}");
        std::process::exit(1);
    });
    serve(address.parse()?, &fs::read(answer)?, hear)
}

/// Writes a byte for each notification.
#[tokio::main(flavor = "current_thread")]
async fn follow(url: &str, tell: &mut UnixStream) -> anyhow::Result<()> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    let hears = async {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if matches!(message?, AsyncMessage::Notification(_)) {
                tell.write_all(&[0])?;
            }
        }
        anyhow::Ok(())
    };
    let listens = async {
        client.batch_execute("LISTEN charliehub_revision").await?;
        std::future::pending::<anyhow::Result<()>>().await
    };
    tokio::select! { ended = hears => ended, failed = listens => failed }
}

struct Waiting {
    stream: TcpStream,
    /// What it was sent last.
    sent: usize,
    waits: bool,
}

fn serve(address: SocketAddr, template: &[u8], mut news: UnixStream) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)?;
    listen(&listener, 4_096)?;
    listener.set_nonblocking(true)?;
    news.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    epoll::add(&epoll, &news, EventData::new_u64(NEWS), EventFlags::IN)?;
    let mut held: Vec<Option<Waiting>> = Vec::new();
    let mut revision = 1;
    let mut answer = numbered(template, revision)?;
    let mut events = Vec::with_capacity(1_024);
    let mut block = [0; 4_096];
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            match event.data.u64() {
                LISTENER => {
                    while let Ok((stream, _)) = listener.accept() {
                        stream.set_nonblocking(true)?;
                        stream.set_nodelay(true)?;
                        epoll::add(&epoll, &stream, EventData::new_u64(held.len() as u64), EventFlags::IN)?;
                        held.push(Some(Waiting { stream, sent: 0, waits: false }));
                    }
                }
                NEWS => {
                    revision += news.read(&mut block)?;
                    answer = numbered(template, revision)?;
                    for one in held.iter_mut().flatten().filter(|one| one.waits) {
                        one.answer(&answer, revision);
                    }
                }
                n => {
                    let Some(slot) = usize::try_from(n).ok().and_then(|n| held.get_mut(n)) else { continue };
                    let Some(one) = slot else { continue };
                    match one.stream.read(&mut block) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Ok(0) | Err(_) => *slot = None,
                        Ok(_) if one.sent == revision => one.waits = true,
                        Ok(_) => one.answer(&answer, revision),
                    }
                }
            }
        }
    }
}

impl Waiting {
    /// An answer is small: a socket that takes it in part is one that the bench must not have.
    fn answer(&mut self, answer: &[u8], revision: usize) {
        match self.stream.write(answer) {
            Ok(written) => assert_eq!(written, answer.len(), "a socket took a part of the answer"),
            Err(error) => eprintln!("a connection broke: {error}"),
        }
        (self.sent, self.waits) = (revision, false);
    }
}

/// The answer with another number of the revision in its head.
fn numbered(template: &[u8], revision: usize) -> anyhow::Result<Vec<u8>> {
    let at = template.windows(FIELD.len()).position(|bytes| bytes == FIELD.as_bytes());
    let (before, rest) = template.split_at(at.context("an answer has a revision")? + FIELD.len());
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (_, after) = rest.split_at(digits);
    Ok([before, revision.to_string().as_bytes(), after].concat())
}
