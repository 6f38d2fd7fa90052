//! A provider's API as these commands see it: where it is, with which token, and what an answer that is none means.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use charliehub_proto::{domain::Domain, problem::Problem};
use charliehub_secret::Source;
use clap::Args;
use http::{HeaderValue, Request, Response, Uri, header};
use serde_json::Value;

use super::{
    decoded,
    request::{Ask, List, Wanted},
    text,
};
use crate::{
    cli::output,
    client::{self, Limits, Trust},
    config::Config,
};

/// Longer than a server holds the answer to a write.
const LIMITS: Limits = Limits { patience: Duration::from_secs(30), largest: 64 << 20 };

const VARIABLE: &str = "CHARLIEHUB_SERVER";

/// Flags about the server stand apart from those about rows.
const SERVER: &str = "Server";

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// The provider's API [default: CHARLIEHUB_SERVER, else that of this machine, http://127.0.0.1:8001]
    #[arg(long, global = true, help_heading = SERVER, value_name = "URL", value_parser = server)]
    server: Option<Uri>,
    /// The file with the token to use [default: admin.token of the data directory, for a provider of this machine]
    #[arg(long, global = true, help_heading = SERVER, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The authorities that may have signed the certificate of an https server, as PEM [default: those of this machine]
    #[arg(long, global = true, help_heading = SERVER, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// The API refused it.
#[derive(Debug, thiserror::Error)]
#[error("{}", text::refusal(.0))]
pub(in crate::cli) struct Refused(pub(in crate::cli) Problem);

pub(in crate::cli) struct Api {
    /// Without a slash at the end.
    server: String,
    /// The whole header.
    authorization: HeaderValue,
    trust: Trust,
}

impl Api {
    pub(in crate::cli) fn of(config: &Config, flags: Flags) -> anyhow::Result<Self> {
        let named = match flags.server {
            Some(server) => Some(server),
            None => match std::env::var(VARIABLE) {
                Ok(text) if !text.is_empty() => {
                    Some(server(&text).map_err(|error| anyhow::anyhow!("{VARIABLE}: {error}"))?)
                }
                _ => None,
            },
        };
        let uri = named.map_or_else(|| of_this_machine(config), Ok)?;
        let token = token(config, flags.token_file, &uri)?;
        if uri.scheme_str() == Some("http") && !is_here(&uri) {
            output::hint("warning: the token crosses the network in the clear; use https");
        }
        Ok(Self {
            server: uri.to_string().trim_end_matches('/').to_owned(),
            authorization: token,
            trust: flags.ca.map_or(Trust::System, Trust::Only),
        })
    }

    /// What it answers; a refusal is an error.
    pub(in crate::cli) async fn send(&self, ask: &Ask) -> anyhow::Result<Value> {
        self.exchange(ask).await.map(|(answer, _)| answer)
    }

    /// The rows that are asked for, page by page; and whether there are more of them than that.
    pub(super) async fn list(&self, list: &List) -> anyhow::Result<(Vec<Value>, bool)> {
        let most = list.limit.unwrap_or(usize::MAX);
        let mut rows = Vec::new();
        let mut next = Some(list.ask());
        while let Some(ask) = next {
            let (answer, response) = self.exchange(&ask).await?;
            let Value::Array(page) = answer else { bail!(self.stranger(&response)) };
            rows.extend(page);
            next = following(&response).map(Ask::get);
            if rows.len() >= most {
                let more = next.is_some() || rows.len() > most;
                rows.truncate(most);
                return Ok((rows, more));
            }
        }
        Ok((rows, false))
    }

    /// The one row that is meant.
    pub(super) async fn find(&self, wanted: &Wanted) -> anyhow::Result<Domain> {
        let ask = wanted.ask();
        let Wanted::Named { .. } = wanted else { return decoded(self.send(&ask).await?) };
        let found: Vec<Domain> = decoded(self.send(&ask).await?)?;
        wanted.only(found)
    }

