//! The unit that runs a tunnel, `wg-quick@IF.service`: whether it may be restarted (judged: p), and its restart.

use std::{path::PathBuf, time::Duration};

use tokio::time::timeout;

use super::super::right::Obstacle;
use crate::firewall::run;

/// `wg-quick` waits for names that cannot be resolved.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn of(interface: &str) -> String {
    format!("wg-quick@{interface}.service")
}

/// What stands in the way of restarting it.
pub(super) async fn may_restart(unit: &str) -> Result<(), Obstacle> {
    let remedy = "run the agent where systemd is process 1 and its bus can be reached: `systemctl show` must work for the agent's user";
    let said = systemctl(&["show", "--no-pager", "--property=LoadState,ActiveState", "--", unit]).await;
    let said = said.map_err(|why| Obstacle::unknown(format!("{unit} cannot be looked at: {why}"), remedy))?;
    judge(unit, &said)
}

fn judge(unit: &str, said: &str) -> Result<(), Obstacle> {
    let of = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    match (of("LoadState"), of("ActiveState")) {
        ("loaded", "active" | "failed") => Ok(()),
        ("loaded", "inactive") => Err(Obstacle::warning(
            format!("{unit} was stopped, or never started: it is left alone"),
            format!("systemctl start {unit}; from then on it is started again when it is gone"),
        )),
        ("loaded", state) => {
            Err(Obstacle::warning(format!("{unit} is {state}"), format!("wait, or see `systemctl status {unit}`")))
        }
        ("masked", _) => {
            Err(Obstacle::warning(format!("{unit} is masked: it is left alone"), format!("systemctl unmask {unit}")))
        }
        (..) => Err(Obstacle::unknown(
            format!("there is no {unit} here"),
            "install wireguard-tools and run the tunnel by it, or leave the site out of [[act.restart]]",
        )),
    }
}

/// Until it has ended well.
pub(super) async fn restart(unit: &str) -> Result<(), String> {
    systemctl(&["restart", "--no-ask-password", "--", unit]).await.map(drop).map_err(|why| {
        let is_refused = why.contains("authentication required") || why.contains("Access denied");
        if is_refused { format!("{why}; the agent's user needs the rule of polkit beside its manual") } else { why }
    })
}

async fn systemctl(arguments: &[&str]) -> Result<String, String> {
    // Not all have it where an agent's PATH leads.
    let program =
        run::find("systemctl").or_else(|| Some(PathBuf::from("/usr/bin/systemctl")).filter(|file| file.is_file()));
    let program = program.ok_or("there is no `systemctl`")?;
    let said = timeout(PATIENCE, run::run(&program, arguments, b"")).await;
    let said = said.map_err(|_| format!("it did not end within {} s", PATIENCE.as_secs()))?;
    let said = said.map_err(|error| error.to_string())?;
    if said.code == Some(0) {
        return Ok(said.output);
    }
    let why = said.why(); // the lines after the first one say where to read more
    Err(why.split("; ").next().unwrap_or_default().trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use charliehub_proto::finding::Status;

    use super::*;

    #[test]
    fn what_somebody_stopped_is_left_alone() {
        let judged = |load: &str, active: &str| {
            let judged = judge("wg-quick@wg-fr.service", &format!("LoadState={load}\nActiveState={active}\n"));
            judged.err().map(|obstacle| (obstacle.status, obstacle.text))
        };
        assert_eq!((judged("loaded", "active"), judged("loaded", "failed")), (None, None));
        for (load, active, status, words) in [
            ("loaded", "inactive", Status::Warning, "was stopped, or never started"),
            ("loaded", "activating", Status::Warning, "wg-quick@wg-fr.service is activating"),
            ("masked", "inactive", Status::Warning, "is masked"),
            ("not-found", "inactive", Status::Unknown, "there is no wg-quick@wg-fr.service"),
            ("", "", Status::Unknown, "there is no"),
        ] {
            let (said, text) = judged(load, active).unwrap();
            assert!(said == status && text.contains(words), "{load} {active}: {said} {text}");
        }
    }
}
