//! `check`: a table for people, JSON for programs, an exit code for monitors.

use std::{fmt::Write as _, io::IsTerminal as _, process::ExitCode, time::Duration};

use bytes::Bytes;
use charliehub_proto::finding::{Finding, Status};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::{net::TcpStream, time::timeout};

use super::print;
use crate::{config::Config, expect, groups};

/// A running agent answers at once, or there is none.
const PATIENCE: Duration = Duration::from_secs(2);

/// Of a look of our own.
const LOOK: Duration = Duration::from_secs(3);

/// What `check` shows.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) findings: Vec<Finding>,
    /// Found by a look of our own, because no agent runs.
    pub(super) is_own: bool,
}

pub(super) async fn run(config: &Config, json: bool, quiet: bool) -> anyhow::Result<ExitCode> {
    let mut found = Box::pin(find(config)).await;
    let worst = found.findings.iter().map(|finding| finding.status).max();
    let worst = worst.unwrap_or(Status::Unknown);
    if quiet {
        found.findings.retain(|finding| finding.status != Status::Ok);
    }
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&found.findings)?))?;
    } else {
        print(&text(&found, worst, std::io::stdout().is_terminal(), Timestamp::now()))?;
    }
    Ok(ExitCode::from(worst.code()))
}

/// What the running agent believes, else what one look sees.
pub(super) async fn find(config: &Config) -> Found {
    if let Some(findings) = timeout(PATIENCE, ask(config)).await.ok().flatten() {
        return Found { findings, is_own: false };
    }
    let expected = expect::merge(expect::held(config).unwrap_or_default(), config);
    let once = Box::pin(groups::once(config, expected, LOOK)).await;
    let mut findings = once.shared.findings.all();
    let now = Timestamp::now();
    findings.extend(once.unconfirmed.into_iter().map(|mut sample| {
        sample.text += " (not confirmed: too few looks)";
        sample.believed(now, now)
    }));
    findings.sort_by(|a, b| (&a.check, &a.target).cmp(&(&b.check, &b.target)));
    Found { findings, is_own: true }
}

/// Whether an agent runs here.
pub(super) async fn is_running(config: &Config) -> bool {
    timeout(PATIENCE, ask(config)).await.is_ok_and(|answer| answer.is_some())
}

async fn ask(config: &Config) -> Option<Vec<Finding>> {
    let stream = TcpStream::connect(config.listen).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = http::Request::get("/findings").header("host", config.listen.to_string());
    let request = request.body(Empty::<Bytes>::new()).ok()?;
    let answer = async {
        let body = sender.send_request(request).await.ok()?.into_body().collect().await.ok()?.to_bytes();
        serde_json::from_slice(&body).ok()
    };
    tokio::select! { answer = answer => answer, _ = connection => None }
}

/// The table, its worst lines first; below a line that is not ok, what mends it.
fn text(found: &Found, worst: Status, colour: bool, now: Timestamp) -> String {
    let count = |status| found.findings.iter().filter(|finding| finding.status == status).count();
    let counts: Vec<String> = [Status::Critical, Status::Warning, Status::Unknown, Status::Ok]
        .into_iter()
        .filter(|status| count(*status) > 0)
        .map(|status| format!("{} {status}", count(status)))
        .collect();
    let counts =
        if counts.is_empty() { "nothing is expected, so nothing was looked at".to_owned() } else { counts.join(", ") };
    let mut text = format!("{}: {counts}\n", painted(worst, &worst.as_str().to_uppercase(), colour));
    if found.is_own {
        text += "no agent runs here: this is one look, and what it saw once may be less than it seems\n";
    }
    let mut lines: Vec<&Finding> = found.findings.iter().collect();
    lines.sort_by(|a, b| b.status.cmp(&a.status).then((&a.check, &a.target).cmp(&(&b.check, &b.target))));
    let widest = |cell: fn(&Finding) -> &str| lines.iter().map(|line| cell(line).chars().count()).max().unwrap_or(0);
    let (check, target) = (widest(|line| &line.check), widest(|line| &line.target).min(48));
    for line in lines {
        let status = painted(line.status, &format!("{:<8}", line.status.as_str()), colour);
        let _ = write!(text, "{status}  {:<check$}  {:<target$}  {}", line.check, line.target, line.text);
        let action = line.action.as_ref().map(ToString::to_string);
        if line.status == Status::Ok {
            text.push('\n');
            details(&mut text, &[("did", &action)]);
            continue;
        }
        let _ = writeln!(text, " ({})", lasted(line.since, now));
        let Finding { observed, expected, source, remedy, .. } = line;
        details(
            &mut text,
            &[("seen", observed), ("expected", expected), ("where", source), ("did", &action), ("mend", remedy)],
        );
    }
    text
}

/// Those that are there, a line each.
fn details(text: &mut String, details: &[(&str, &Option<String>)]) {
    for (what, detail) in details {
        if let Some(detail) = detail {
            let _ = writeln!(text, "          {what:<8}  {detail}");
        }
    }
}

fn lasted(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn painted(status: Status, text: &str, colour: bool) -> String {
    let code = match status {
        Status::Ok => 32,
        Status::Warning => 33,
        Status::Critical => 31,
        Status::Unknown => 35,
    };
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(check: &str, status: Status) -> Finding {
        Finding {
            check: check.to_owned(),
            target: "wg-uk".to_owned(),
            site: None,
            status,
            text: "it".to_owned(),
            observed: None,
            expected: None,
            source: None,
            remedy: (status != Status::Ok).then(|| "ip link set wg-uk up".to_owned()),
            action: None,
            since: Timestamp::from_second(1_000).unwrap(),
            seen: Timestamp::from_second(1_000).unwrap(),
        }
    }

    #[test]
    fn the_worst_comes_first_with_what_mends_it() {
        let findings = vec![finding("wg-peer", Status::Ok), finding("wg-interface", Status::Critical)];
        let found = Found { findings, is_own: false };
        let text = text(&found, Status::Critical, false, Timestamp::from_second(1_300).unwrap());
        assert_eq!(
            text,
            "CRITICAL: 1 critical, 1 ok\n\
             critical  wg-interface  wg-uk  it (5 min)\n          mend      ip link set wg-uk up\n\
             ok        wg-peer       wg-uk  it\n"
        );
    }
}
