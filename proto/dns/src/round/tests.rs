use std::net::Ipv4Addr;

use hickory_proto::{
    op::OpCode,
    rr::rdata::{A, CNAME},
};

use super::*;

fn name(text: &str) -> Name {
    crate::name(text).unwrap()
}

fn answer(records: &[(&str, RData)], code: ResponseCode) -> Message {
    let mut answer = Message::response(1, OpCode::Query);
    answer.metadata.response_code = code;
    answer.add_answers(records.iter().map(|(owner, data)| Record::from_rdata(name(owner), 60, data.clone())));
    answer
}

#[test]
fn what_a_server_says_is_about_the_name_itself() {
    let own = RData::A(A(Ipv4Addr::LOCALHOST));
    let alias = RData::CNAME(CNAME(name("B.test")));
    let addresses = |of: &[IpAddr]| Saying::Addresses(of.iter().copied().collect());
    for (records, code, right) in [
        (vec![("a.test", own.clone())], ResponseCode::NoError, addresses(&[Ipv4Addr::LOCALHOST.into()])),
        (vec![("A.test", own.clone())], ResponseCode::NoError, addresses(&[Ipv4Addr::LOCALHOST.into()])),
        (vec![], ResponseCode::NoError, addresses(&[])),
        (vec![("b.test", own.clone())], ResponseCode::NoError, addresses(&[])),
        (vec![], ResponseCode::NXDomain, Saying::NoSuchName),
        // Of where an alias leads nothing is believed, not even that it is not there.
        (vec![("a.test", alias.clone()), ("b.test", own)], ResponseCode::NoError, Saying::Alias(name("b.test"))),
        (vec![("a.test", alias)], ResponseCode::NXDomain, Saying::Alias(name("b.test"))),
    ] {
        assert_eq!(saying(&name("a.test"), &[answer(&records, code)]), right, "{records:?}");
    }
}

#[tokio::test]
async fn what_was_found_out_is_not_asked_again_whether_it_is_good_or_bad() {
    let kept: Kept<u8, u8> = Kept::default();
    assert_eq!(kept.get(&1, async { Ok(7) }).await, Ok(7));
    assert_eq!(kept.get(&1, async { unreachable!() }).await, Ok(7));
    assert_eq!(kept.get(&2, async { Err(Error::NoResolver) }).await, Err(Error::NoResolver));
    assert_eq!(kept.get(&2, async { unreachable!() }).await, Err(Error::NoResolver));
}

#[tokio::test]
async fn without_a_resolver_it_says_so() {
    let asker = Asker { timeout: std::time::Duration::from_secs(1) };
    let error = Round::new(asker, Vec::new()).addresses(&name("a.test")).await.unwrap();
    assert_eq!(error[0].found, Err(Error::NoResolver));
}
