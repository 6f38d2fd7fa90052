//! Every refusal of the API: from what went wrong inside to what the client can do about it.
//!
//! The one map from SQLSTATEs and constraints to answers. What the database says is logged; the client is told the field
//! and the remedy in the API's words.

mod constraints;

use std::collections::BTreeMap;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use charliehub_proto::problem::{Item, MEDIA_TYPE, Problem as Body};
use http::{HeaderName, HeaderValue, StatusCode, header};
use utoipa::{
    IntoResponses,
    openapi::{self, RefOr},
};

pub(crate) use self::constraints::REMEDIES;
use crate::{
    auth::{Outside, Refusal},
    postgres, rehearse,
};

const INVALID: &str = "A field is not valid";

/// A refusal: its status, its body, and the headers that go with it.
#[derive(Clone, Debug)]
pub struct Problem {
    body: Box<Body>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What a refusal said, put on its response for the audit.
#[derive(Clone, Debug)]
pub struct Said {
    pub kind: String,
    pub detail: String,
}

impl Problem {
    /// `kind` is stable, for programs; `title` is the same for every problem of a kind; `detail` is this time's.
    pub fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        let body = Body {
            kind: format!("urn:charliehub:problem:{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
            remedy: None,
            items: Vec::new(),
        };
        Self { body: Box::new(body), headers: Vec::new() }
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request cannot be read", detail)
    }

    /// A value that may not stand in a field.
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", INVALID, detail).field(field)
    }

    /// A parameter of the query that cannot be taken.
    pub fn parameter(name: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "parameter", "A parameter is not valid", detail).field(name)
    }

    /// Why a row does not compile, in the compiler's words: `column: what is wrong; what to do`.
    pub fn reason(reason: &str) -> Self {
        let (field, rest) = reason.split_once(": ").unwrap_or(("domain", reason));
        match rest.rsplit_once("; ") {
            Some((detail, remedy)) => Self::invalid(field, detail).remedy(remedy),
            None => Self::invalid(field, rest).remedy("correct it there"),
        }
    }

    /// The `Host` header names somebody else: DNS rebinding.
    pub fn other_host() -> Self {
        let detail = "the Host header names somebody else (DNS rebinding)";
        Self::new(StatusCode::MISDIRECTED_REQUEST, "host", "This host is not served here", detail)
            .field("Host")
            .remedy("call us by IP address or `localhost`, or add the name to `serve.allowed_hosts`")
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing", detail)
    }

    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "It is there already", detail)
    }

    /// What the client cannot mend, and the log explains.
    pub fn internal() -> Self {
        let detail = "the request failed for a reason of ours, and changed nothing";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something failed inside", detail)
            .remedy("look for the answer's X-Request-Id in the log of the provider")
    }

    /// What can be tried again after so many seconds.
    pub fn unavailable(seconds: u64, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "It cannot be done now", detail)
            .header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    #[must_use]
    pub fn field(mut self, field: &str) -> Self {
        self.body.field = Some(field.to_owned());
        self
    }

    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.body.remedy = Some(remedy.into());
        self
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    #[must_use]
    pub fn items(mut self, items: Vec<Item>) -> Self {
        self.body.items = items;
        self
    }

    pub fn into_body(self) -> Body {
        *self.body
    }

    pub fn body(&self) -> &Body {
        &self.body
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.body.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self.body)).into_response();
        response.extensions_mut().insert(Said { kind: self.body.kind.clone(), detail: self.body.detail.clone() });
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// Every operation can be refused in these ways, for the description.
impl IntoResponses for Problem {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        const WAYS: &[(u16, &str)] = &[
            (400, "The request cannot be read"),
            (401, "A token is needed"),
            (403, "The token may not do this"),
            (404, "There is no such thing"),
            (405, "The method is not for this path"),
            (408, "The body came too slowly"),
            (409, "It is there already, or others need it as it is"),
            (412, "The row was changed meanwhile"),
            (413, "The body is too large"),
            (415, "The body is not JSON"),
            (421, "This host is not served here"),
            (422, "A field is not valid"),
            (428, "The version is missing"),
            (429, "Too many requests"),
            (503, "It cannot be done now"),
        ];
        let content = openapi::ContentBuilder::new().schema(Some(openapi::Ref::from_schema_name("Problem"))).build();
        let way = |(status, title): &(u16, &str)| {
            let response = openapi::ResponseBuilder::new().description(*title).content(MEDIA_TYPE, content.clone());
            (status.to_string(), RefOr::T(response.build()))
        };
        WAYS.iter().map(way).collect()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::Missing | Refusal::Unknown => {
                let challenge = HeaderValue::from_static("Bearer realm=\"charliehub\"");
                Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "A token is needed", detail)
                    .remedy("send `Authorization: Bearer TOKEN`; make one with: charliehub-provider token create")
                    .header(header::WWW_AUTHENTICATE, challenge)
            }
            Refusal::Role { needs, .. } => {
                let role = needs.first().map(|role| role.as_str()).unwrap_or_default();
                Self::new(StatusCode::FORBIDDEN, "forbidden", "The token's role may not do this", detail)
                    .remedy(format!("use a token made with: charliehub-provider token create --role {role} NAME"))
            }
            Refusal::Forged => Self::new(StatusCode::FORBIDDEN, "cross-site", "It may come from another site", detail)
                .remedy("send `Content-Type: application/json` or `X-Requested-With`, from a page of this host"),
            Refusal::Certificate { fault, .. } => {
                Self::new(StatusCode::FORBIDDEN, "certificate", "The client certificate does not allow it", detail)
                    .remedy(fault.remedy())
            }
            Refusal::Slow { seconds } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "slow-down", "Too many wrong tokens", detail)
                    .remedy("mend the token; a valid one is not slowed down")
                    .header(header::RETRY_AFTER, HeaderValue::from(seconds))
            }
        }
    }
}

