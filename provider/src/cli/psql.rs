//! `psql`: psql on our database. The password goes through the environment, which other users cannot read.

use std::{ffi::OsString, io, process::ExitCode};

use anyhow::Context as _;
use tokio::{process::Command, signal};

use super::database;
use crate::config::Config;

pub(super) async fn run(config: &Config, args: &[OsString]) -> anyhow::Result<ExitCode> {
    database::with(config, async |opened| psql(opened, args).await).await
}

async fn psql(opened: &database::Opened, args: &[OsString]) -> anyhow::Result<ExitCode> {
    let mut command = Command::new("psql");
    command.args(args).envs(opened.database.environment());
    let mut child = command.spawn().map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            return anyhow::anyhow!(
                "psql is not installed; install postgresql-client (Debian) or postgresql (Fedora, Alpine)"
            );
        }
        anyhow::Error::from(error).context("psql cannot be started")
    })?;
    // Ctrl-C is for psql, which cancels its query; we stay until it ends, for the private database ends with us.
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.context("psql cannot be awaited")?,
            Ok(()) = signal::ctrl_c() => {}
        }
    };
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
