//! One message to one server, and its answer: over UDP with repeats, and over TCP where the answer is too long for that.
//!
//! What does not answer what was asked (another id, another question, from elsewhere) was sent by somebody else: it is passed
//! over, and the wait goes on.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout_at},
};

use crate::Error;

/// Bytes of an answer over UDP that pass every way whole.
const LARGEST: u16 = 1_232;

/// A question is sent so often within the time that it has, the first half of it.
const SENDS: u32 = 3;

/// How long a server is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Over UDP, repeats included; and again over TCP.
    pub timeout: Duration,
}

impl Asker {
    /// What the server says of a name. That there is no such name, or nothing of this type, is an answer.
    pub async fn ask(
        self,
        server: SocketAddr,
        name: &Name,
        kind: RecordType,
        recursion: bool,
    ) -> Result<Message, Error> {
        let mut question = Message::query();
        question.metadata.recursion_desired = recursion;
        question.add_query(Query::query(name.clone(), kind));
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST);
        question.set_edns(edns);
        let mut answer = self.by_udp(server, &question).await?;
        if answer.metadata.truncation {
            (answer, _) = self.by_tcp(server, &question).await?;
        }
        let code = answer.metadata.response_code;
        if [ResponseCode::NoError, ResponseCode::NXDomain].contains(&code) {
            Ok(answer)
        } else {
            Err(Error::Code { server, name: Box::new(name.clone()), code })
        }
    }

    async fn by_udp(self, server: SocketAddr, question: &Message) -> Result<Message, Error> {
        let failed = |error: io::Error| failed(server, &error);
        let bytes = encoded(server, question)?;
        let own = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(own).await.map_err(failed)?;
        // From then on the kernel takes datagrams of nobody else.
        socket.connect(server).await.map_err(failed)?;
        let began = Instant::now();
        let mut strange = None;
        let mut buffer = vec![0; 4 * usize::from(LARGEST)];
        for send in 1..=SENDS {
            socket.send(&bytes).await.map_err(failed)?;
            let until = if send == SENDS { self.timeout } else { self.timeout * send / (2 * (SENDS - 1)) };
            while let Ok(received) = timeout_at(began + until, socket.recv(&mut buffer)).await {
                let length = received.map_err(failed)?;
                match read(question, buffer.get(..length).unwrap_or_default()) {
                    Ok(answer) => return Ok(answer),
                    Err(why) => strange = Some(why),
                }
            }
        }
        Err(match strange {
            Some(why) => Error::Bad { server, why },
            None => Error::Silent { server, limit: self.timeout },
        })
    }

    /// Sends any message, such as an update, and gives its answer as it was read and as it came: whoever signed the message
    /// verifies that. An answer code that says no is an answer.
    pub async fn by_tcp(self, server: SocketAddr, message: &Message) -> Result<(Message, Vec<u8>), Error> {
        let bytes = encoded(server, message)?;
        let talk = async {
            let mut stream = TcpStream::connect(server).await?;
            let length = u16::try_from(bytes.len()).map_err(|_| io::Error::other("the message is too long"))?;
            stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await?;
            let mut answer = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut answer).await?;
            Ok(answer)
        };
        let answer = match tokio::time::timeout(self.timeout, talk).await {
            Ok(answer) => answer.map_err(|error| failed(server, &error))?,
            Err(_) => return Err(Error::Silent { server, limit: self.timeout }),
        };
        match read(message, &answer) {
            Ok(message) => Ok((message, answer)),
            Err(why) => Err(Error::Bad { server, why }),
        }
    }
}

fn encoded(server: SocketAddr, message: &Message) -> Result<Vec<u8>, Error> {
    message.to_vec().map_err(|error| Error::Unsent { server, why: error.to_string() })
}

/// The answer to `message`, or why it is none.
fn read(message: &Message, bytes: &[u8]) -> Result<Message, String> {
    let answer = Message::from_vec(bytes).map_err(|error| format!("it cannot be read ({error})"))?;
    let (asked, said) = (&message.metadata, &answer.metadata);
    if said.id != asked.id || said.message_type != MessageType::Response || said.op_code != asked.op_code {
        return Err("it answers something else".to_owned());
    }
    // Who takes an update, or cannot read a question, need not repeat it.
    let may_be_silent = asked.op_code != OpCode::Query || said.response_code == ResponseCode::FormErr;
    if answer.queries != message.queries && !(may_be_silent && answer.queries.is_empty()) {
        return Err("it answers another question".to_owned());
    }
    Ok(answer)
}

/// Whose fault it is that nothing came: an error that comes before anything is sent is ours.
fn failed(server: SocketAddr, error: &io::Error) -> Error {
    use io::ErrorKind::{
        AddrNotAvailable, InvalidInput, NetworkDown, NetworkUnreachable, PermissionDenied, ResourceBusy, Unsupported,
    };
    let is_ours = matches!(
        error.kind(),
        AddrNotAvailable
            | InvalidInput
            | NetworkDown
            | NetworkUnreachable
            | PermissionDenied
            | ResourceBusy
            | Unsupported
    );
    // Address family not supported, too many open files: kinds without a name.
    let is_ours = is_ours || matches!(error.raw_os_error(), Some(97 | 23 | 24));
    let why = error.to_string();
    if is_ours { Error::Unsent { server, why } } else { Error::Away { server, why } }
}

#[cfg(test)]
mod tests;
