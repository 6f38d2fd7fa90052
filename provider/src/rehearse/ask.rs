//! Asks the API of the Traefik under rehearsal.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tokio::time::sleep;

use super::{
    Error,
    harmless::MARKER,
    report::{Found, Part},
    stage::HEADER,
};
use crate::{
    client::Trust,
    running::{self, LISTS, Object},
};

/// Between two questions while it is not there yet: its API has no way to wait.
const AGAIN: Duration = Duration::from_millis(5);

/// The API, for who has the token.
pub(super) struct Api(running::Api);

impl Api {
    pub(super) fn on(port: u16, token: &str) -> Result<Self, Error> {
        let said = |error: http::Error| Error::Api(error.to_string());
        let name = HeaderName::try_from(HEADER).map_err(|error| said(error.into()))?;
        let value = HeaderValue::try_from(token).map_err(|error| said(error.into()))?;
        Ok(Self(running::Api::new(format!("http://127.0.0.1:{port}"), Some((name, value)), Trust::System)))
    }

    /// Its version, as soon as it answers.
    pub(super) async fn until_up(&mut self) -> String {
        loop {
            if let Ok(version) = self.0.version().await {
                return version;
            }
            sleep(AGAIN).await;
        }
    }

    /// Waits until the configuration with this mark runs, all of it.
    pub(super) async fn until_runs(&mut self, mark: &str) {
        while self.0.response_header(MARKER, HEADER).await.ok().flatten().as_deref() != Some(mark) {
            sleep(AGAIN).await;
        }
    }

    /// What does not run as the candidate has it.
    pub(super) async fn found(&mut self) -> Result<Found, Error> {
        let mut found = Found::default();
        for (protocol, kind) in LISTS {
            let objects: Vec<Object> = self.0.list((protocol, kind)).await?;
            let ours = || objects.iter().filter_map(|object| Some((object.ours()?, object)));
            let bad = ours().filter(|(_, object)| object.status != "enabled" || !object.error.is_empty()).map(
                |(name, object)| Part {
                    protocol,
                    name: name.to_owned(),
                    status: object.status.clone(),
                    errors: object.error.clone(),
                },
            );
            match kind {
                "routers" => {
                    found.loaded += ours().count();
                    found.routers.extend(bad);
                }
                "services" => found.services.extend(bad),
                _ => found.middlewares.extend(bad),
            }
        }
        Ok(found)
    }
}

impl From<running::Error> for Error {
    /// Without the remedies, which are about a Traefik of the edge.
    fn from(error: running::Error) -> Self {
        Self::Api(match error {
            running::Error::Unreachable(what) | running::Error::Nonsense(_, what) => what,
            running::Error::Refused(status) => status.to_string(),
            running::Error::Status(path, status) => format!("{status} to {path}"),
        })
    }
}
