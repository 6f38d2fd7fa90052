use charliehub_proto::finding::Status;
use proptest::prelude::*;

use super::{super::samples::*, *};

/// Looks at peer uk, and says what it is and how.
struct Story {
    memory: Memory,
    facts: Facts,
    news: Vec<String>,
}

impl Story {
    fn new() -> Self {
        Self { memory: Memory::default(), facts: facts(), news: Vec::new() }
    }

    fn look(&mut self, now: Now) -> Sample {
        let (samples, news) = self.memory.judge(&wanted(), &self.facts, now, &config::WireGuard::default());
        self.news.extend(news.into_iter().map(|news| news.text));
        samples.into_iter().find(|sample| sample.target == "wg-uk").unwrap()
    }

    fn status(&mut self, seconds: u64) -> Status {
        self.look(after(seconds)).status
    }

    fn uk(&mut self) -> &mut facts::Peer {
        uk_peer(&mut self.facts)
    }
}

#[test]
fn where_a_site_is_seen_is_told_once_something_came_from_there() {
    let mut story = Story::new();
    let seen = |story: &mut Story, second: u64| -> Vec<String> {
        story.look(after(second));
        let endpoints = story.memory.endpoints(&wanted(), after(second));
        endpoints.iter().filter(|one| one.site == "uk").map(|one| one.address.to_string()).collect()
    };
    assert!(seen(&mut story, 0).is_empty(), "it may be what somebody set");
    assert!(seen(&mut story, 5).is_empty());
    story.uk().received += 32;
    assert_eq!(seen(&mut story, 10), ["198.51.100.2"]);
    assert_eq!(seen(&mut story, 190), ["198.51.100.2"]);
    assert!(seen(&mut story, 196).is_empty(), "no session is so old");
    story.uk().received += 32;
    assert_eq!(seen(&mut story, 200), ["198.51.100.2"]);
    // Set by hand, or by what has looked up a name.
    story.uk().endpoint = Some("192.0.2.7:51820".parse().unwrap());
    assert!(seen(&mut story, 205).is_empty());
    assert!(seen(&mut story, 210).is_empty());
    story.uk().endpoint = Some("[::ffff:192.0.2.8]:40000".parse().unwrap());
    story.uk().received += 32;
    assert!(seen(&mut story, 215).is_empty(), "it moved: once more");
    story.uk().received += 32;
    assert_eq!(seen(&mut story, 220), ["192.0.2.8"], "as IPv4");
    story.uk().received = 0;
    assert!(seen(&mut story, 225).is_empty(), "it restarted");
}

#[test]
fn the_age_by_the_keepalive() {
    for (keepalive, age, status) in [
        (25, 0, Status::Ok),
        (25, 155, Status::Ok),
        (25, 156, Status::Warning),
        (25, 185, Status::Warning),
        (25, 186, Status::Critical),
        (60, 190, Status::Ok),
        (60, 191, Status::Warning),
        (60, 221, Status::Critical),
        (0, 100_000, Status::Ok),
    ] {
        let mut story = Story::new();
        story.uk().keepalive = keepalive;
        assert_eq!(story.status(age), status, "keepalive {keepalive}, {age} s old");
    }
}

#[test]
fn without_a_keepalive_only_what_was_sent_in_vain_is_judged() {
    let mut story = Story::new();
    story.uk().keepalive = 0;
    assert_eq!(story.status(500), Status::Ok);
    story.uk().sent += 32;
    assert_eq!(story.status(502), Status::Ok, "nobody answers a keepalive");
    story.uk().sent += 148;
    assert_eq!(story.status(505), Status::Critical, "sent, and nothing came back");
    story.uk().received += 92;
    story.uk().handshake = Some(SHOOK + Duration::from_secs(505));
    assert_eq!(story.status(506), Status::Ok, "a new handshake");
    story.uk().sent += 148;
    assert_eq!(story.status(800), Status::Critical);
    assert_eq!(story.status(1_200), Status::Critical, "it gave up, and is no better for it");
}

#[test]
fn a_clock_that_cannot_be_believed_tells_no_age() {
    let mut story = Story::new();
    assert_eq!(story.look(Now { is_trusted: false, ..after(500) }).status, Status::Unknown);
    let set_back = Now { wall: after(0).wall - Duration::from_hours(1), ..after(10) };
    assert_eq!(story.look(set_back).status, Status::Unknown, "before the handshake");
    let mut story = Story::new();
    assert_eq!(story.status(0), Status::Ok);
    story.uk().handshake = Some(SHOOK + Duration::from_secs(10));
    assert_eq!(story.status(10), Status::Ok);
    let set_ahead = Now { wall: after(3_600).wall, ..after(60) };
    assert_eq!(story.look(set_ahead).status, Status::Ok, "we saw that handshake, 50 s ago");
}

