use std::collections::BTreeSet;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::config::Key;

fn courier(listener: &TcpListener) -> Courier {
    let webhook = Webhook {
        name: "here".to_owned(),
        url: format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap(),
        key: Key(vec![7; 24]),
        kinds: BTreeSet::from([EventKind::Revision]),
        ca_file: None,
    };
    Courier { webhook, trust: Trust::System, failures: 0, lost: None }
}

fn event(id: &str, at: Timestamp) -> Event {
    Event { id: id.to_owned(), at, kind: EventKind::Revision, ..missed(String::new(), None) }
}

/// Answers requests with these statuses in turn; the ids of what came.
async fn answer(listener: &TcpListener, statuses: &[u16]) -> Vec<String> {
    let mut ids = Vec::new();
    for status in statuses {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = String::new();
        while !asked.ends_with('}') {
            let mut some = [0; 4096];
            let count = stream.read(&mut some).await.unwrap();
            asked.push_str(std::str::from_utf8(&some[..count]).unwrap());
        }
        let event: Event = serde_json::from_str(asked.split_once("\r\n\r\n").unwrap().1).unwrap();
        ids.push(format!("{} {}", event.id, event.kind));
        stream.write_all(format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
    }
    ids
}

#[tokio::test]
async fn what_is_an_hour_old_is_given_up_and_told_before_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut courier = courier(&listener);
    let (now, old) = (Timestamp::now(), Timestamp::now() - Duration::from_mins(61));
    let work = async {
        assert_eq!(courier.handle(&event("a-1", old)).await, End::GivenUp, "tried once");
        assert_eq!(courier.handle(&event("a-2", old)).await, End::GivenUp, "the receiver is known to be down");
        assert_eq!(courier.handle(&event("a-3", now)).await, End::Delivered);
        assert_eq!((courier.failures, courier.lost.is_none()), (0, true));
        assert_eq!(courier.handle(&event("a-4", old)).await, End::Delivered, "what is old goes out when it can");
    };
    let (came, ()) = tokio::join!(answer(&listener, &[500, 204, 204, 204]), work);
    assert_eq!(came, ["a-1 revision", "a-2 missed", "a-3 revision", "a-4 revision"]);
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_left_alone_and_other_kinds_are_not_for_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut courier = courier(&listener);
    let other = Event { kind: EventKind::Ack, ..event("a-1", Timestamp::now()) };
    assert_eq!(courier.handle(&other).await, End::Delivered, "nobody answers, and nobody has to");
    let event = event("a-2", Timestamp::now());
    let (came, end) = tokio::join!(answer(&listener, &[410]), courier.handle(&event));
    assert_eq!((came, end), (vec!["a-2 revision".to_owned()], End::Gone));
}
