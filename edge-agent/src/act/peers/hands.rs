//! Looks at an interface, and writes a plan: all at once, read back, and what did not become right taken back.

use std::{collections::BTreeSet, path::Path};

use super::{
    super::{crash_at, right::Obstacle},
    plan::Plan,
};
use crate::wireguard::{
    facts::{Device, Key, NoDevice, Unseen},
    read, write,
};

pub(crate) async fn look(sockets: &Path, interface: &str) -> Result<Device, Obstacle> {
    read::named(sockets, interface, false).await.map_err(|none| match none {
        NoDevice::Unseen(Unseen { why, remedy }) => Obstacle::unknown(why, remedy),
        NoDevice::Absent | NoDevice::Refused => {
            Obstacle::unknown(format!("{interface} is absent, so it has no peers"), "mend that first: see wg-interface")
        }
    })
}

/// Why a plan is not carried out.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub why: String,
    /// It was made, and did not last.
    pub is_written: bool,
}

/// What was seen of it. `left`: what there would still be to do.
pub(crate) async fn carry_out(
    sockets: &Path,
    interface: &str,
    plan: &Plan,
    left: impl Fn(&Device) -> Plan,
) -> Result<String, Failed> {
    let written = write::device(sockets, interface, &plan.orders()).await;
    crash_at("peers-written");
    let is_written = written.is_ok();
    let failed = |what: &str| {
        let why = written.as_ref().err().map(|error| format!("it cannot be written: {error}"));
        Failed { why: why.unwrap_or_else(|| what.to_owned()), is_written }
    };
    let after = match look(sockets, interface).await {
        Ok(after) => after,
        Err(Obstacle { text, .. }) => {
            let Failed { why, .. } = failed("it was written");
            return Err(Failed { why: format!("{why}, and cannot be read back: {text}"), is_written });
        }
    };
    let left = left(&after);
    if left.steps == plan.steps {
        let Failed { why, .. } = failed("it was written, and taken back at once");
        return Err(Failed { why, is_written });
    }
    let ours: BTreeSet<Key> = plan.steps.iter().map(|step| step.key).collect();
    let wrong: BTreeSet<Key> = left.steps.iter().map(|step| step.key).filter(|key| ours.contains(key)).collect();
    crash_at("peers-checked");
    if wrong.is_empty() {
        return Ok(format!("{} of {interface} changed, and read back", count(plan.steps.len())));
    }
    let Failed { why, .. } = failed(&format!("{} did not become what was written", count(wrong.len())));
    let undo = plan.undo(&wrong, &after);
    if undo.steps.is_empty() {
        return Err(Failed { why, is_written });
    }
    let why = match write::device(sockets, interface, &undo.orders()).await {
        Ok(()) => format!("{why}; undone, but for what was removed"),
        Err(again) => format!("{why}; and not undone: {again}"),
    };
    Err(Failed { why, is_written })
}

/// `1 peer`, `2 peers`.
pub(crate) fn count(peers: usize) -> String {
    format!("{peers} peer{}", if peers == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as Blocking;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::{
        super::plan::{Want, plan},
        *,
    };
    use crate::wireguard::facts::Peer;

    fn key(byte: u8) -> String {
        format!("{byte:02x}").repeat(32)
    }

    /// What a tunnel's process is asked, which answers a `set` with this number and a `get` with these peers.
    async fn asked(listener: &UnixListener, errno: i32, peers: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = String::new();
        while !asked.ends_with("\n\n") {
            let mut bytes = [0; 1024];
            let many = stream.read(&mut bytes).await.unwrap();
            asked += str::from_utf8(&bytes[..many]).unwrap();
        }
        let answer =
            if asked.starts_with("get") { format!("{peers}errno=0\n\n") } else { format!("errno={errno}\n\n") };
        stream.write_all(answer.as_bytes()).await.unwrap();
        asked
    }

    /// What is written in all, and what is said of it, where this is there after it was written.
    async fn told(errno: i32, after: &str) -> (Vec<String>, Result<String, String>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = Blocking::bind(dir.path().join("wg-test.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = UnixListener::from_std(listener).unwrap();
        let want = |byte: u8, keepalive| Want {
            name: format!("peer{byte}"),
            key: Key([byte; 32]),
            allowed: [format!("10.{byte}.0.0/16").parse().unwrap()].into(),
            may_have: [].into(),
            keepalive,
            endpoint: None,
            is_fixed: false,
        };
        let wants = [want(1, 25), want(2, 0)];
        let before = Device {
            peers: vec![
                Peer { allowed_ips: wants[0].allowed.clone(), ..Peer::new(Key([1; 32])) },
                Peer::new(Key([3; 32])),
            ],
            ..Device::default()
        };
        let planned = |device: &Device| plan(&wants, device, &[], |_| true);
        let steps = planned(&before);
        let done = carry_out(dir.path(), "wg-test", &steps, planned);
        tokio::pin!(done);
        let mut sets = Vec::new();
        let result = loop {
            tokio::select! {
                asked = asked(&listener, errno, after) => sets.extend(Some(asked).filter(|asked| asked.starts_with("set"))),
                result = &mut done => break result,
            }
        };
        (sets, result.map_err(|failed| format!("{} {}", failed.why, failed.is_written)))
    }

    #[tokio::test]
    async fn what_did_not_become_right_is_taken_back_and_nothing_else() {
        let [one, two, three] = [1, 2, 3].map(key);
        let changed = format!("public_key={one}\npersistent_keepalive_interval=25\nallowed_ip=10.1.0.0/16\n");
        let written = format!(
            "set=1\npublic_key={three}\nremove=true\npublic_key={one}\nupdate_only=true\npersistent_keepalive_interval=25\n\
             public_key={two}\nreplace_allowed_ips=true\nallowed_ip=10.2.0.0/16\npersistent_keepalive_interval=0\n\n"
        );
        let (sets, told) = self::told(0, &format!("{changed}public_key={two}\nallowed_ip=10.2.0.0/16\n")).await;
        assert_eq!((sets, told), (vec![written.clone()], Ok("3 peers of wg-test changed, and read back".to_owned())));

        // Somebody took one thing away: the peer that lacks it goes, those that are right stay.
        let (sets, told) = self::told(0, &format!("{changed}public_key={two}\n")).await;
        let undone = format!("set=1\npublic_key={two}\nremove=true\n\n");
        assert_eq!(sets, [written.clone(), undone]);
        let why = "1 peer did not become what was written; undone, but for what was removed true";
        assert_eq!(told.unwrap_err(), why);

        // Nothing came of it, so nothing is taken back.
        let as_before = format!("public_key={one}\nallowed_ip=10.1.0.0/16\npublic_key={three}\n");
        let (sets, told) = self::told(-1, &as_before).await;
        assert_eq!(
            (sets.len(), told.unwrap_err()),
            (1, "it cannot be written: the answer is an error, -1 false".to_owned())
        );
        let (sets, told) = self::told(0, &as_before).await;
        assert_eq!((sets.len(), told.unwrap_err()), (1, "it was written, and taken back at once true".to_owned()));
    }

    #[tokio::test]
    async fn a_tunnel_that_is_gone_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let told = carry_out(dir.path(), "wg-no-such", &Plan::default(), |_| Plan::default()).await.unwrap_err();
        assert!(told.why.contains(", and cannot be read back: wg-no-such is absent") && !told.is_written, "{told:?}");
    }
}
