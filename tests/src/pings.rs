//! Pings to one address, ten a second or more, from inside a network namespace: which were answered, and when.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{Home, Process, ms, process::guarded};

pub struct Pings {
    process: Process,
}

const CLIENT: &str = r#"
conf=$1 if=$(basename "$1" .conf)
mount -t tmpfs tmpfs /run/wireguard
wireguard-go -f "$if" &
until [ -S "/run/wireguard/$if.sock" ]; do sleep 0.05; done
wg setconf "$if" <(wg-quick strip "$conf")
of() { sed -n "s/^$1 = //p" "$conf" | tr -d ' ' | tr ',' '\n'; }
for one in $(of Address); do ip address add "$one" dev "$if"; done
ip link set "$if" up
for one in $(of AllowedIPs); do ip route add "$one" dev "$if"; done
exec ping -n -D -i 0.1 "$2"
"#;

/// Of an answer: when it came, and which one it is.
type Answer = (Duration, u32);

impl Pings {
    pub fn start(home: &Home, namespace: &str, address: &str) -> Self {
        Self::every(home, namespace, address, ms(100))
    }

    /// So far apart.
    pub fn every(home: &Home, namespace: &str, address: &str, apart: Duration) -> Self {
        let mut command = guarded(None, "KILL", "nsenter");
        command.arg(format!("--net=/run/netns/{namespace}")).args([
            "ping",
            "-n",
            "-D",
            "-i",
            &apart.as_secs_f64().to_string(),
            address,
        ]);
        Self { process: Process::start(home, &format!("ping-{address}"), command) }
    }

    /// Ten a second through a tunnel of their own in that namespace, made of a client's configuration. The file is called as
    /// the interface is to be.
    pub fn through(home: &Home, namespace: &str, configuration: &Path, address: &str) -> Self {
        let mut command = guarded(None, "KILL", "nsenter");
        command.arg(format!("--net=/run/netns/{namespace}")).args([
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
        ]);
        command.args(["bash", "-euc", CLIENT, "bash"]).arg(configuration).arg(address);
        Self { process: Process::start(home, &format!("client-{address}"), command) }
    }

    /// Was any answered since then?
    pub fn is_answered_since(&self, then: SystemTime) -> bool {
        self.answers().last().is_some_and(|(at, _)| *at > since_1970(then))
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// How many were lost so far between two answers, and the longest time without one.
    pub fn lost(&self) -> (u32, Duration) {
        let answers = self.answers();
        let pairs = answers.iter().zip(answers.iter().skip(1));
        pairs.fold((0, Duration::ZERO), |(lost, longest), (before, after)| {
            (lost + (after.1 - before.1).saturating_sub(1), longest.max(after.0.saturating_sub(before.0)))
        })
    }

    /// `[1795765866.501497] 64 bytes from 10.35.0.10: icmp_seq=7 ttl=63 time=0.4 ms`
    fn answers(&self) -> Vec<Answer> {
        let log = self.process.log();
        let answer = |line: &str| {
            let (at, rest) = line.strip_prefix('[')?.split_once("] 64 bytes from ")?;
            let (number, _) = rest.split_once("icmp_seq=")?.1.split_once(' ')?;
            Some((Duration::try_from_secs_f64(at.parse().ok()?).ok()?, number.parse().ok()?))
        };
        log.lines().filter_map(answer).collect()
    }
}

fn since_1970(then: SystemTime) -> Duration {
    then.duration_since(UNIX_EPOCH).expect("a time after 1970")
}
