//! MQTT gateways: the age of the last message of each, from one subscription that lasts.
//!
//! Silence counts only while we listen: after a start or a lost connection a gateway is unknown until it speaks or its time
//! is over. A message that the broker kept says nothing of now. While the broker is down, the gateways are unknown because of
//! it, and the broker is the finding.

mod listen;
mod mqtt;

use std::{collections::BTreeSet, time::Duration};

use charliehub_proto::{duration, finding::Status, policy};
use listen::{Error, Link, Listener};
use tokio::time::Instant;

use crate::{
    config::{self, Mqtt},
    sample::Sample,
};

const BROKER: &str = "mqtt-broker";
const GATEWAY: &str = "gateway";

/// A broker is restarted now and then; its gateways may take a moment until they speak. So many looks, a second apart.
const LOOKS: u32 = 8;

#[derive(Debug)]
pub(super) struct Gateways {
    mqtt: Option<Mqtt>,
    timeout: Duration,
    listener: Option<Listener>,
}

/// The broker, as it stands.
#[derive(Debug)]
enum Broker<'a> {
    NotGiven,
    Connecting,
    /// For so long.
    Up(Duration),
    Down(Duration, &'a Error),
}

impl Gateways {
    pub(super) fn new(settings: &config::Host) -> Self {
        Self { mqtt: settings.mqtt.clone(), timeout: settings.timeout, listener: None }
    }

    pub(super) async fn look(&mut self, gateways: &[policy::Gateway]) -> Vec<Sample> {
        let filters: BTreeSet<&String> =
            gateways.iter().map(|gateway| &gateway.topic).filter(|topic| mqtt::is_filter(topic)).collect();
        let filters: Vec<String> = filters.into_iter().cloned().collect();
        let mqtt = self.mqtt.as_ref().filter(|_| !filters.is_empty());
        let Some(mqtt) = mqtt else {
            self.listener = None;
            return gateways.iter().map(|gateway| judge(gateway, &Broker::NotGiven, None, false)).collect();
        };
        let listener = match self.listener.take().filter(|listener| listener.filters == filters) {
            Some(listener) => self.listener.insert(listener),
            None => self.listener.insert(Listener::start(mqtt.clone(), filters)),
        };
        let state = listener.state(self.timeout / 2).await;
        let now = Instant::now();
        let broker = match &state.link {
            Link::Connecting => Broker::Connecting,
            Link::Up { since } => Broker::Up(now - *since),
            Link::Down { since, why } => Broker::Down(now - *since, why),
        };
        let judged = gateways.iter().map(|gateway| {
            let age = state.last.get(&gateway.topic).map(|last| now - *last);
            judge(gateway, &broker, age, state.refused.contains(&gateway.topic))
        });
        std::iter::once(judge_broker(mqtt, &broker)).chain(judged).collect()
    }
}

fn judge_broker(mqtt: &Mqtt, broker: &Broker<'_>) -> Sample {
    let address = mqtt.address.as_str();
    match broker {
        Broker::Up(_) => Sample::ok(BROKER, address, format!("{address} takes our subscription")),
        Broker::NotGiven | Broker::Connecting => {
            Sample::unknown(BROKER, address, format!("{address} is being connected to"))
                .remedy("wait: it is known in 10 s")
        }
        Broker::Down(for_so_long, why) => {
            let text = format!("no connection to {address} for {} s: {why}", for_so_long.as_secs());
            let (status, remedy) = match why {
                Error::Refused(4 | 5) => (
                    Status::Unknown,
                    "set `username` and `password_file` of `host.mqtt` to a user that the broker knows",
                ),
                Error::Authority => {
                    (Status::Unknown, "set `host.mqtt.ca_file` to the authority that signed its certificate")
                }
                Error::Setting(..) => (Status::Unknown, "correct `host.mqtt`, and let the agent read that file"),
                Error::Connect(_) | Error::Refused(_) | Error::Broken(_) | Error::Silent(_) => (
                    Status::Critical,
                    "see that the broker runs and its port is open: `docker logs --tail 50 parking-mosquitto`",
                ),
                Error::Tls(_) => (
                    Status::Critical,
                    "see its certificate: `openssl s_client -connect ADDRESS` and check `certificate`",
                ),
            };
            let remedy = remedy.replace("ADDRESS", address);
            Sample::new(BROKER, address, status, text).remedy(remedy).confirmed_by(LOOKS)
        }
    }
}