impl From<rehearse::Error> for Problem {
    fn from(error: rehearse::Error) -> Self {
        let (detail, remedy) = (error.to_string(), error.remedy());
        if let rehearse::Error::Off = error {
            return Self::new(StatusCode::CONFLICT, "rehearsal-off", "Rehearsals are off", detail).remedy(remedy);
        }
        if let rehearse::Error::Busy(_) = error {
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Another rehearsal is under way", detail)
                .remedy(remedy)
                .header(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        tracing::warn!(error = %anyhow::Error::from(error), "a rehearsal failed");
        Self::unavailable(10, detail).remedy(remedy)
    }
}

impl From<Outside> for Problem {
    fn from(outside: Outside) -> Self {
        let field = outside.field;
        Self::new(StatusCode::FORBIDDEN, "scope", "It is outside of the token's scope", outside.to_string())
            .field(field)
            .remedy("stay within the scope, or ask an administrator for a token with another one")
    }
}

impl From<tokio_postgres::Error> for Problem {
    fn from(error: tokio_postgres::Error) -> Self {
        postgres::Error::from(error).into()
    }
}

impl From<postgres::Error> for Problem {
    fn from(error: postgres::Error) -> Self {
        if let postgres::Error::Query(source) = &error
            && let Some(db) = source.as_db_error()
        {
            return refused(&error, db);
        }
        if error.is_transient() {
            tracing::warn!(%error, "the database cannot be asked");
            return Self::unavailable(1, "the database does not answer; what is served goes on");
        }
        tracing::error!(%error, "the database cannot be asked");
        Self::unavailable(30, "the database cannot be used as it is configured; what is served goes on")
            .remedy("run: charliehub-provider check")
    }
}

/// What PostgreSQL itself refused.
fn refused(error: &postgres::Error, db: &tokio_postgres::error::DbError) -> Problem {
    let known = || REMEDIES.iter().find(|known| Some(known.constraint) == db.constraint());
    match (db.code().code(), known()) {
        // A trigger knows which networks; it says so.
        ("23P01", Some(known)) => Problem::conflict(db.message()).field(known.field).remedy(known.remedy),
        ("23505", Some(known)) => Problem::conflict(known.rule).field(known.field).remedy(known.remedy),
        ("23514" | "23000", Some(known)) => Problem::invalid(known.field, known.rule).remedy(known.remedy),
        ("23502", _) => {
            let column = db.column().unwrap_or_default();
            Problem::invalid(column, format!("`{column}` cannot be null"))
                .remedy(format!("leave `{column}` out for its default, or give it a value"))
        }
        ("22P05" | "22021", _) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", INVALID, "a text holds the character \\u0000")
                .remedy("leave it out")
        }
        (code, _) if code.starts_with("22") => {
            tracing::info!(%error, "a value was refused by its type");
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", INVALID, "a value is not of its field's type")
                .remedy("send each field in the form of /api/openapi.json")
        }
        ("55P03", _) => Problem::unavailable(2, "another session holds the revision lock"),
        ("40001" | "40P01", _) => {
            Problem::unavailable(1, "other writers were in the way, three times").remedy("send the request again")
        }
        ("53100", _) => {
            tracing::error!(%error, "the database's disk is full");
            Problem::unavailable(30, "the database's disk is full; what is served goes on")
                .remedy("make space on the disk of PostgreSQL")
        }
        ("25006", _) => Problem::unavailable(5, "the database is read-only: a standby, or a failover under way")
            .remedy("name the primary too in `database.url`"),
        ("42501", _) => {
            tracing::error!(%error, "a right is missing in the database");
            Problem::unavailable(30, "our user of the database lacks a right").remedy("run: charliehub-provider check")
        }
        ("42P01" | "3F000" | "42703" | "42883", _) => {
            tracing::error!(%error, "the schema does not fit this build");
            Problem::unavailable(30, "the database's schema does not fit this build")
                .remedy("run: charliehub-provider migrate")
        }
        (_, _) if error.is_transient() => {
            tracing::warn!(%error, "the database cannot be asked");
            Problem::unavailable(1, "the database does not answer; what is served goes on")
        }
        (_, _) => {
            tracing::error!(%error, "a query failed");
            Problem::internal()
        }
    }
}

#[cfg(test)]
mod tests;
