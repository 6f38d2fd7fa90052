//! The commands: what each one is called, takes and says.
//!
//! A command prints its result on stdout and all else on stderr. It ends with 0 when it did what it was asked, 1 when it
//! was refused or failed (one line, `error: ...`, with the remedy), 2 when it was called wrongly.

mod agents;
mod audit;
mod backup;
mod check;
mod completions;
mod database;
mod ddns;
mod decide;
mod domains;
mod events;
mod export;
mod health;
mod import;
mod man;
mod matching;
mod migrate;
mod output;
mod peers;
mod psql;
mod rehearse;
mod revisions;
mod rollback;
mod rotations;
mod surface;
mod token;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum, error::ErrorKind};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, Flags, Format},
    decide::Decision,
    rehearse::die_with,
    systemd::Given,
};

/// Serves Traefik's dynamic configuration from PostgreSQL, live in milliseconds.
///
/// Without a command it serves. Settings come from flags, then the environment (CHARLIEHUB_<SECTION>_<KEY> and
/// DATABASE_URL), then the file: /etc/charliehub/provider.toml where it is there and no other is named.
#[derive(Debug, Parser)]
#[command(name = "charliehub-provider", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    serve: Serve,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Flags of every command stand apart from its own.
const SETTINGS: &str = "Settings";

#[derive(Debug, Args)]
struct Global {
    /// The TOML file with the settings
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where tokens, the last good configuration and the private PostgreSQL are kept
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "DIRECTORY")]
    data_dir: Option<String>,
    /// The database, as postgresql://USER@HOST/DATABASE (its password better in a file); none: a private PostgreSQL
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "URL")]
    database_url: Option<String>,
}