    async fn exchange(&self, ask: &Ask) -> anyhow::Result<(Value, Response<Bytes>)> {
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(format!("{}{}", self.server, ask.path))
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(header::ACCEPT, "application/json");
        if let Some(version) = ask.version {
            request = request.header(header::IF_MATCH, format!("\"{version}\""));
        }
        if let Some(reason) = &ask.reason {
            request = request.header("x-change-reason", reason.clone());
        }
        let body = match &ask.body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(serde_json::to_vec(body)?)
            }
            None => Bytes::new(),
        };
        let response = client::send(request.body(body)?, &self.trust, LIMITS)
            .await
            .with_context(|| format!("no answer from {}; {}", self.server, self.remedy()))?;
        let answer: Option<Value> = serde_json::from_slice(response.body()).ok();
        if response.status().is_success()
            && let Some(answer) = answer
        {
            return Ok((answer, response));
        }
        match answer.and_then(|answer| serde_json::from_value(answer).ok()) {
            Some(problem) => Err(Refused(problem).into()),
            None => bail!(self.stranger(&response)),
        }
    }

    fn remedy(&self) -> &'static str {
        if self.server.starts_with("https:") {
            "is a provider running there, and is its certificate signed by an authority of this machine, or of --ca FILE?"
        } else {
            "is a provider running there? Name another with --server URL"
        }
    }

    fn stranger(&self, response: &Response<Bytes>) -> String {
        let Self { server, .. } = self;
        format!("{server} answers {}, and not as a charliehub-provider does; correct --server", response.status())
    }
}

/// `http://host:port` or `https://host`, with a path where the API is behind one.
fn server(text: &str) -> Result<Uri, String> {
    let wrong = || "write it as http://HOST:PORT or https://HOST".to_owned();
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let is_right = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        && uri.query().is_none();
    if is_right { Ok(uri) } else { Err(wrong()) }
}

/// The provider that the settings are of.
fn of_this_machine(config: &Config) -> anyhow::Result<Uri> {
    let scheme = if config.serve.tls.is_some() { "https" } else { "http" };
    let listen = config.serve.listen;
    let ip = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
    Ok(format!("{scheme}://{}", SocketAddr::new(ip, listen.port())).parse()?)
}

fn is_here(server: &Uri) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

/// The token of the file that was named. That of this machine's administrator is given to no other machine unasked.
fn token(config: &Config, named: Option<PathBuf>, server: &Uri) -> anyhow::Result<HeaderValue> {
    const REMEDY: &str = "name a file that holds a token with --token-file FILE; make one with: charliehub-provider \
                          token create --role editor NAME";
    let file = match named {
        Some(file) => file,
        None if is_here(server) => config.serve.data_dir.join("admin.token"),
        None => bail!("{server} is not this machine, so it is not given its admin.token; {REMEDY}"),
    };
    let source = Source::from(file.as_path());
    let text = source.read().map_err(|error| {
        if let charliehub_secret::Error::Unreadable { path, source } = &error {
            anyhow::anyhow!("the token {} cannot be read: {source}; {REMEDY}", path.display())
        } else {
            anyhow::anyhow!("the token: {error}")
        }
    })?;
    let header = HeaderValue::try_from(format!("Bearer {}", text.trim())).ok();
    let mut header = header.with_context(|| format!("{source} holds no token; {REMEDY}"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Where the next page is, by the `Link` header.
fn following(response: &Response<Bytes>) -> Option<String> {
    let link = response.headers().get(header::LINK)?.to_str().ok()?;
    let (path, rest) = link.strip_prefix('<')?.split_once('>')?;
    rest.contains("rel=\"next\"").then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_url_of_http_or_https_without_a_user() {
        for (text, is_right) in [
            ("http://127.0.0.1:8001", true),
            ("https://edge.example.org", true),
            ("http://[::1]:8001/", true),
            ("edge.example.org", false),
            ("ftp://edge.example.org", false),
            ("http://ann:secret@edge.example.org", false),
            ("http://edge.example.org/?a=b", false),
        ] {
            assert_eq!(server(text).is_ok(), is_right, "{text}");
        }
    }

    #[test]
    fn only_loopback_is_this_machine() {
        for (text, here) in [
            ("http://127.0.0.1:8001", true),
            ("http://localhost", true),
            ("https://[::1]:1", true),
            ("http://10.0.0.1:8001", false),
            ("https://localhost.example.org", false),
        ] {
            assert_eq!(is_here(&text.parse().unwrap()), here, "{text}");
        }
    }

    #[test]
    fn the_next_page_is_where_the_link_says() {
        for (link, path) in [
            ("</api/domains?limit=1&cursor=x>; rel=\"next\"", Some("/api/domains?limit=1&cursor=x")),
            ("</api/domains>; rel=\"prev\"", None),
            ("nonsense", None),
        ] {
            let response = Response::builder().header(header::LINK, link).body(Bytes::new()).unwrap();
            assert_eq!(following(&response).as_deref(), path, "{link}");
        }
    }
}
