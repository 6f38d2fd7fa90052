//! `check`: looks at everything that can be set up wrongly, in the order in which a person would mend it.
//!
//! Each line is a state, what was found, and what to do. Nothing is changed, but for a notification that we send to
//! ourselves.

mod postgres;
mod tls;
mod traefik;

use std::process::ExitCode;

use super::{database, output};
use crate::{config::Config, rehearse};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Ok,
    Warning,
    Critical,
}

/// What was found, and what to do about it (empty when it is well).
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    state: State,
    what: String,
    remedy: String,
}

impl Finding {
    fn ok(what: impl Into<String>) -> Self {
        Self { state: State::Ok, what: what.into(), remedy: String::new() }
    }

    fn warning(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Warning, what: what.into(), remedy: remedy.into() }
    }

    fn critical(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Critical, what: what.into(), remedy: remedy.into() }
    }

    fn line(&self) -> String {
        let state = match self.state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Critical => "critical",
        };
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("{state:<8}  {}  {}", one_line(&self.what), one_line(&self.remedy)).trim_end().to_owned() + "\n"
    }
}

/// Prints each finding as soon as it is known. Exit code 1 when one is critical.
pub(super) async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let mut worst = State::Ok;
    let mut tell = |findings: Vec<Finding>| -> anyhow::Result<()> {
        for finding in findings {
            worst = worst.max(finding.state);
            output::print(&finding.line())?;
        }
        Ok(())
    };
    tell(configuration(config))?;
    if let Some(files) = &config.serve.tls {
        tell(tls::check(files, jiff::Timestamp::now()))?;
    }
    let looked = database::with(config, async |opened| Ok(postgres::check(opened).await)).await;
    tell(looked.unwrap_or_else(|error| vec![Finding::critical(format!("database: {error:#}"), "")]))?;
    tell(vec![Finding::ok(traefik::static_configuration(config))])?;
    tell(rehearsal(config).await)?;
    let served = if config.traefik.is_empty() { None } else { traefik::served(config).await };
    for traefik in &config.traefik {
        tell(traefik::check(traefik, config, served.as_ref()).await)?;
    }
    Ok(if worst == State::Critical { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Can changes be tried on a Traefik first?
async fn rehearsal(config: &Config) -> Vec<Finding> {
    let Some(traefik) = &config.rehearse.traefik else {
        return vec![Finding::ok("rehearsals: off; `rehearse.traefik` would name a Traefik to try changes on")];
    };
    vec![match rehearse::version(traefik).await {
        Ok(version) => Finding::ok(format!("rehearsals: Traefik {version}, {}", traefik.display())),
        Err(error) => Finding::critical(
            format!("rehearsals: {:#}", anyhow::Error::from(error)),
            "set `rehearse.traefik` to the Traefik binary that the edge runs",
        ),
    }]
}

fn configuration(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::ok(format!("configuration: listens on {}", config.serve.listen))];
    let data_dir = &config.serve.data_dir;
    findings.push(match std::fs::metadata(data_dir) {
        Ok(found) if found.is_dir() => Finding::ok(format!("data directory: {}", data_dir.display())),
        Ok(_) => Finding::critical(
            format!("data directory: {} is not a directory", data_dir.display()),
            "move it away, or set `serve.data_dir`",
        ),
        Err(_) => Finding::warning(
            format!("data directory: {} is not there yet", data_dir.display()),
            "`serve` makes it at its first start",
        ),
    });
    if config.serve.insecure && config.serve.tls.is_none() && !config.serve.listen.ip().is_loopback() {
        findings.push(Finding::warning(
            "tokens cross the network in the clear",
            "set `serve.tls_certificate` and `serve.tls_key`",
        ));
    }
    if config.self_url(config.serve.listen).is_none() {
        findings.push(Finding::warning(
            "`compile.self_url` is not set, and the listen address is none to call: maintenance pages stay bare",
            "set it to our address as Traefik sees it",
        ));
    }
    if config.access.internal_networks.is_empty() {
        findings.push(Finding::warning(
            "`access.internal_networks` is empty: rows with access_tier internal answer 503",
            "name the networks of your sites",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line() {
        let finding = Finding::warning("two\nlines", "mend it");
        assert_eq!(finding.line(), "warning   two lines  mend it\n");
        assert_eq!(Finding::ok("well").line(), "ok        well\n");
    }
}