#[derive(Debug, Default, Args)]
struct Serve {
    /// Where to listen [default: 127.0.0.1:8001]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Accept plain HTTP on an address that is not loopback
    #[arg(long)]
    insecure: bool,
    /// Leave the database's schema as it is
    #[arg(long)]
    no_migrate: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the configuration to Traefik, and the API (the default)
    Serve(Serve),
    /// Bring the database's schema up to date
    Migrate,
    /// Write the source of truth to one file: rows, history, audit, tokens
    ///
    /// All of the database at one moment, whatever its version, while it is used. The file is as secret as the database;
    /// to encrypt it: charliehub-provider backup - | age -r KEY > FILE
    Backup(backup::Backup),
    /// Bring a backup back, into an empty database
    ///
    /// The file is judged before anything is written, and all is written or nothing. What comes back is held against the
    /// backup: its rows, its digest, its audit. Providers that run notice.
    Restore(backup::Restore),
    /// Say what is not as it should be, and how to mend it
    ///
    /// Looks at the configuration, the database, withheld changes, and the Traefiks. Ends with 1 when something is
    /// critical.
    Check,
    /// Ask a provider whether it serves: for the health checks of containers and load balancers
    ///
    /// Prints what /readyz says, and ends with 1 when it serves nothing or does not answer within 3 s. Needs no token.
    Health(health::Wanted),
    /// Bring a Traefik's dynamic configuration in, as rows and fragments
    ///
    /// Files of Traefik's file provider (YAML, TOML, JSON), or directories with all below them. What a row can say becomes
    /// a row, all else a fragment; a second import of the same files changes nothing. With postgres://.. it takes the table
    /// `domains` of another system instead.
    Import(import::Import),
    /// List, make, change and remove rows, by the API of a provider here or elsewhere
    Domains(Box<domains::Domains>),
    /// List, make and remove the sites behind the hub, by the API of a provider here or elsewhere
    Sites(Box<agents::Sites>),
    /// List the agents on the edge hosts; show and set what they hold reality against
    Agents(Box<agents::Agents>),
    /// List the clients of the VPN, give a new one its configuration, and shut one out
    ///
    /// By the API of a provider here or elsewhere. A client's private key is made where this runs, and stays with the client.
    Peers(Box<peers::Peers>),
    /// Print the Traefik configuration of a revision, as its file provider loads it
    Export(Export),
    /// Tell which route answers a request, whom it lets in, and which others would have taken it
    ///
    /// By the configuration that is served: charliehub-provider match https://a.example.org/x --client-ip 10.44.0.7
    Match(matching::Match),
    /// Let a throw-away real Traefik load a configuration, and print what it says
    ///
    /// The newest rows, or a revision, or a file with Traefik's JSON. Ends with 1 when not all of it would run. Needs
    /// `[rehearse] traefik`.
    Rehearse(Rehearse),
    /// Become a program that ends with the process that started us
    #[command(hide = true)]
    DieWith {
        parent: i32,
        program: OsString,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Print what a shell needs to complete commands and flags
    ///
    /// For bash: charliehub-provider completions bash > /etc/bash_completion.d/charliehub-provider
    Completions { shell: clap_complete::Shell },
    /// Write the manual pages, one for each command
    #[command(hide = true)]
    Man { directory: PathBuf },
    /// Run psql on the configured or private database
    ///
    /// What follows `--` goes to psql: charliehub-provider psql -- -c 'SELECT domain FROM domains'
    Psql {
        /// Arguments of psql
        #[arg(last = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
    /// Make, list and revoke tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Print the description of the API, as OpenAPI 3.1
    Openapi,
    /// List what was changed, by whom, when and why
    Revisions(revisions::List),
    /// List the rotations of tunnels' keys, and how far each is
    Rotations(revisions::List),
    /// Show what is different between two revisions
    Diff(revisions::Diff),
    /// Bring back the rows of an earlier revision, as a new one
    ///
    /// No name gets more open than it is now: rows that the newest revision narrowed are kept so, and named.
    Rollback(rollback::Rollback),
    /// Say who did what, from the audit
    AuditReport(audit::Report),
    /// Tell which names are served, and who reaches them; take names off the internet
    ///
    /// charliehub-provider surface --move-to internal --select '*.example.org' --dry-run
    Surface(surface::Surveyed),
    /// Print what happened lately, or go on printing what happens, by the API of a provider here or elsewhere
    ///
    /// charliehub-provider events --follow --kind refused_routes --kind late
    Events(events::Wanted),
    /// Tell which names in DNS follow which site, what DNS says and what would be done; stop that, and let it go on
    ///
    /// Without a word behind it nothing is changed: a dry run with the settings of this machine.
    Ddns(ddns::Ddns),
    /// List the changes that wait for a decision
    Withheld,
    /// Let a withheld change go live
    Approve {
        /// Its revision, as `withheld` shows it
        revision: i64,
    },
    /// Drop a withheld change; what runs goes on running
    Discard {
        /// Its revision, as `withheld` shows it
        revision: i64,
    },
}

#[derive(Debug, Args)]
struct Export {
    /// How to write it
    #[arg(long, value_enum, default_value_t = Encoding::Yaml)]
    format: Encoding,
    /// Another revision than the one that is served
    #[arg(long, value_name = "N")]
    revision: Option<i64>,
}

#[derive(Debug, Args)]
struct Rehearse {
    /// A file with Traefik's dynamic configuration as JSON
    #[arg(value_name = "FILE", conflicts_with = "revision")]
    file: Option<PathBuf>,
    /// A revision, instead of the newest rows
    #[arg(long, value_name = "N")]
    revision: Option<i64>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Encoding {
    Yaml,
    Json,
}

/// Runs the command that the process's arguments name.
pub fn run() -> ExitCode {
    let (command, flags) = match command_and_flags(Cli::parse()) {
        Ok(parts) => parts,
        Err(error) => error.exit(),
    };
    match execute(command, &flags) {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// `charliehub-provider --listen X` and `charliehub-provider serve --listen X` are one; with other commands the flags of
/// `serve` are a mistake.
fn command_and_flags(cli: Cli) -> Result<(Command, Flags), clap::Error> {
    let Cli { global, serve: outer, command } = cli;
    let command = command.unwrap_or(Command::Serve(Serve::default()));
    let given = outer.listen.is_some() || outer.insecure || outer.no_migrate;
    let inner = match &command {
        Command::Serve(inner) => inner,
        Command::Migrate
        | Command::Backup(_)
        | Command::Restore(_)
        | Command::Check
        | Command::Health(_)
        | Command::Domains(_)
        | Command::Sites(_)
        | Command::Agents(_)
        | Command::Peers(_)
        | Command::Import(_)
        | Command::Export(_)
        | Command::Match(_)
        | Command::Rehearse(_)
        | Command::DieWith { .. }
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Psql { .. }
        | Command::Token(_)
        | Command::Openapi
        | Command::Revisions(_)
        | Command::Rotations(_)
        | Command::Diff(_)
        | Command::Rollback(_)
        | Command::AuditReport(_)
        | Command::Surface(_)
        | Command::Events(_)
        | Command::Ddns(_)
        | Command::Withheld
        | Command::Approve { .. }
        | Command::Discard { .. } => {
            if given {
                let message = "--listen, --insecure and --no-migrate are flags of `serve`";
                return Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
            }
            &outer
        }
    };
    let flags = Flags {
        config: global.config,
        data_dir: global.data_dir,
        database_url: global.database_url,
        listen: inner.listen.clone().or(outer.listen.clone()),
        insecure: inner.insecure || outer.insecure,
        no_migrate: inner.no_migrate || outer.no_migrate,
    };
    Ok((command, flags))
}

fn execute(command: Command, flags: &Flags) -> anyhow::Result<ExitCode> {
    if let Command::DieWith { parent, program, arguments } = &command {
        let error = anyhow::Error::from(die_with(*parent, program, arguments));
        return Err(error.context(format!("cannot run {}", program.display())));
    }
    if let Command::Completions { shell } = &command {
        return completions::run(*shell).map(|()| ExitCode::SUCCESS);
    }
    if let Command::Man { directory } = &command {
        return man::run(directory).map(|()| ExitCode::SUCCESS);
    }
    let given = Given::take();
    let config = Config::load(flags)?;
    start_log(&config, matches!(command, Command::Serve(_)));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let done = match command {
            Command::Serve(_) => crate::app::serve(config, given).await,
            Command::Migrate => migrate::run(&config).await,
            Command::Backup(wanted) => backup::backup(&config, wanted).await,
            Command::Restore(wanted) => backup::restore(&config, wanted).await,
            Command::Check => return check::run(&config).await,
            Command::Health(wanted) => health::run(&config, wanted).await,
            Command::Import(import) => import::run(&config, import).await,
            Command::Domains(domains) => domains::run(&config, *domains).await,
            Command::Sites(wanted) => agents::sites(&config, *wanted).await,
            Command::Agents(wanted) => agents::agents(&config, *wanted).await,
            Command::Peers(wanted) => peers::run(&config, *wanted).await,
            Command::Export(export) => export::run(&config, &export).await,
            Command::Match(wanted) => matching::run(&config, &wanted).await,
            Command::Rehearse(wanted) => return rehearse::run(&config, &wanted).await,
            Command::DieWith { .. } | Command::Completions { .. } | Command::Man { .. } => Ok(()), // done above, without a configuration
            Command::Psql { args } => return psql::run(&config, &args).await,
            Command::Token(command) => token::run(&config, command).await,
            Command::Openapi => openapi(),
            Command::Revisions(list) => revisions::list(&config, &list).await,
            Command::Rotations(list) => rotations::list(&config, &list).await,
            Command::Diff(diff) => revisions::diff(&config, &diff).await,
            Command::Rollback(rollback) => rollback::run(&config, rollback).await,
            Command::AuditReport(report) => return audit::run(&config, &report).await,
            Command::Surface(wanted) => surface::run(&config, wanted).await,
            Command::Events(wanted) => events::run(&config, wanted).await,
            Command::Ddns(wanted) => ddns::run(&config, wanted).await,
            Command::Withheld => decide::withheld(&config).await,
            Command::Approve { revision } => decide::run(&config, revision, Decision::Approve).await,
            Command::Discard { revision } => decide::run(&config, revision, Decision::Discard).await,
        };
        done.map(|()| ExitCode::SUCCESS)
    })
}

fn openapi() -> anyhow::Result<()> {
    Ok(output::print(&format!("{}\n", crate::api::openapi::description().to_pretty_json()?))?)
}

/// Logs go to stderr. A command that ends at once only says what is wrong.
fn start_log(config: &Config, serves: bool) {
    let filter = if serves { config.log.filter.as_str() } else { "warn" };
    let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(std::io::stderr);
    match config.log.format {
        Format::Json => log.json().flatten_event(true).init(),
        Format::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
    }
}

#[cfg(test)]
mod tests;
