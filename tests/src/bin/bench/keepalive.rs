//! A blocking HTTP/1.1 client on one kept connection, the ruler of these benches: it wakes exactly when bytes arrive and
//! can pause for less than the millisecond that tokio's timer is good for.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use charliehub_tests::trusting_all;
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};

/// Between two questions to Traefik: short beside what is measured, long enough to leave it the processor.
const PAUSE: Duration = Duration::from_micros(300);
/// No answer that long after a change is a broken set-up, not a slow one.
const GIVE_UP: Duration = Duration::from_mins(2);

pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers, as received.
    head: String,
    /// When these had come.
    pub(crate) began: Instant,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// Head and body, as received.
    pub(crate) fn whole(&self) -> Vec<u8> {
        [self.head.as_bytes(), &self.body].concat()
    }
}

/// One connection that is kept between requests.
pub(crate) struct Connection<S> {
    stream: S,
    unread: Vec<u8>,
}

impl Connection<TcpStream> {
    pub(crate) fn plain(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_mins(2)))?;
        Ok(Self { stream, unread: Vec::new() })
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Connection<Tls> {
    fn tls(address: SocketAddr, host: &str) -> anyhow::Result<Self> {
        let Connection { stream, unread } = Connection::plain(address)?;
        let session = ClientConnection::new(trusting_all()?, ServerName::try_from(host.to_owned())?)?;
        Ok(Self { stream: StreamOwned::new(session, stream), unread })
    }
}

impl<S: Read + Write> Connection<S> {
    /// Sends one request, whole as given, and reads its answer.
    pub(crate) fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request)?;
        self.stream.flush()?;
        let end = self.read_until(b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&self.take(end)).into_owned();
        let began = Instant::now();
        let status =
            head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| malformed("status line"))?;
        let body = if header(&head, "transfer-encoding").is_some_and(|how| how.eq_ignore_ascii_case("chunked")) {
            self.chunks()?
        } else {
            let length = header(&head, "content-length").map_or(Ok(0), str::parse);
            let length = length.map_err(|_| malformed("content-length"))?;
            self.fill(length)?;
            self.take(length)
        };
        Ok(Answer { status, head, began, body })
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = self.read_until(b"\r\n")?;
            let size = String::from_utf8_lossy(&self.take(end)).trim().to_owned();
            let size = usize::from_str_radix(&size, 16).map_err(|_| malformed("chunk"))?;
            self.fill(size + 2)?;
            let mut chunk = self.take(size + 2);
            chunk.truncate(size);
            if size == 0 {
                return Ok(body);
            }
            body.append(&mut chunk);
        }
    }

    /// Reads until `mark` has come; returns the position behind it.
    fn read_until(&mut self, mark: &[u8]) -> io::Result<usize> {
        loop {
            if let Some(at) = self.unread.windows(mark.len()).position(|window| window == mark) {
                return Ok(at + mark.len());
            }
            self.fill(self.unread.len() + 1)?;
        }
    }

    fn fill(&mut self, length: usize) -> io::Result<()> {
        let mut block = [0; 16_384];
        while self.unread.len() < length {
            let read = self.stream.read(&mut block)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.unread.extend(block.iter().take(read));
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.unread.split_off(length);
        std::mem::replace(&mut self.unread, rest)
    }
}

/// Asks one host of a Traefik over TLS, again and again on one connection: a reload applies to its next request.
pub(crate) struct Poller {
    address: SocketAddr,
    host: String,
    request: Vec<u8>,
    connection: Option<Connection<Tls>>,
}

impl Poller {
    pub(crate) fn new(address: SocketAddr, host: &str) -> Self {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
        Self { address, host: host.to_owned(), request, connection: None }
    }

    /// Asks until the backend `name` has answered; returns when its answer had been read.
    pub(crate) fn until_answered_by(&mut self, name: &str) -> anyhow::Result<Instant> {
        let begin = Instant::now();
        let mut last = String::from("no answer");
        while begin.elapsed() < GIVE_UP {
            match self.ask() {
                Ok(answer) if answer.status == 200 && answer.body.starts_with(name.as_bytes()) => {
                    return Ok(Instant::now());
                }
                Ok(answer) => last = format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
                Err(error) => {
                    last = format!("{error:#}");
                    self.connection = None;
                }
            }
            pause(PAUSE);
        }
        bail!("{} is not answered by {name} {} s after the change; last: {last}", self.host, GIVE_UP.as_secs())
    }

    fn ask(&mut self) -> anyhow::Result<Answer> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(Connection::tls(self.address, &self.host)?),
        };
        connection.ask(&self.request).with_context(|| format!("asking {}", self.host))
    }
}

#[allow(clippy::disallowed_methods, reason = "on a thread of its own, finer than tokio's timer")]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that were received before; writes vanish.
    struct Received(&'static [u8]);

    impl Read for Received {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let into = &mut into[..3.min(self.0.len())];
            self.0.read(into)
        }
    }

    impl Write for Received {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn answers_that_follow_each_other_are_told_apart() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nhi\
                      HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n2\r\n!!\r\n0\r\n\r\n\
                      HTTP/1.1 204 Empty\r\n\r\n";
        let mut connection = Connection { stream: Received(bytes), unread: Vec::new() };
        let mut next = || connection.ask(b"").unwrap();
        let first = next();
        assert_eq!((first.status, first.body.as_slice(), first.header("x-a")), (200, b"hi".as_slice(), Some("b")));
        assert_eq!((next().body.as_slice(), next().status), (b"bad!!".as_slice(), 204));
    }
}
