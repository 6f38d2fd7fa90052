//! What a request says about its write beside the rows: by whom, why, and how far it goes.

use std::time::Duration;

use axum::{body::Bytes, extract::Request};
use charliehub_proto::duration;
use http::{HeaderMap, HeaderValue};
use utoipa::{IntoParams, ToSchema};

use super::{Idempotency, IdempotencyKey, Step};
use crate::{
    api::{Api, Problem, RequestId, address, json, query::Parameters},
    auth::{Caller, Role, Scope},
    author::Author,
    row::Table,
};

/// How long an answer waits to say what is served; with `wait=live`.
const PATIENCE: Duration = Duration::from_secs(1);
const LIVE: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(1);

/// What can be said of a write, for the description; [`Order::of`] reads it.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described")]
pub(in crate::api) struct Writing {
    /// Judged by the database, and rolled back: what would happen.
    dry_run: Option<bool>,
    /// Let a throw-away Traefik load it first; by default for fragments, where one is configured.
    rehearse: Option<bool>,
    /// `live`: up to `timeout` until every Traefik that polls and has an API runs it; `commit`: the answer waits for nothing.
    /// Without it, until it is served.
    #[param(inline)]
    wait: Option<Wait>,
    /// Such as `10s`, at most 60 s.
    timeout: Option<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only described")]
enum Wait {
    Live,
    Commit,
}

/// How a write is to be done.
pub(in crate::api) struct Order {
    pub(super) author: Author,
    pub(super) scope: Scope,
    pub(super) dry_run: bool,
    /// The answer shows no secret.
    pub(super) masked: bool,
    /// `None`: as the kind of row has it.
    rehearse: Option<bool>,
    pub(super) patience: Duration,
    /// Until Traefik runs it.
    pub(super) live: bool,
    pub(super) idempotency: Option<Idempotency>,
}

impl Order {
    /// Reads `?dry_run=`, `?rehearse=`, `?wait=live|commit`, `?timeout=` and the headers of a request.
    pub(in crate::api) fn of(request: &Request, caller: &Caller) -> Result<Self, Problem> {
        let mut parameters = Parameters::of(request.uri())?;
        let dry_run = parameters.flag("dry_run")?;
        if parameters.has("rehearse") && !caller.scope.is_everything() {
            let problem = Problem::parameter("rehearse", "a rehearsal tells of everybody's routes");
            return Err(problem.remedy("leave it out, or use a token without a scope"));
        }
        let rehearse = parameters.has("rehearse").then(|| parameters.flag("rehearse")).transpose()?;
        let (patience, live) = match parameters.take("wait").as_deref() {
            None => (PATIENCE, false),
            Some("commit") => (Duration::ZERO, false),
            Some("live") => (LIVE, true),
            Some(_) => {
                let problem = Problem::parameter("wait", "it is not a way to wait");
                return Err(problem.remedy("write wait=live, or wait=commit for an answer as soon as it is written"));
            }
        };
        let patience = match parameters.take("timeout") {
            None => patience,
            Some(text) => duration::parse(&text).filter(|patience| *patience <= LONGEST).ok_or_else(|| {
                Problem::parameter("timeout", "it is not a time of at most 60 s").remedy("write it as 10s")
            })?,
        };
        parameters.done(&["dry_run", "rehearse", "wait", "timeout"])?;
        let author = author(request, caller);
        let masked = caller.role != Role::Admin;
        let scope = caller.scope.clone();
        Ok(Self { author, scope, dry_run, masked, rehearse, patience, live, idempotency: None })
    }

    /// True when a real Traefik has to load it first: where that is asked for, and for fragments, since nothing but
    /// Traefik itself judges all of what they can say.
    pub(super) fn is_rehearsed(&self, api: &Api, steps: &[Step]) -> bool {
        let fragments = || steps.iter().any(|step| step.table == Table::Fragments);
        self.rehearse.unwrap_or_else(|| api.rehearsal.is_on() && fragments())
    }

    /// The same as a dry run.
    pub(super) fn tried(&self) -> Self {
        let (author, scope) = (self.author.clone(), self.scope.clone());
        let (rehearse, patience) = (Some(false), Duration::ZERO);
        let (dry_run, live) = (true, false);
        Self { author, scope, dry_run, masked: self.masked, rehearse, patience, live, idempotency: None }
    }

    /// The same, and the body: a request with an `Idempotency-Key` counts once.
    pub(in crate::api) async fn with_body(
        request: Request,
        caller: &Caller,
        limit: usize,
    ) -> Result<(Self, Bytes), Problem> {
        let (order, headers) = (Self::of(&request, caller)?, request.headers().clone());
        let body = json::body(request, limit).await?;
        Ok((order.once(&headers, caller, &body)?, body))
    }

    /// Lets the same request count once, when it has an `Idempotency-Key`. A dry run needs none.
    fn once(mut self, headers: &HeaderMap, caller: &Caller, body: &[u8]) -> Result<Self, Problem> {
        let key = IdempotencyKey::read(headers)?;
        self.idempotency = key.filter(|_| !self.dry_run).map(|key| Idempotency::new(key, caller.id, body));
        Ok(self)
    }
}

/// Who sent a request, from where and why.
pub(in crate::api) fn author(request: &Request, caller: &Caller) -> Author {
    let request_id = request.extensions().get::<RequestId>().map(|RequestId(id)| id.clone());
    Author {
        actor: caller.name.clone(),
        source: "api",
        address: address(request).to_string(),
        request_id: request_id.unwrap_or_default(),
        reason: reason(request.headers()),
    }
}

/// Why, in the words of the client: `X-Change-Reason`.
fn reason(headers: &HeaderMap) -> String {
    let header = headers.get("x-change-reason").map(HeaderValue::as_bytes).unwrap_or_default();
    String::from_utf8_lossy(header).into_owned()
}
