//! `GET /api/match`: which router answers a request with the config that is served, and what it says to it.

use std::net::IpAddr;

use axum::{
    Json,
    extract::{Request, State},
};
use charliehub_proto::matching::{Answering, Matched};
use tokio::task::spawn_blocking;
use utoipa::IntoParams;

use super::{Api, Problem, kept, query::Parameters};
use crate::matching::{self, Error};

const KNOWN: &[&str] = &["url", "client_ip", "method", "header", "entry_point"];

/// What can be asked for; this is for the description.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described")]
pub(super) struct Asked {
    /// `http://host/path`, `https://host/path` or `tcp://host:port`.
    url: String,
    /// Whom lists of addresses are judged for.
    client_ip: Option<String>,
    /// GET when left out.
    method: Option<String>,
    /// As `Name: value`; again for each one.
    header: Option<Vec<String>>,
    /// `web` for http, `websecure` for https and every one for tcp when left out.
    entry_point: Option<String>,
}

/// `GET /api/match`: which router answers, for whom, and which others would have.
#[utoipa::path(get, operation_id = "match", path = "/api/match", tag = "routes", params(Asked),
    responses((status = 200, body = Matched, description = "The router that answers, if any does"), Problem))]
pub(super) async fn show(State(api): State<Api>, request: Request) -> Result<Json<Matched>, Problem> {
    let asked = asked(Parameters::of(request.uri())?)?;
    let mut matched = judge(&api, asked).await?;
    if let Some(answering) = &mut matched.answer {
        find_owner(&api, &matched.request.host, answering).await?;
    }
    Ok(Json(matched))
}

/// What the config that is served does with a request.
pub(super) async fn judge(api: &Api, asked: matching::Request) -> Result<Matched, Problem> {
    let config = kept::config(api).await?;
    // Ten thousand rules take a while: not where other requests wait.
    let judged = spawn_blocking(move || matching::answer(&config, &asked));
    Ok(judged.await.map_err(|_| Problem::internal())??)
}

/// Which row or fragment answers.
pub(super) async fn find_owner(api: &Api, host: &str, answering: &mut Answering) -> Result<(), Problem> {
    let client = api.pool.get().await?;
    Ok(matching::owner::find(&**client, &api.settings, host, answering).await?)
}

fn asked(mut parameters: Parameters) -> Result<matching::Request, Problem> {
    let url = parameters.take("url").ok_or_else(|| {
        Problem::parameter("url", "it is missing").remedy("write ?url=https://host/path, escaped as %XX")
    })?;
    let client: Option<IpAddr> = parameters.take("client_ip").map(|text| text.parse()).transpose().map_err(|_| {
        Problem::parameter("client_ip", "it is not an address").remedy("write one such as 10.44.0.7, without a port")
    })?;
    let method = parameters.take("method");
    if method.as_deref().is_some_and(|method| http::Method::from_bytes(method.as_bytes()).is_err()) {
        return Err(Problem::parameter("method", "it is not a method").remedy("write one such as POST"));
    }
    let request = matching::Request::parse(&url)?.method(method.as_deref()).from(client);
    let request = request.entry_point(parameters.take("entry_point"));
    let headers = parameters.all("header");
    parameters.done(KNOWN)?;
    Ok(headers.iter().try_fold(request, |request, line| request.header(line))?)
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        let (name, remedy) = match error {
            Error::Url(_) => ("url", "write https://host/path, http://host/path or tcp://host:port"),
            Error::Header(_) => ("header", "write ?header=Name:%20value"),
            Error::ClientIp(_) => ("client_ip", "add &client_ip= with the address that the connection comes from"),
            Error::Config(error) => {
                tracing::error!(%error, "the config that is served cannot be read");
                return Self::internal();
            }
        };
        Self::parameter(name, detail).remedy(remedy)
    }
}
