//! Many plain clients that hold polls as Traefiks do, on one thread: thousands of tasks would be measured with what they
//! measure.
//!
//! Each polls again as soon as it was answered, and connects again when its connection ended. What counts is when the
//! last byte came to the last of them.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tokio::sync::watch;

/// So many are on their way in at a time: what is beyond the queue of who listens is lost, and comes again seconds later.
const AT_ONCE: usize = 1_000;
/// A client that was turned away comes again after this time, and a crowd that is not wanted any more ends within it.
const PAUSE: Duration = Duration::from_millis(20);

pub struct Crowd {
    seen: watch::Receiver<Seen>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

/// What all of them have.
#[derive(Clone, Copy)]
struct Seen {
    /// The oldest revision that any of them has; 0 until each has one.
    oldest: u64,
    /// When the last byte of it came to the last of them.
    at: Instant,
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    refused: AtomicUsize,
    lost: AtomicUsize,
    answers: AtomicUsize,
}

impl Crowd {
    /// A client for each of these requests, whole as given.
    pub fn gather(address: SocketAddr, requests: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let clients: Vec<Client> = requests.into_iter().map(Client::new).collect();
        let counts = Arc::new(Counts::default());
        let (tell, seen) = watch::channel(Seen { oldest: 0, at: Instant::now() });
        let counted = Arc::clone(&counts);
        let thread = std::thread::spawn(move || Loop::new(address, clients, tell, counted).run());
        Self { seen, counts, thread: Some(thread) }
    }

    /// Waits until each has this revision or a newer one; returns when the last byte came to the last of them.
    pub async fn until(&mut self, revision: u64, deadline: Duration) -> Instant {
        let all = self.seen.wait_for(|seen| seen.oldest >= revision);
        let seen = tokio::time::timeout(deadline, all).await.map(|seen| seen.expect("the crowd's thread lives").at);
        seen.unwrap_or_else(|_| {
            panic!("not all have revision {revision} within {deadline:?}; the last has {}", self.oldest())
        })
    }

    /// The oldest revision that any of them has.
    pub fn oldest(&self) -> u64 {
        self.seen.borrow().oldest
    }

    /// Connections that were refused.
    pub fn refused(&self) -> usize {
        self.counts.refused.load(Ordering::Relaxed)
    }

    /// Connections that ended.
    pub fn lost(&self) -> usize {
        self.counts.lost.load(Ordering::Relaxed)
    }

    pub fn answers(&self) -> usize {
        self.counts.answers.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the crowd's thread failed");
        }
    }
}

/// As many files as the system lets this process have.
pub fn raise_open_files() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("a limit that is allowed");
    maximum.unwrap_or(u64::MAX)
}

struct Client {
    request: Vec<u8>,
    stream: Option<TcpStream>,
    connecting: bool,
    /// It was not answered on this connection yet.
    arriving: bool,
    /// Of an answer that is not whole yet.
    unread: Vec<u8>,
    revision: u64,
}

impl Client {
    fn new(request: Vec<u8>) -> Self {
        Self { request, stream: None, connecting: false, arriving: false, unread: Vec::new(), revision: 0 }
    }
}

struct Loop {
    address: SocketAddr,
    clients: Vec<Client>,
    /// How many have each revision.
    having: BTreeMap<u64, usize>,
    epoll: OwnedFd,
    /// Who connects again.
    away: Vec<usize>,
    /// When they do.
    again: Instant,
    arriving: usize,
    tell: watch::Sender<Seen>,
    counts: Arc<Counts>,
}

impl Loop {
    fn new(address: SocketAddr, clients: Vec<Client>, tell: watch::Sender<Seen>, counts: Arc<Counts>) -> Self {
        let away = (0..clients.len()).collect();
        let having = BTreeMap::from([(0, clients.len())]);
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("an epoll");
        Self { address, clients, having, epoll, away, again: Instant::now(), arriving: 0, tell, counts }
    }

