//! Webhooks are told what happens: signed, in order, tried again, and one that is down delays no other.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use charliehub_tests::{Backend, Home, Postgres, Row, Seen, World, measured, secs, until};
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::{Response, StatusCode};
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The event in a message, if it is signed by us.
fn verified(seen: &Seen) -> Result<Value, String> {
    let header = |name: &str| seen.headers.get(name).cloned().ok_or_else(|| format!("no {name}: {seen:?}"));
    let (id, at) = (header("webhook-id")?, header("webhook-timestamp")?);
    let key = BASE64_STANDARD.decode(&SECRET["whsec_".len()..]).map_err(|error| error.to_string())?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|error| error.to_string())?;
    mac.update(format!("{id}.{at}.{}", seen.body).as_bytes());
    let signature = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    if header("webhook-signature")? != signature {
        return Err(format!("not signed as it should be: {seen:?}"));
    }
    let event: Value = serde_json::from_str(&seen.body).map_err(|error| error.to_string())?;
    if event.get("id") == Some(&Value::from(id)) { Ok(event) } else { Err(format!("another id in its body: {seen:?}")) }
}

fn revision(event: &Value) -> u64 {
    event["revision"].as_u64().unwrap_or_default()
}

fn table(address: SocketAddr) -> String {
    format!("[[webhook]]\nurl = \"http://{address}/hook\"\nsecret = \"{SECRET}\"\nkinds = [\"revision\"]")
}

#[tokio::test]
async fn a_webhook_that_failed_gets_each_event_once_in_order_and_delays_no_other() {
    let home = Home::new();
    let failures = Arc::new(AtomicUsize::new(3));
    let left = failures.clone();
    let flaky = Backend::with(&home, move |_| {
        let mut answer = Response::new(String::new());
        let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        *answer.status_mut() = if fails { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NO_CONTENT };
        answer
    })
    .await;
    let healthy = Backend::start(&home, "healthy").await;
    let gone = Backend::with(&home, |_| {
        let mut answer = Response::new(String::new());
        *answer.status_mut() = StatusCode::GONE;
        answer
    })
    .await;
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = SocketAddr::from(([127, 0, 0, 1], home.port()));
    let postgres = Postgres::start(&home).await;
    let addresses = [flaky.address(), healthy.address(), gone.address(), mute.local_addr().unwrap(), dead];
    let mut world = World::over(home, postgres, |provider| {
        addresses.into_iter().fold(provider, |provider, address| provider.table(&table(address)))
    })
    .await;

    let mut told = Vec::new();
    for n in 0..12 {
        let row = Row::http(&format!("n{n}.test"), ([127, 0, 0, 1], 9).into());
        told.push(world.serve(&row).await);
        let newest = told.last().copied();
        let ((), took) = until("the healthy webhook has it", secs(1), async || {
            let seen = healthy.seen();
            let last = seen.last().map(|seen| revision(&verified(seen).unwrap()));
            if last == newest { Ok(()) } else { Err(last) }
        })
        .await;
        measured("served to posted", took);
    }
    let revisions = |backend: &Backend, delivered: usize| -> Vec<u64> {
        backend.seen().iter().skip(delivered).map(|seen| revision(&verified(seen).unwrap())).collect()
    };
    assert!(told.iter().all(|one| revisions(&healthy, 0).contains(one)));
    let ((), took) = until("the flaky webhook has all", secs(20), async || {
        let seen = revisions(&flaky, 3);
        if seen.ends_with(&told) { Ok(()) } else { Err(seen) }
    })
    .await;
    measured("until the webhook that failed three times has all", took);
    assert_eq!(revisions(&flaky, 3), revisions(&healthy, 0), "each once, in order");
    let tries: Vec<String> = flaky.seen().iter().take(4).map(|seen| seen.headers["webhook-id"].clone()).collect();
    assert!(tries.iter().all(|id| *id == tries[0]), "what is tried again keeps its id: {tries:?}");
    assert_eq!(gone.seen().len(), 1, "410 is the end");

    let metrics = world.provider.get("/metrics").await.text();
    let counts: BTreeMap<&str, &str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("charliehub_provider_webhook_deliveries_total")?.rsplit_once(' '))
        .collect();
    let count = |address: SocketAddr, outcome: &str| {
        let found = counts.iter().find(|(labels, _)| {
            labels.contains(&format!("\"{address}\"")) && labels.contains(&format!("\"{outcome}\""))
        });
        found.map_or(0, |(_, count)| count.parse::<usize>().unwrap())
    };
    assert_eq!(count(addresses[0], "failed"), 3, "{counts:?}");
    assert_eq!(count(addresses[1], "delivered"), healthy.seen().len(), "{counts:?}");
    assert_eq!((count(addresses[2], "gone"), count(addresses[4], "delivered")), (1, 0), "{counts:?}");
    assert!(count(addresses[4], "failed") > 0, "{counts:?}");
    let log = world.provider.log();
    assert!(log.contains("410") && !log.contains("/hook") && !log.contains(SECRET), "{log}");
    let began = Instant::now();
    assert!(
        world.provider.stop().await.success() && began.elapsed() < secs(5),
        "a webhook that hangs keeps nothing up"
    );
}