#[test]
fn three_requests_in_vain_are_told_with_their_reason() {
    for (received, reason) in [(0, "nothing arrives"), (32, "the keys differ")] {
        let mut story = Story::new();
        assert_eq!(story.status(0), Status::Ok);
        for (second, status) in [(5, Status::Ok), (10, Status::Ok), (15, Status::Warning), (20, Status::Warning)] {
            story.uk().sent += 148;
            story.uk().received += received;
            let sample = story.look(after(second));
            assert_eq!(sample.status, status, "{second} s");
            assert!(status == Status::Ok || sample.text.contains(reason), "{}", sample.text);
        }
        story.uk().handshake = Some(SHOOK + Duration::from_secs(21));
        assert_eq!(story.status(22), Status::Ok);
    }
}

#[test]
fn a_peer_that_never_called_is_given_time() {
    for (endpoint, late) in [(Some("198.51.100.2:51820"), 31), (None, 186)] {
        let mut story = Story::new();
        story.uk().handshake = None;
        story.uk().endpoint = endpoint.map(|endpoint| endpoint.parse().unwrap());
        assert_eq!(story.status(0), Status::Ok);
        assert_eq!(story.status(late - 1), Status::Ok, "{endpoint:?}");
        assert_eq!(story.status(late), Status::Critical, "{endpoint:?}");
    }
}

#[test]
fn a_new_endpoint_and_a_restart_are_news_for_ten_minutes() {
    let mut story = Story::new();
    assert_eq!(story.status(0), Status::Ok);
    story.uk().endpoint = Some("198.51.100.3:40000".parse().unwrap());
    assert_eq!(story.status(5), Status::Ok);
    let moved = "its endpoint moved from 198.51.100.2:51820 to 198.51.100.3:40000";
    assert_eq!(story.news, [moved]);
    let mut samples = super::super::judge::samples(&wanted(), &story.facts);
    story.memory.tell(&wanted(), &mut samples);
    assert_eq!(samples.iter().filter(|sample| sample.text.ends_with(moved)).count(), 1);
    (story.uk().sent, story.uk().received) = (148, 92);
    assert_eq!(story.status(10), Status::Ok);
    assert_eq!(story.news.len(), 2, "{:?}", story.news);
    story.uk().handshake = Some(SHOOK + Duration::from_secs(700));
    assert_eq!(story.status(700), Status::Ok);
    let mut samples = super::super::judge::samples(&wanted(), &story.facts);
    story.memory.tell(&wanted(), &mut samples);
    assert!(samples.iter().all(|sample| !sample.text.contains("restarted")));
}

#[test]
fn behind_what_is_broken_it_is_unknown() {
    let mut story = Story::new();
    uk_link(&mut story.facts).is_up = false;
    assert_eq!(story.status(0), Status::Unknown);
    let mut story = Story::new();
    uk_device(&mut story.facts).peers.clear();
    assert_eq!(story.status(0), Status::Unknown);
}

proptest! {
    /// A tunnel that renews its session as the protocol says is never told off, whatever it carries and whenever we look.
    #[test]
    fn a_tunnel_that_works_is_ok(
        keepalive in prop_oneof![Just(0_u16), Just(25), 1..200_u16], began in 0..500_u64,
        looks in proptest::collection::vec((1..6_u64, 0..5_000_u64, any::<bool>()), 1..300),
    ) {
        let mut story = Story::new();
        story.uk().keepalive = keepalive;
        story.uk().handshake = Some(SHOOK + Duration::from_secs(began));
        let (mut second, mut shook, mut spoke) = (began, began, began);
        for (pause, bytes, is_busy) in looks {
            second += pause;
            let must_speak = keepalive > 0 && second - spoke >= u64::from(keepalive);
            if is_busy || must_speak {
                spoke = second;
                if second - shook >= 120 {
                    shook = second;
                    story.uk().sent += 148;
                    story.uk().received += 92;
                }
                story.uk().sent += 32 + bytes / 16 * 16;
                story.uk().received += 32;
            }
            story.uk().handshake = Some(SHOOK + Duration::from_secs(shook));
            prop_assert_eq!(story.status(second), Status::Ok, "at {}", second);
        }
    }
}
