use std::str::FromStr as _;

use hickory_proto::rr::{RData, Record, rdata};
use tokio::net::TcpListener;

use super::*;

const PATIENCE: Asker = Asker { timeout: Duration::from_secs(2) };

fn a_test() -> Name {
    crate::name("a.test").unwrap()
}

/// The answer to a question, with this address.
fn answer(question: &[u8], address: &str) -> Message {
    let question = Message::from_vec(question).unwrap();
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.add_queries(question.queries.clone());
    let address = rdata::A(Ipv4Addr::from_str(address).unwrap());
    answer.add_answer(Record::from_rdata(question.queries[0].name.clone(), 60, RData::A(address)));
    answer
}

fn addresses(answer: &Message) -> Vec<String> {
    answer.answers.iter().filter_map(|one| one.data.ip_addr()).map(|ip| ip.to_string()).collect()
}

/// A server that hands each question to `say`, and where it is.
async fn server(say: impl Fn(&[u8]) -> Vec<Vec<u8>>) -> (SocketAddr, impl Future<Output = ()>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = socket.local_addr().unwrap();
    let serving = async move {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            for said in say(&buffer[..length]) {
                socket.send_to(&said, from).await.unwrap();
            }
        }
    };
    (at, serving)
}

/// Asks a server that answers so.
async fn asked(asker: Asker, say: impl Fn(&[u8]) -> Vec<Vec<u8>>) -> Result<Message, Error> {
    let (at, serving) = server(say).await;
    let name = a_test();
    tokio::select! {
        answer = asker.ask(at, &name, RecordType::A, false) => answer,
        () = serving => unreachable!(),
    }
}

#[tokio::test]
async fn what_answers_something_else_is_passed_over() {
    let heard = asked(PATIENCE, |question| {
        let right = answer(question, "192.0.2.1");
        let mut of_another = answer(question, "192.0.2.2");
        of_another.metadata.id ^= 1;
        let mut about_another = answer(question, "192.0.2.3");
        about_another.queries[0].name = crate::name("b.test").unwrap();
        let mut no_answer = answer(question, "192.0.2.4");
        no_answer.metadata.message_type = MessageType::Query;
        let messages = [of_another, about_another, no_answer, right].map(|one| one.to_vec().unwrap());
        [vec![b"rubbish".to_vec()], messages.to_vec()].concat()
    });
    assert_eq!(addresses(&heard.await.unwrap()), ["192.0.2.1"]);
}

#[tokio::test]
async fn a_question_that_was_lost_is_asked_again() {
    let asked_before = std::sync::atomic::AtomicU32::new(0);
    let heard = asked(PATIENCE, |question| {
        let before = asked_before.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if before < 2 { vec![] } else { vec![answer(question, "192.0.2.1").to_vec().unwrap()] }
    });
    assert_eq!(addresses(&heard.await.unwrap()), ["192.0.2.1"]);
}

#[tokio::test]
async fn an_error_says_which_server_and_what() {
    let short = Asker { timeout: Duration::from_millis(100) };
    let said = |error: Error| error.to_string();
    let port = |text: String| text.split_once(' ').unwrap().1.to_owned();
    let silent = said(asked(short, |_| vec![]).await.unwrap_err());
    assert_eq!(port(silent), "does not answer within 0.1 s");
    let bad = said(asked(short, |_| vec![b"rubbish".to_vec()]).await.unwrap_err());
    assert!(bad.contains("sends no answer to what was asked: it cannot be read"), "{bad}");
    let refused = asked(PATIENCE, |question| {
        let mut refused = answer(question, "192.0.2.1");
        refused.metadata.response_code = ResponseCode::Refused;
        vec![refused.to_vec().unwrap()]
    });
    assert_eq!(port(said(refused.await.unwrap_err())), "answers Query Refused for a.test");
    let (at, serving) = server(|_| vec![]).await;
    drop(serving);
    let gone = PATIENCE.ask(at, &a_test(), RecordType::A, false).await.unwrap_err();
    assert!(matches!(gone, Error::Away { .. }) && !gone.is_ours(), "{gone:?}");
}

#[tokio::test]
async fn what_is_too_long_for_udp_comes_over_tcp() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(at).await.unwrap();
    let serving = async {
        let mut buffer = [0; 2048];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let mut short = answer(&buffer[..length], "192.0.2.2");
        short.answers.clear();
        short.metadata.truncation = true;
        socket.send_to(&short.to_vec().unwrap(), from).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let length = usize::from(stream.read_u16().await.unwrap());
        stream.read_exact(&mut buffer[..length]).await.unwrap();
        let long = answer(&buffer[..length], "192.0.2.1").to_vec().unwrap();
        stream.write_u16(long.len().try_into().unwrap()).await.unwrap();
        stream.write_all(&long).await.unwrap();
    };
    let name = a_test();
    let (heard, ()) = tokio::join!(PATIENCE.ask(at, &name, RecordType::A, false), serving);
    assert_eq!(addresses(&heard.unwrap()), ["192.0.2.1"]);
}
