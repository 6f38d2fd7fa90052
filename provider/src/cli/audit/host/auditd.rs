//! Who touched tunnels, firewall and settings: what auditd recorded of the rules that `deploy/harden` made.
//!
//! Read by `ausearch` where it is, which knows the rotated logs; else from auditd's own file. An event is several lines with one
//! number; those with our key count.

use std::{collections::BTreeMap, path::Path};

use jiff::Timestamp;
use serde_json::json;

use super::{Read, Source, entry, run, tail, user};
use crate::audit::list::Entry;

/// As `deploy/harden` calls its rules.
const KEY: &str = "charliehub";

const LOG: &str = "/var/log/audit/audit.log";

/// In `auid`: nobody had logged in.
const NOBODY: u32 = u32::MAX;

pub(super) async fn read() -> Read {
    let text = match run("ausearch", &["--raw", "--input-logs", "-k", KEY]).await {
        Ok(said) if said.code == Some(0) => String::from_utf8_lossy(&said.output).into_owned(),
        Ok(said) if said.complaint.contains("no matches") => String::new(),
        Ok(said) => return Err(format!("ausearch: {}; run this as root", said.complaint)),
        Err(why) => {
            let read = tokio::task::spawn_blocking(|| tail(Path::new(LOG))).await.map_err(|error| error.to_string())?;
            read.map_err(|error| format!("{why}, and {LOG}: {error}; run: deploy/harden apply --install --yes"))?
        }
    };
    Ok(parse(&text))
}

#[derive(Default)]
struct Event<'a> {
    is_ours: bool,
    /// `type=SYSCALL`: who did it.
    call: Option<&'a str>,
    /// `type=CONFIG_CHANGE`: the rules themselves were changed.
    rules: Option<&'a str>,
    paths: Vec<String>,
}

fn parse(text: &str) -> Vec<Entry> {
    let mut events: BTreeMap<&str, Event<'_>> = BTreeMap::new();
    for line in text.lines() {
        // type=PATH msg=audit(1764000000.123:456): item=1 name="/etc/wireguard/wg-uk.conf"
        let Some((_, rest)) = line.split_once("msg=audit(") else { continue };
        let Some((id, fields)) = rest.split_once("):") else { continue };
        let event = events.entry(id).or_default();
        event.is_ours |= field(fields, "key").is_some_and(|key| key.split('\u{1}').any(|one| one == KEY));
        if line.contains("type=SYSCALL") {
            event.call = event.call.or(Some(line));
        } else if line.contains("type=CONFIG_CHANGE") {
            event.rules = event.rules.or(Some(line));
        } else if line.contains("type=PATH") && field(fields, "nametype").as_deref() != Some("PARENT") {
            event.paths.extend(field(fields, "name"));
        }
    }
    events.iter().filter(|(_, event)| event.is_ours).filter_map(|(id, event)| of_event(id, event)).collect()
}

fn of_event(id: &str, event: &Event<'_>) -> Option<Entry> {
    let (seconds, rest) = id.split_once('.')?;
    let millis: i64 = rest.split(':').next()?.parse().ok()?;
    let at = Timestamp::from_millisecond(seconds.parse::<i64>().ok()?.checked_mul(1000)?.checked_add(millis)?).ok()?;
    let line = event.call.or(event.rules)?;
    let number = |name: &str| field(line, name).and_then(|text| text.parse::<u32>().ok());
    let uid = number("uid").map(user);
    let actor = match number("auid") {
        Some(NOBODY) | None => uid.clone().unwrap_or_else(|| "the system".to_owned()),
        Some(login) => user(login),
    };
    let (kind, what) = match (event.rules, field(line, "success").as_deref()) {
        (Some(rules), _) => ("audit.rules", field(rules, "op")),
        (None, Some("no")) => ("file.refused", Some(event.paths.join(" "))),
        (None, _) => ("file.changed", Some(event.paths.join(" "))),
    };
    Some(Entry {
        name: what.filter(|what| !what.is_empty()),
        detail: Some(json!({ "program": field(line, "exe"), "as": uid })),
        ..entry(at, kind, actor, Source::Auditd)
    })
}

