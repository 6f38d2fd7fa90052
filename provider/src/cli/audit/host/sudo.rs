//! What was done, or tried, by sudo: from systemd's journal, which knows which program really wrote a line.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Read, Source, Wanted, entry, run};
use crate::audit::list::Entry;

/// Where distributions have it, the one in Rust too.
const SUDO: &[&str] =
    &["/usr/bin/sudo", "/bin/sudo", "/usr/local/bin/sudo", "/usr/bin/sudo-rs", "/usr/lib/cargo/bin/sudo"];

pub(super) async fn read(wanted: &Wanted) -> Read {
    let since = format!("--since=@{}", wanted.since.as_second());
    let mut arguments = vec!["_COMM=sudo", "--output=json", "--no-pager", since.as_str()];
    let until = wanted.until.map(|until| format!("--until=@{}", until.as_second().saturating_add(1)));
    arguments.extend(until.as_deref());
    let said = run("journalctl", &arguments).await?;
    if !["/var/log/journal", "/run/log/journal"].iter().any(|path| std::path::Path::new(path).is_dir()) {
        return Err("there is no journal on this host".to_owned());
    }
    // Someone who may read only his own lines would get a report that looks whole.
    if said.complaint.contains("not seeing messages from other users") {
        return Err(
            "only root and group systemd-journal see what others did by sudo; run this as one of them".to_owned()
        );
    }
    if said.code != Some(0) {
        return Err(format!("journalctl: {}; run this as root or as one of group systemd-journal", said.complaint));
    }
    Ok(String::from_utf8_lossy(&said.output).lines().filter_map(parse).collect())
}

/// A line of the journal. None for those of sessions, which tell nothing more.
fn parse(line: &str) -> Option<Entry> {
    let fields: Value = serde_json::from_str(line).ok()?;
    let micros: i64 = fields.get("__REALTIME_TIMESTAMP")?.as_str()?.parse().ok()?;
    let message = text(fields.get("MESSAGE")?);
    let (who, rest) = message.split_once(" : ")?;
    let command = rest.split_once("COMMAND=").map(|(_, command)| command);
    if command.is_none() && !rest.contains("incorrect password") && !rest.contains("NOT") {
        return None;
    }
    let word = |key: &str| {
        let found = rest.split(" ; ").find_map(|part| part.trim().strip_prefix(key));
        found.unwrap_or_default().to_owned()
    };
    // What stands before the first pair is why it was refused.
    let refused = rest.split(" ; ").next().map(str::trim).filter(|first| !first.contains('='));
    // A program may call itself sudo; the kernel says which one it is.
    let program = fields.get("_EXE").map(text).filter(|program| !SUDO.contains(&program.as_str()));
    let kind = match (&program, refused) {
        (Some(_), _) => "sudo.forged",
        (None, Some(_)) => "sudo.refused",
        (None, None) => "sudo.command",
    };
    let mut detail = json!({ "as": word("USER="), "tty": word("TTY="), "folder": word("PWD=") });
    if let (Some(detail), Some(program)) = (detail.as_object_mut(), program) {
        detail.insert("written_by".to_owned(), program.into());
    }
    Some(Entry {
        name: command.map(str::to_owned),
        reason: refused.map(str::to_owned),
        detail: Some(detail),
        ..entry(Timestamp::from_microsecond(micros).ok()?, kind, who.trim(), Source::Sudo)
    })
}

/// What is not text is a list of bytes in the journal's JSON.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(bytes) => {
            let bytes: Vec<u8> =
                bytes.iter().filter_map(Value::as_u64).filter_map(|byte| u8::try_from(byte).ok()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &str, program: &str) -> Option<(String, String, Option<String>)> {
        let line = json!({"__REALTIME_TIMESTAMP": "1764000000000000", "MESSAGE": message, "_EXE": program});
        parse(&line.to_string()).map(|entry| (entry.kind, entry.actor, entry.name))
    }

    #[test]
    fn commands_and_refusals_are_told_and_sessions_are_not() {
        let ran = "   ann : TTY=pts/0 ; PWD=/home/ann ; USER=root ; COMMAND=/usr/bin/id -u ; x";
        assert_eq!(
            said(ran, "/usr/bin/sudo"),
            Some(("sudo.command".to_owned(), "ann".to_owned(), Some("/usr/bin/id -u ; x".to_owned())))
        );
        let wrong = "bob : 3 incorrect password attempts ; TTY=pts/1 ; PWD=/ ; USER=root ; COMMAND=/bin/sh";
        assert_eq!(said(wrong, "/usr/bin/sudo").unwrap().0, "sudo.refused");
        let not = "bob : user NOT in sudoers ; TTY=pts/1 ; PWD=/ ; USER=root ; COMMAND=/bin/sh";
        assert_eq!(said(not, "/usr/bin/sudo").unwrap().0, "sudo.refused");
        assert_eq!(
            said("pam_unix(sudo:session): session opened for user root(uid=0) by (uid=0)", "/usr/bin/sudo"),
            None
        );
        assert_eq!(said(ran, "/home/eve/sudo").unwrap().0, "sudo.forged");
        assert!(parse("{").is_none() && parse("").is_none());
        let bytes = json!({"__REALTIME_TIMESTAMP": "1", "MESSAGE": b"ann : COMMAND=/bin/\xff".to_vec()});
        assert_eq!(parse(&bytes.to_string()).unwrap().name.as_deref(), Some("/bin/\u{fffd}"));
    }
}
