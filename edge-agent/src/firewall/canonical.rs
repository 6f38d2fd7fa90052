//! What a restore really gives: loads rules with the host's own iptables-restore in a throw-away network namespace, and prints
//! them again.
//!
//! It changes nothing outside of that namespace. Root has one by `unshare -n`; anybody else by `unshare -Urn`, where nft takes some
//! 450 rules at once (measured; "Message too long" above), so they are given in pieces of 100. The same text is not tried
//! twice. Where neither is possible, the caller reads the text itself.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::Duration};

use sha2::{Digest as _, Sha256};

use super::{Family, run};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As iptables-save printed them.
    Printed(String),
    /// iptables-restore refused them, at this line of the text.
    Refused { line: Option<usize>, message: String },
    /// It could not be tried.
    NotPossible(String),
}

/// What is tried: one text each is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    File,
    /// A rule of the policy, by its place there.
    Wanted(usize),
}

#[derive(Debug, Default)]
pub(crate) struct Canonical {
    tried: BTreeMap<(Family, What), ([u8; 32], Outcome)>,
}

impl Canonical {
    /// Restores `text` by `restore`, and prints it by `save`.
    pub(crate) async fn of(
        &mut self,
        family: Family,
        what: What,
        (restore, save): (&Path, &Path),
        text: &str,
        within: Duration,
    ) -> Outcome {
        let mut digest = Sha256::new();
        digest.update(restore.as_os_str().as_encoded_bytes());
        digest.update(text.as_bytes());
        let digest: [u8; 32] = digest.finalize().into();
        if let Some((known, outcome)) = self.tried.get(&(family, what))
            && *known == digest
        {
            return outcome.clone();
        }
        let attempt = tokio::time::timeout(within, attempt(restore, save, text)).await;
        let outcome = attempt.unwrap_or_else(|_| Outcome::NotPossible(format!("not done within {within:?}")));
        self.tried.insert((family, what), (digest, outcome.clone()));
        outcome
    }
}

async fn attempt(restore: &Path, save: &Path, text: &str) -> Outcome {
    let (Some(unshare), Some(shell)) = (run::find("unshare"), run::find("sh")) else {
        return Outcome::NotPossible("`unshare` is not installed".to_owned());
    };
    let pieces = Pieces::of(text);
    let (restore, save, shell) = (restore.to_string_lossy(), save.to_string_lossy(), shell.to_string_lossy());
    let mut why = String::new();
    let ways: &[&str] = if rustix::process::geteuid().is_root() { &["-n", "-Urn"] } else { &["-Urn"] };
    for &way in ways {
        let is_whole = way == "-n";
        let (text, noflush) = if is_whole { (text, "") } else { (pieces.text.as_str(), "--noflush") };
        let script = r#""$1" $3 && exec "$2""#;
        let arguments = [way, "--", &*shell, "-c", script, "sh", &*restore, &*save, noflush];
        let said = match run::run(&unshare, &arguments, text.as_bytes()).await {
            Ok(said) => said,
            Err(e) => return Outcome::NotPossible(format!("`unshare` cannot be run: {e}")),
        };
        if said.code == Some(0) {
            return Outcome::Printed(said.output);
        }
        why = said.why();
        if !is_about_rights(&why) {
            let line = failed_line(&why);
            let line =
                if is_whole { line } else { line.and_then(|line| pieces.lines.get(line.checked_sub(1)?).copied()) };
            return Outcome::Refused { line, message: why };
        }
    }
    Outcome::NotPossible(why)
}

/// It failed for want of rights or of kernel modules, which says nothing of the rules.
fn is_about_rights(why: &str) -> bool {
    const SIGNS: &[&str] = &[
        "unshare:",
        "Operation not permitted",
        "Permission denied",
        "missing kernel module",
        "you must be root",
        "Could not fetch rule set generation id",
        "Table does not exist",
    ];
    SIGNS.iter().any(|sign| why.contains(sign))
}

/// `Error occurred at line: 5`, `iptables-restore: line 9 failed`.
fn failed_line(why: &str) -> Option<usize> {
    let (_, after) = why.split_once("line: ").or_else(|| why.split_once("line "))?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A text in pieces of 100 rules, each a table of its own for `--noflush`, and of which line each line is.
struct Pieces {
    text: String,
    lines: Vec<usize>,
}

const PIECE: usize = 100;

impl Pieces {
    fn of(text: &str) -> Self {
        let mut pieces = Self { text: String::new(), lines: Vec::new() };
        let (mut table, mut rules) = ("", 0);
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.starts_with('*') {
                (table, rules) = (line, 0);
            } else if line.starts_with('-') || line.starts_with('[') {
                if rules == PIECE && !table.is_empty() {
                    pieces.add(number, "COMMIT");
                    pieces.add(number, table);
                    rules = 0;
                }
                rules += 1;
            }
            pieces.add(number, line);
        }
        pieces
    }

    fn add(&mut self, number: usize, line: &str) {
        self.lines.push(number);
        writeln!(self.text, "{line}").ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_table_is_cut_in_pieces() {
        let rules: Vec<String> = (0..250).map(|i| format!("-A INPUT -s 10.0.0.{i} -j DROP\n")).collect();
        let text = format!("# head\n*filter\n:INPUT DROP\n{}COMMIT\n*raw\nCOMMIT\n", rules.concat());
        let pieces = Pieces::of(&text);
        let lines: Vec<&str> = pieces.text.lines().collect();
        assert_eq!(lines.iter().filter(|line| **line == "*filter").count(), 3);
        assert_eq!(lines.iter().filter(|line| line.starts_with(":INPUT")).count(), 1, "a policy is set once");
        assert_eq!(lines.len(), pieces.lines.len());
        assert_eq!(lines.iter().filter(|line| line.starts_with("-A")).count(), 250);
        let all: Vec<&str> = text.lines().collect();
        for (line, number) in lines.iter().zip(&pieces.lines).filter(|(line, _)| line.starts_with("-A")) {
            assert_eq!(*line, all[number - 1]);
        }
    }

    #[test]
    fn which_line_was_refused() {
        for (why, line) in [
            ("iptables-restore v1.8.9 (nf_tables): invalid port; Error occurred at line: 5", Some(5)),
            ("iptables-restore: line 9 failed", Some(9)),
            ("it was killed", None),
        ] {
            assert_eq!(failed_line(why), line, "{why}");
        }
    }

    /// With this machine's iptables, as whoever runs the test.
    #[tokio::test]
    async fn rules_are_printed_as_the_kernel_has_them() {
        let (Some(restore), Some(save)) = (run::find("iptables-nft-restore"), run::find("iptables-nft-save")) else {
            return;
        };
        let mut canonical = Canonical::default();
        let text = "*raw\n-A PREROUTING -p 6 --dport 6379:6379 ! --source 172.16.0.0/255.240.0.0 -j DROP\nCOMMIT\n";
        let within = Duration::from_secs(20);
        let said = canonical.of(Family::V4, What::File, (&restore, &save), text, within).await;
        if let Outcome::NotPossible(_) = said {
            return;
        }
        let Outcome::Printed(printed) = said else { panic!("{said:?}") };
        assert!(printed.contains("-A PREROUTING ! -s 172.16.0.0/12 -p tcp -m tcp --dport 6379 -j DROP\n"), "{printed}");
        let broken = text.replace("6379:6379", "fifty");
        let said = canonical.of(Family::V4, What::File, (&restore, &save), &broken, within).await;
        let Outcome::Refused { line, message } = said else { panic!("{said:?}") };
        assert_eq!(line, Some(2), "{message}");
    }
}
