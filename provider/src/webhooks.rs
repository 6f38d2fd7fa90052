//! Tells others what happened: each event is posted to each webhook that wants its kind, signed, one after the other.
//!
//! A webhook has a task of its own that reads the buffer of events in its own time, so that one which is down holds nobody
//! up. An event is tried again and again until it is an hour old. What was given up, or was overwritten meanwhile, is told
//! by a `missed` before the next one. Nothing of it is kept over a restart.

mod attempt;
mod sign;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use charliehub_proto::event::{Event, EventKind};
use http::{Request, header};
use jiff::Timestamp;
use metrics::counter;
use serde_json::Value;
use tokio::time::sleep;

use self::attempt::{Outcome, wait};
use crate::{
    client::{self, Limits, Trust},
    config::Webhook,
    events::{Begin, Events, missed},
    metrics as name,
};

/// An answer is hardly read: large is what is none.
const LIMITS: Limits = Limits { patience: Duration::from_secs(10), largest: 1 << 20 };
/// How old an event may be that is tried again.
const OLDEST: Duration = Duration::from_hours(1);

/// What became of an event.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Delivered,
    GivenUp,
    /// The receiver wants no more.
    Gone,
}

/// Events that the receiver has not had and will not get.
#[derive(Debug)]
struct Lost {
    count: u64,
    /// The id of the last one.
    id: String,
}

struct Courier {
    webhook: Webhook,
    trust: Trust,
    /// Attempts that failed in a row, whatever they were about.
    failures: u32,
    lost: Option<Lost>,
}

/// Tells one webhook what happens, until it wants no more.
pub async fn follow(webhook: Webhook, events: Arc<Events>) {
    let trust = webhook.ca_file.clone().map_or(Trust::System, Trust::Only);
    let mut courier = Courier { webhook, trust, failures: 0, lost: None };
    let mut reader = events.reader(Begin::Oldest);
    loop {
        let Some(event) = reader.take(1).into_iter().next() else {
            reader.wait().await;
            continue;
        };
        if courier.handle(&event).await == End::Gone {
            let webhook = &courier.webhook.name;
            tracing::error!(webhook, "this webhook answers 410: it is told nothing more until the next start");
            courier.count("gone", 1);
            return;
        }
    }
}

impl Courier {
    /// Brings one event, behind the news of those that are lost.
    async fn handle(&mut self, event: &Event) -> End {
        if event.kind == EventKind::Missed {
            self.lose(event.detail.get("count").and_then(Value::as_u64).unwrap_or(1), &event.id, "missed");
        } else if !self.webhook.kinds.contains(&event.kind) {
            return End::Delivered;
        } else if self.failures > 0 && is_old(event) {
            self.lose(1, &event.id, "given_up");
            return End::GivenUp;
        }
        if let Some(lost) = &self.lost {
            match self.deliver(&missed(lost.id.clone(), Some(lost.count))).await {
                End::Delivered => self.lost = None,
                End::GivenUp => {}
                End::Gone => return End::Gone,
            }
        }
        if event.kind == EventKind::Missed {
            return End::Delivered;
        }
        let end = self.deliver(event).await;
        match end {
            End::Delivered => self.count("delivered", 1),
            End::GivenUp => self.lose(1, &event.id, "given_up"),
            End::Gone => {}
        }
        end
    }

    /// Tries until it is taken, or too old.
    async fn deliver(&mut self, event: &Event) -> End {
        loop {
            let outcome = self
                .attempt(event)
                .await
                .unwrap_or_else(|error| Outcome::Failed { why: format!("{error:#}"), asked: None });
            let webhook = &self.webhook.name;
            match outcome {
                Outcome::Delivered => {
                    if self.failures > 0 {
                        tracing::info!(webhook, attempts = self.failures + 1, "the webhook takes events again");
                    }
                    self.failures = 0;
                    return End::Delivered;
                }
                Outcome::Gone => return End::Gone,
                Outcome::Failed { why, asked } => {
                    if self.failures == 0 {
                        tracing::warn!(webhook, why, "an event cannot be delivered; trying again for an hour");
                    }
                    self.count("failed", 1);
                    self.failures = self.failures.saturating_add(1);
                    if is_old(event) {
                        return End::GivenUp;
                    }
                    sleep(wait(self.failures, asked, rand::random())).await;
                }
            }
        }
    }

    async fn attempt(&self, event: &Event) -> anyhow::Result<Outcome> {
        let (body, now) = (serde_json::to_vec(event)?, Timestamp::now());
        let signature = sign::sign(&self.webhook.key, &event.id, now.as_second(), &body)?;
        let request = Request::post(self.webhook.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("charliehub-provider/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &event.id)
            .header("webhook-timestamp", now.as_second())
            .header("webhook-signature", signature)
            .body(Bytes::from(body))?;
        let answer = client::send(request, &self.trust, LIMITS).await?;
        Ok(Outcome::of(answer.status(), answer.headers(), now))
    }

    fn lose(&mut self, count: u64, id: &str, why: &'static str) {
        self.count(why, count);
        if self.lost.is_none() {
            tracing::warn!(webhook = self.webhook.name, why, "a webhook does not get all events");
        }
        let before = self.lost.take().map_or(0, |lost| lost.count);
        self.lost = Some(Lost { count: before.saturating_add(count), id: id.to_owned() });
    }

    fn count(&self, outcome: &'static str, count: u64) {
        counter!(name::WEBHOOK_DELIVERIES, "webhook" => self.webhook.name.clone(), "outcome" => outcome)
            .increment(count);
    }
}

fn is_old(event: &Event) -> bool {
    Duration::try_from(Timestamp::now().duration_since(event.at)).is_ok_and(|age| age >= OLDEST)
}

#[cfg(test)]
mod tests;
