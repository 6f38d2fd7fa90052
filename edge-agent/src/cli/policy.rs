//! `policy`: what the policy would have done to the host, for `deploy/harden`, which does it.
//!
//! Lines for programs: words apart by tabs, the first says what the line is. Nothing is changed here.

use std::{fmt::Write as _, net::ToSocketAddrs as _, process::ExitCode};

use anyhow::{Context as _, bail};
use charliehub_proto::policy::Policy;
use clap::{Subcommand, ValueEnum};

use super::print;
use crate::{
    config::Config,
    expect,
    firewall::{
        Firewall,
        cuts::{Flow, cuts},
        plan::Plan,
    },
    host::files,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the steps from what is to what the policy wants, of firewall rules and of files
    ///
    /// `live WHAT COMMAND UNDO`, `table FAMILY NAME`, `saved FAMILY FILE`, `mode PATH MODE:USER:GROUP NOW`,
    /// `left WHAT REMEDY`, `restored FAMILY yes|no`; apart by tabs. Exit code 1 when there is a step.
    Plan,
    /// Print a saved file as it must be: with the policy's rules
    Saved { family: Family },
    /// Tell which rules of the policy would refuse a connection from this host: exit code 1 when one would
    Cuts {
        /// Such as 127.0.0.1:5432
        #[arg(required = true, value_name = "HOST:PORT")]
        addresses: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

pub(super) async fn run(config: &Config, command: &Command) -> anyhow::Result<ExitCode> {
    let policy = expect::merge(expect::held(config).unwrap_or_default(), config).policy;
    match command {
        Command::Plan => plan(config, &policy).await,
        Command::Saved { family } => saved(config, &policy, *family).await,
        Command::Cuts { addresses } => cut(&policy, addresses),
    }
}

async fn firewall(config: &Config, policy: &Policy) -> anyhow::Result<Vec<Plan>> {
    let Some(policy) = &policy.firewall else { return Ok(Vec::new()) };
    let plans = Firewall::plan(&config.firewall, policy).await;
    if plans.is_empty() {
        bail!("the firewall could not be looked at");
    }
    Ok(plans)
}

async fn plan(config: &Config, policy: &Policy) -> anyhow::Result<ExitCode> {
    let (settings, rules) = (config.host.clone(), policy.files.clone());
    let files = tokio::task::spawn_blocking(move || files::plan(&settings, &rules)).await?;
    let mut text = String::new();
    let mut steps = files.modes.len();
    for Plan { family, live, tables, file, saved, left, is_restored } in firewall(config, policy).await? {
        steps += live.len() + usize::from(saved.is_some());
        for (family, table) in &tables {
            line(&mut text, &["table", family, table]);
        }
        for step in &live {
            line(&mut text, &["live", &step.what, &step.command, &step.undo]);
        }
        if saved.is_some() {
            line(&mut text, &["saved", family, &file]);
        }
        line(&mut text, &["restored", family, if is_restored { "yes" } else { "no" }]);
        for one in &left {
            line(&mut text, &["left", &one.what, &one.remedy]);
        }
    }
    for files::Mode { path, wanted, now } in &files.modes {
        let rights = |(mode, uid, gid): files::Rights| format!("{mode:04o}:{uid}:{gid}");
        line(&mut text, &["mode", &path.to_string_lossy(), &rights(*wanted), &rights(*now)]);
    }
    for (what, remedy) in &files.left {
        line(&mut text, &["left", what, remedy]);
    }
    print(&text)?;
    Ok(ExitCode::from(u8::from(steps > 0)))
}

/// One line, whatever is in its words.
fn line(text: &mut String, words: &[&str]) {
    let plain = |word: &&str| word.chars().map(|one| if one.is_control() { ' ' } else { one }).collect::<String>();
    let words: Vec<String> = words.iter().map(plain).collect();
    let _ = writeln!(text, "{}", words.join("\t"));
}

async fn saved(config: &Config, policy: &Policy, family: Family) -> anyhow::Result<ExitCode> {
    let family = match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    };
    let plans = firewall(config, policy).await?;
    let plan = plans.into_iter().find(|plan| plan.family == family).context("the policy has no firewall")?;
    match plan.saved {
        Some(text) => print(&text)?,
        None => bail!("{} is as the policy wants it", plan.file),
    }
    Ok(ExitCode::SUCCESS)
}

fn cut(policy: &Policy, addresses: &[String]) -> anyhow::Result<ExitCode> {
    let mut found = false;
    for given in addresses {
        let (host, port) = given.rsplit_once(':').with_context(|| format!("`{given}` lacks its port: HOST:PORT"))?;
        let port: u16 = port.parse().with_context(|| format!("`{given}`: its port is a number"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let all = (host, port).to_socket_addrs().with_context(|| format!("{host} has no address"))?;
        for to in all {
            let Ok(flow) = Flow::to(to) else { continue }; // no way there now: nothing to cut
            for name in policy.firewall.as_ref().map(|policy| cuts(policy, flow)).unwrap_or_default() {
                found = true;
                print(&format!("{given} is {to} from {}: `{name}` would refuse it\n", flow.from))?;
            }
        }
    }
    Ok(ExitCode::from(u8::from(found)))
}