    fn run(mut self) {
        let pause = Timespec { tv_sec: 0, tv_nsec: PAUSE.subsec_nanos().into() };
        let mut events = Vec::with_capacity(1_024);
        while !self.counts.stop.load(Ordering::Relaxed) {
            if Instant::now() >= self.again {
                let room = AT_ONCE.saturating_sub(self.arriving).min(self.away.len());
                for n in self.away.split_off(self.away.len() - room) {
                    self.connect(n);
                }
            }
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&pause)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => panic!("epoll: {error}"),
            }
            for event in &events {
                self.ready(usize::try_from(event.data.u64()).unwrap());
            }
        }
    }

    fn connect(&mut self, n: usize) {
        let family = if self.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None).expect("a socket: too few open files?");
        match connect(&socket, &self.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => panic!("connect: {error}"),
        }
        epoll::add(&self.epoll, &socket, EventData::new_u64(n as u64), EventFlags::OUT).expect("epoll takes it");
        let client = &mut self.clients[n];
        (client.stream, client.connecting, client.arriving) = (Some(socket.into()), true, true);
        self.arriving += 1;
    }

    fn ready(&mut self, n: usize) {
        let client = &mut self.clients[n];
        let Some(stream) = &mut client.stream else { return };
        if client.connecting {
            client.connecting = false;
            if sockopt::socket_error(&*stream).is_ok_and(|outcome| outcome.is_err()) {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                return self.gone(n);
            }
            stream.set_nodelay(true).expect("TCP_NODELAY");
            let data = EventData::new_u64(n as u64);
            epoll::modify(&self.epoll, &*stream, data, EventFlags::IN).expect("epoll takes it");
            return self.ask(n);
        }
        let mut block = [0; 16_384];
        loop {
            match stream.read(&mut block) {
                Ok(0) => return self.lose(n),
                Ok(read) => {
                    client.unread.extend_from_slice(&block[..read]);
                    if read < block.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.lose(n),
            }
        }
        let Some((length, revision)) = whole(&client.unread) else { return };
        assert_eq!(client.unread.len(), length, "more than was asked for");
        client.unread.clear();
        if std::mem::take(&mut client.arriving) {
            self.arriving -= 1;
        }
        self.counts.answers.fetch_add(1, Ordering::Relaxed);
        self.has(n, revision);
        self.ask(n);
    }

    /// A request is short and the socket takes it whole, or the connection is over.
    fn ask(&mut self, n: usize) {
        let Client { stream: Some(stream), request, .. } = &mut self.clients[n] else { return };
        if stream.write_all(request).is_err() {
            self.lose(n);
        }
    }

    fn has(&mut self, n: usize, revision: u64) {
        let before = std::mem::replace(&mut self.clients[n].revision, revision);
        if before == revision {
            return;
        }
        if let Some(count) = self.having.get_mut(&before) {
            *count -= 1;
            if *count == 0 {
                self.having.remove(&before);
            }
        }
        *self.having.entry(revision).or_default() += 1;
        let oldest = self.having.first_key_value().map_or(0, |(revision, _)| *revision);
        if oldest > self.tell.borrow().oldest {
            self.tell.send_replace(Seen { oldest, at: Instant::now() });
        }
    }

    fn lose(&mut self, n: usize) {
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
        self.gone(n);
    }

    fn gone(&mut self, n: usize) {
        let client = &mut self.clients[n];
        client.stream = None; // epoll forgets it with that
        if std::mem::take(&mut client.arriving) {
            self.arriving -= 1;
        }
        client.unread.clear();
        self.away.push(n);
        self.again = Instant::now() + PAUSE;
    }
}

/// The length of the answer that begins here, and its revision, once it is whole.
fn whole(bytes: &[u8]) -> Option<(usize, u64)> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).expect("a head of ASCII");
    assert!(text.starts_with("HTTP/1.1 200 "), "not answered well: {text}");
    let number = |name: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(": "));
        let (_, value) = fields.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        value.parse::<u64>().ok()
    };
    let length = head + usize::try_from(number("content-length")?).ok()?;
    (bytes.len() >= length).then_some((length, number("x-charliehub-revision")?))
}
