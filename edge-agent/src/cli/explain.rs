//! `explain`: what a check looks at, why, and what it finds now.

use std::{fmt::Write as _, process::ExitCode};

use charliehub_proto::finding::Status;

use super::{check, print};
use crate::{act, catalogue::Check, certificates, config::Config, dns, firewall, host, state, wireguard};

fn all() -> impl Iterator<Item = &'static Check> {
    [wireguard::CHECKS, firewall::CHECKS, certificates::CHECKS, dns::CHECKS, host::CHECKS, act::CHECKS, state::CHECKS]
        .into_iter()
        .flatten()
}

pub(super) async fn run(config: &Config, name: Option<&str>) -> anyhow::Result<ExitCode> {
    let Some(name) = name else {
        let widest = all().map(|check| check.name.len()).max().unwrap_or(0);
        let lines: Vec<String> = all().map(|check| format!("{:<widest$}  {}\n", check.name, check.what)).collect();
        print(&lines.concat())?;
        return Ok(ExitCode::SUCCESS);
    };
    let Some(wanted) = all().find(|check| check.name == name) else {
        let nearest = all().map(|check| check.name).min_by_key(|known| strsim::damerau_levenshtein(known, name));
        anyhow::bail!(
            "there is no check `{name}`; did you mean `{}`? `explain` alone lists all",
            nearest.unwrap_or("")
        );
    };
    let mut text = format!("{}: {}\n\n{}\n\n", wanted.name, wanted.what, wrapped(wanted.why));
    let found = Box::pin(check::find(config)).await;
    let mut findings = found.findings.iter().filter(|finding| finding.check == wanted.name).peekable();
    if findings.peek().is_none() {
        text += "Now: no target is expected here.\n";
    }
    for finding in findings {
        let _ = writeln!(text, "Now: {} {}: {}", finding.target, finding.status, finding.text);
        if let Some(remedy) = finding.remedy.as_ref().filter(|_| finding.status != Status::Ok) {
            let _ = writeln!(text, "     mend: {remedy}");
        }
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// In lines of at most 100 characters.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() || line.chars().count() + 1 + word.chars().count() <= 100 => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_is_explained_once() {
        let names: Vec<&str> = all().map(|check| check.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for check in all() {
            assert!(!check.what.is_empty() && check.why.len() > 40, "{}", check.name);
        }
    }

    #[test]
    fn lines_are_wrapped_between_words() {
        let text = wrapped(&"word ".repeat(50));
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.len() <= 100));
    }
}
