//! The commands: `run` watches, `check` tells what is found, `explain` what a check is.

mod apply;
mod check;
mod document;
mod explain;
mod policy;
mod rotate;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use tracing_subscriber::EnvFilter;

use crate::{
    app,
    config::{self, Config},
};

/// Holds an edge host against what it should be: tunnels, firewall, certificates, files and services.
///
/// It changes nothing on the host, unless its settings let it ([act]). What it finds is at /findings and /metrics of its listen address, in `check`, and at the
/// provider.
#[derive(Debug, Parser)]
#[command(name = "charliehub-edge-agent", version)]
pub struct Cli {
    /// Settings, TOML
    #[arg(short, long, global = true, value_name = "FILE", help = format!("Settings, TOML [default: {}]", config::DEFAULT))]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch, and tell the provider; SIGHUP reads the settings again
    Run,
    /// Tell what is found: of the running agent, else by one look of its own (3 s at most)
    ///
    /// Exit code 0 ok, 1 warning, 2 critical, 3 unknown: the worst of all, as monitoring plug-ins have it.
    Check {
        /// One JSON array of findings
        #[arg(long)]
        json: bool,
        /// Only what is not ok
        #[arg(short, long)]
        quiet: bool,
    },
    /// Tell what a check looks at, why, and what it finds now
    Explain {
        /// Its name, such as wg-handshake; without one, all names
        check: Option<String>,
    },
    /// Tell what the policy would have done to the host; `deploy/harden` does it
    #[command(subcommand)]
    Policy(policy::Command),
    /// Exchange the key of this end of a site's tunnel; both ends go back by themselves if the new one fails
    ///
    /// Where `[[act.rotate]]` lets it. The agent at the site follows; where there is none, what to run there is printed, and waited
    /// for. Exit code 0 when the new key stays, 1 when the old one does.
    RotateKeys {
        /// As its row calls it
        site: String,
        /// Only tell what is in the way
        #[arg(long)]
        dry_run: bool,
    },
    /// Bring the peers of an interface to what the rows say, and print what changes
    ///
    /// `+` is added, `-` removed, `~` changed; a peer that is right is not touched. It goes by what the provider said last and by the
    /// settings, as the running agent does where [[act.peers]] lets it. Exit code 0 done, or nothing differs; 1 something differs and
    /// this is a dry run; 3 it is refused.
    Apply {
        /// Such as wg-clients; without one, those of [[act.peers]]
        interface: Option<String>,
        /// Only print
        #[arg(long)]
        dry_run: bool,
        /// The peer too by which this host is managed, several without a row, and while a file holds it
        #[arg(long)]
        force: bool,
        /// One JSON array, an object for each interface
        #[arg(long)]
        json: bool,
    },
    /// Print what a shell needs to complete commands and flags
    Completions { shell: Shell },
    /// Write the manual pages, one for each command
    #[command(hide = true)]
    Man { directory: PathBuf },
}

/// Runs the command of the process's arguments.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let path = cli.config.as_deref();
    let written = match &cli.command {
        Command::Completions { shell } => Some(print(&document::completions(*shell)).map_err(Into::into)),
        Command::Man { directory } => Some(document::man(directory)),
        Command::Run
        | Command::Check { .. }
        | Command::Explain { .. }
        | Command::Policy(_)
        | Command::RotateKeys { .. }
        | Command::Apply { .. } => None,
    };
    if let Some(written) = written {
        return ended(written.map(|()| ExitCode::SUCCESS));
    }
    let done = Config::load(path).map_err(anyhow::Error::from).and_then(|config| {
        start_log(&config, matches!(cli.command, Command::Run));
        // A second provider of cryptography in the tree would make rustls ask which one.
        rustls::crypto::ring::default_provider().install_default().ok();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            match cli.command {
                Command::Run => app::run(path, config).await.map(|()| ExitCode::SUCCESS),
                Command::Check { json, quiet } => check::run(&config, json, quiet).await,
                Command::Explain { check } => explain::run(&config, check.as_deref()).await,
                Command::Policy(command) => policy::run(&config, &command).await,
                Command::RotateKeys { site, dry_run } => rotate::run(config, &site, dry_run).await,
                Command::Apply { interface, dry_run, force, json } => {
                    apply::run(&config, interface.as_deref(), apply::How { dry_run, force, json }).await
                }
                Command::Completions { .. } | Command::Man { .. } => Ok(ExitCode::SUCCESS), // done above, without settings
            }
        })
    });
    ended(done)
}

/// The exit code of what was done; what kept it from being done goes to stderr.
fn ended(done: anyhow::Result<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|error| {
        let line = format!("{error:#}").trim_end().to_owned();
        drop(writeln!(io::stderr(), "error: {line}"));
        ExitCode::from(UNKNOWN)
    })
}

/// What a monitoring plug-in says that could not find out.
const UNKNOWN: u8 = 3;

fn start_log(config: &Config, runs: bool) {
    let filter = EnvFilter::new(if runs { config.log.filter.as_str() } else { "off" });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if config.log.json {
        log.json().flatten_event(true).init();
    } else {
        log.with_ansi(io::stderr().is_terminal()).init();
    }
}

/// Prints a result. A reader that went away (`| head`) is no error.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