/// `age` is that of the last message, on this connection or an earlier one.
fn judge(gateway: &policy::Gateway, broker: &Broker<'_>, age: Option<Duration>, is_refused: bool) -> Sample {
    let name = gateway.name.as_str();
    let unknown = |text: String| Sample::unknown(GATEWAY, name, format!("{name} {text}")).confirmed_by(LOOKS);
    if !mqtt::is_filter(&gateway.topic) {
        return unknown(format!("has no topic that MQTT knows: `{}`", gateway.topic.escape_debug()))
            .remedy("correct the policy: `+` and `#` are whole levels, and `#` is the last");
    }
    let Some(max_age) = duration::parse(&gateway.max_age) else {
        return unknown(format!("has no duration in the policy: `{}`", gateway.max_age))
            .remedy("write `max_age` as `10m`");
    };
    let listening = match broker {
        Broker::Up(listening) => *listening,
        Broker::NotGiven => {
            return unknown("cannot be heard: no broker is given".to_owned())
                .remedy("set `host.mqtt.address` in the agent's file");
        }
        Broker::Connecting | Broker::Down(..) => {
            return unknown("cannot be heard because of the broker".to_owned()).remedy("see check `mqtt-broker`");
        }
    };
    if is_refused {
        return unknown(format!("cannot be heard: the broker refuses us `{}`", gateway.topic))
            .remedy("let our user read that topic in the broker's ACL");
    }
    let silent = age.unwrap_or(Duration::MAX).min(listening);
    let seconds = silent.as_secs();
    if silent <= max_age && age.is_none_or(|age| age > max_age) {
        let text = format!("is not judged yet: no message in the {seconds} s that we listen");
        return unknown(text).remedy(format!("wait: after {} of silence it is a warning", gateway.max_age));
    }
    let status = match silent {
        silent if silent > max_age * 2 => Status::Critical,
        silent if silent > max_age => Status::Warning,
        _ => return Sample::ok(GATEWAY, name, format!("{name} spoke {} s ago", age.unwrap_or(silent).as_secs())),
    };
    Sample::new(GATEWAY, name, status, format!("{name} is silent for {seconds} s"))
        .observed(format!("no message on {} for {seconds} s", gateway.topic))
        .expected(format!("one every {} at least", gateway.max_age))
        .source("the broker, by subscription")
        .remedy(format!("see power and network of gateway {name}, and whether it gets to the broker: `docker logs --tail 50 parking-mosquitto`"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn silence_is_judged_by_the_time_that_we_listened() {
        let gateway = |topic: &str, max_age: &str| policy::Gateway {
            name: "uk".to_owned(),
            topic: topic.to_owned(),
            max_age: max_age.to_owned(),
        };
        let uk = || gateway("gateway/uk/#", "10m");
        let minutes = Duration::from_mins;
        let why = Error::Silent(minutes(1));
        for (gateway, broker, age, refused, status, text) in [
            (uk(), Broker::Up(minutes(99)), Some(3), false, Status::Ok, "uk spoke 180 s ago"),
            (uk(), Broker::Up(minutes(1)), Some(3), false, Status::Ok, "uk spoke 180 s ago"),
            (uk(), Broker::Up(minutes(99)), Some(11), false, Status::Warning, "uk is silent for 660 s"),
            (uk(), Broker::Up(minutes(99)), Some(21), false, Status::Critical, "uk is silent for 1260 s"),
            (uk(), Broker::Up(minutes(11)), None, false, Status::Warning, "uk is silent for 660 s"),
            (uk(), Broker::Up(minutes(11)), Some(99), false, Status::Warning, "uk is silent for 660 s"),
            (
                uk(),
                Broker::Up(minutes(2)),
                None,
                false,
                Status::Unknown,
                "uk is not judged yet: no message in the 120 s that we listen",
            ),
            (
                uk(),
                Broker::Up(minutes(2)),
                Some(99),
                false,
                Status::Unknown,
                "uk is not judged yet: no message in the 120 s that we listen",
            ),
            (
                uk(),
                Broker::Down(minutes(2), &why),
                Some(1),
                false,
                Status::Unknown,
                "uk cannot be heard because of the broker",
            ),
            (uk(), Broker::Connecting, None, false, Status::Unknown, "uk cannot be heard because of the broker"),
            (uk(), Broker::NotGiven, None, false, Status::Unknown, "uk cannot be heard: no broker is given"),
            (
                uk(),
                Broker::Up(minutes(99)),
                None,
                true,
                Status::Unknown,
                "uk cannot be heard: the broker refuses us `gateway/uk/#`",
            ),
            (
                gateway("a#", "10m"),
                Broker::Up(minutes(99)),
                None,
                false,
                Status::Unknown,
                "uk has no topic that MQTT knows: `a#`",
            ),
            (
                gateway("a", "often"),
                Broker::Up(minutes(99)),
                None,
                false,
                Status::Unknown,
                "uk has no duration in the policy: `often`",
            ),
        ] {
            let sample = judge(&gateway, &broker, age.map(minutes), refused);
            assert_eq!((sample.status, sample.text.as_str()), (status, text));
            assert_eq!(sample.remedy.is_some(), status != Status::Ok, "{text}");
        }
    }

    #[test]
    fn a_broker_that_is_down_is_told_from_one_that_does_not_let_us_in() {
        let mqtt = Mqtt { address: "b:1883".into(), tls: false, ca_file: None, username: None, password_file: None };
        let gone = || io::Error::from(io::ErrorKind::ConnectionRefused);
        for (why, status) in [
            (Error::Connect(gone()), Status::Critical),
            (Error::Broken(gone()), Status::Critical),
            (Error::Silent(Duration::ZERO), Status::Critical),
            (Error::Refused(3), Status::Critical),
            (Error::Tls(gone()), Status::Critical),
            (Error::Refused(5), Status::Unknown),
            (Error::Authority, Status::Unknown),
            (Error::Setting("/x".into(), "gone".into()), Status::Unknown),
        ] {
            let sample = judge_broker(&mqtt, &Broker::Down(Duration::ZERO, &why));
            assert_eq!((sample.status, sample.remedy.is_some()), (status, true), "{why}");
        }
        assert_eq!(judge_broker(&mqtt, &Broker::Up(Duration::ZERO)).status, Status::Ok);
    }
}
