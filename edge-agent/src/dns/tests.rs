use super::*;
use charliehub_proto::finding::Status;

fn now(seconds: u64) -> Now {
    Now { boot: Duration::from_secs(seconds), wall: jiff::Timestamp::UNIX_EPOCH, is_trusted: true }
}

fn expected() -> Arc<Expected> {
    let names = [("A.test".to_owned(), Served { resolver: Some("le".to_owned()), ..Served::default() })];
    Arc::new(Expected { names: names.into(), ..Expected::default() })
}

#[tokio::test]
async fn without_an_address_of_the_edge_nothing_is_asked_and_nothing_said() {
    let mut group = Dns::new(&config::Dns::default(), Duration::from_mins(5));
    assert_eq!(group.look(&expected(), now(1_000)).await, []);
    assert!(group.asked.is_empty() && group.next.is_none());
}

#[tokio::test]
async fn a_resolver_that_is_away_makes_names_unknown_and_they_are_asked_for_again() {
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let edge = vec!["203.0.113.1".parse().unwrap()];
    let settings = config::Dns { edge, servers: vec![closed], ..config::Dns::default() };
    let mut group = Dns::new(&settings, Duration::from_mins(5));
    for (second, next) in [(1_000, 0), (1_001, 1_031)] {
        let samples = group.look(&expected(), now(second)).await;
        let said: Vec<_> = samples.iter().map(|one| (one.check, one.target.as_str(), one.status)).collect();
        assert_eq!(said, [(judge::ADDRESS, "a.test", Status::Unknown), (judge::CAA, "a.test", Status::Unknown)]);
        assert!(samples.iter().all(|one| one.text.contains("no resolver tells of a.test")), "{samples:#?}");
        assert_eq!(group.next, Some(Duration::from_secs(next)));
    }
    group.look(&Arc::default(), now(1_002)).await;
    assert!(group.asked.is_empty() && group.next.is_none(), "what is not expected any more is forgotten");
}