/// The value of a field: quoted, plain, or in hexadecimal where it has characters that could be taken for others.
fn field(line: &str, name: &str) -> Option<String> {
    let start = format!("{name}=");
    // auditd adds what numbers mean behind the kernel's own words.
    let line = line.split('\u{1d}').next()?;
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(&start))?;
    if value.starts_with('"') {
        let all = line.split_once(&format!(" {start}\""))?.1;
        return Some(all.split('"').next()?.to_owned());
    }
    let is_text = matches!(name, "name" | "exe" | "key") && value.len() > 1 && value.len() % 2 == 0;
    if is_text && value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let byte = |at: usize| u8::from_str_radix(value.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..value.len()).step_by(2).map(byte).collect();
        return bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    }
    Some(value.to_owned()).filter(|value| value != "(null)")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What auditd 3.0.9 wrote in a machine with Linux 6.1, without what says nothing here; the last two lines by hand.
    const RECORDED: &[&str] = &[
        "type=CONFIG_CHANGE msg=audit(1795783314.676:4): auid=4294967295 ses=4294967295 subj=unconfined op=add_rule key=\"charliehub\" list=4 res=1",
        "type=SYSCALL msg=audit(1795783314.676:4): arch=c000003e syscall=44 success=yes exit=1080 items=0 ppid=95 pid=104 auid=4294967295 uid=0 gid=0 tty=(none) ses=4294967295 comm=\"auditctl\" exe=\"/bin/auditctl\" subj=unconfined key=(null)",
        "type=CONFIG_CHANGE msg=audit(1795783314.752:5): auid=4294967295 ses=4294967295 subj=unconfined op=add_rule key=\"charliehub\" list=4 res=1",
        "type=SYSCALL msg=audit(1795783314.752:5): arch=c000003e syscall=44 success=yes exit=1080 items=1 ppid=95 pid=104 auid=4294967295 uid=0 gid=0 tty=(none) ses=4294967295 comm=\"auditctl\" exe=\"/bin/auditctl\" subj=unconfined key=(null)",
        "type=PATH msg=audit(1795783314.752:5): item=0 name=\"/etc/iptables\" nametype=NORMAL",
        "type=SYSCALL msg=audit(1795783315.972:8): arch=c000003e syscall=257 success=yes exit=3 items=2 ppid=1 pid=112 auid=4294967295 uid=0 gid=0 tty=(none) ses=4294967295 comm=\"sh\" exe=\"/bin/sh\" subj=unconfined key=\"charliehub\"\u{1d}ARCH=x86_64 SYSCALL=openat AUID=\"unset\" UID=\"root\" GID=\"root\"",
        "type=PATH msg=audit(1795783315.972:8): item=0 name=\"/etc/wireguard/\" nametype=PARENT",
        "type=PATH msg=audit(1795783315.972:8): item=1 name=2F6574632F7769726567756172642F612062 nametype=CREATE",
        "type=SYSCALL msg=audit(1795783316.196:10): arch=c000003e syscall=90 success=yes exit=0 items=1 ppid=112 pid=115 auid=4294967295 uid=0 gid=0 tty=(none) ses=4294967295 comm=\"chmod\" exe=\"/bin/busybox\" subj=unconfined key=\"charliehub\"",
        "type=PATH msg=audit(1795783316.196:10): item=0 name=\"/etc/wireguard/wg-uk.conf\" nametype=NORMAL",
        "type=SYSCALL msg=audit(1795783317.000:11): arch=c000003e syscall=257 success=no exit=-13 items=1 auid=4294967294 uid=4294967294 comm=\"cp\" exe=\"/bin/cp\" key=\"charliehub\"",
        "type=SYSCALL msg=audit(1795783318.000:12): success=yes auid=0 uid=0 exe=\"/bin/x\" key=\"other\"",
    ];

    #[test]
    fn events_of_our_rules_are_told_whole() {
        let found = parse(&RECORDED.join("\n"));
        let short: Vec<_> =
            found.iter().map(|entry| (entry.kind.as_str(), entry.name.as_deref().unwrap_or_default())).collect();
        let expected = [
            ("file.changed", "/etc/wireguard/wg-uk.conf"),
            ("file.refused", ""),
            ("audit.rules", "add_rule"),
            ("audit.rules", "add_rule"),
            ("file.changed", "/etc/wireguard/a b"),
        ];
        let (mut short, mut expected) = (short, expected.to_vec());
        short.sort_unstable();
        expected.sort_unstable();
        assert_eq!(short, expected);
        let of = |kind: &str| found.iter().find(|entry| entry.kind == kind).unwrap();
        assert_eq!(of("audit.rules").at, "2026-11-27T12:41:54.676Z".parse().unwrap());
        assert_eq!((of("audit.rules").actor.as_str(), of("file.refused").actor.as_str()), ("root", "uid 4294967294"));
        assert_eq!(of("audit.rules").detail, Some(json!({"program": "/bin/auditctl", "as": "root"})));
        assert!(parse("type=SYSCALL msg=audit(x): key=\"charliehub\"\n\u{fffd}").is_empty());
    }
}
