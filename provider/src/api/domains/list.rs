//! `GET /api/domains`: the rows that a client asks for, as a bare array.
//!
//! All of them are streamed. With `limit` they come in pages: the next one is in the `Link` header, and begins behind the
//! last row of this one, whatever is written meanwhile.

use std::fmt::Write as _;

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};
use charliehub_proto::domain::{AccessTier, Domain, Environment, Protocol, ServiceType, Status, TlsMode};
use futures_util::{TryStreamExt as _, stream};
use http::{Uri, header};
use tokio_postgres::types::{ToSql, Type};
use utoipa::IntoParams;

use crate::api::{
    Api, Problem,
    fields::{READ_ONLY, writable},
    query::Parameters,
};
use crate::{
    auth::{Caller, Scope},
    row::Table,
};

/// Rows are sent in pieces of about this many bytes.
const PIECE: usize = 64 << 10;
const MOST: usize = 1000;

/// A filter of equality: its parameter, what it is compared with, and the labels that there are.
struct Filter {
    name: &'static str,
    column: &'static str,
    labels: Option<&'static [&'static str]>,
}

const fn filter(name: &'static str, column: &'static str, labels: Option<&'static [&'static str]>) -> Filter {
    Filter { name, column, labels }
}

const FILTERS: &[Filter] = &[
    filter("domain", "d.domain", None),
    filter("status", "d.status::text", Some(Status::LABELS)),
    filter("environment", "d.environment::text", Some(Environment::LABELS)),
    filter("protocol", "d.protocol::text", Some(Protocol::LABELS)),
    filter("service_type", "d.service_type::text", Some(ServiceType::LABELS)),
    filter("access_tier", "d.access_tier::text", Some(AccessTier::LABELS)),
    filter("tls_mode", "d.tls_mode::text", Some(TlsMode::LABELS)),
    filter("site", "d.site", None),
    filter("owner", "d.owner", None),
];

/// What rows can be sorted by: the field, its expression (never null), and its type.
const SORTS: &[(&str, &str, &str)] = &[
    ("domain", "d.domain", "text"),
    ("path_prefix", "d.path_prefix", "text"),
    ("protocol", "d.protocol::text", "text"),
    ("status", "d.status::text", "text"),
    ("environment", "d.environment::text", "text"),
    ("access_tier", "d.access_tier::text", "text"),
    ("site", "coalesce(d.site, '')", "text"),
    ("owner", "coalesce(d.owner, '')", "text"),
    ("priority", "coalesce(d.priority, 0)", "int"),
    ("created_at", "d.created_at", "timestamptz"),
    ("updated_at", "d.updated_at", "timestamptz"),
    ("version", "d.version", "bigint"),
];

const OTHERS: &[&str] = &["q", "sort", "fields", "limit", "cursor"];

/// One key of the order.
struct Sort {
    expression: &'static str,
    kind: &'static str,
    descending: bool,
}

/// What can be asked for; this is for the description, [`FILTERS`] and [`SORTS`] decide.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described")]
struct Asked {
    domain: Option<Vec<String>>,
    status: Option<Vec<Status>>,
    environment: Option<Vec<Environment>>,
    protocol: Option<Vec<Protocol>>,
    service_type: Option<Vec<ServiceType>>,
    access_tier: Option<Vec<AccessTier>>,
    tls_mode: Option<Vec<TlsMode>>,
    site: Option<Vec<String>>,
    owner: Option<Vec<String>>,
    /// Words to be found in name, backend, owner or notes.
    q: Option<String>,
    /// Such as `-updated_at,domain`.
    sort: Option<String>,
    /// Such as `id,domain`; all when left out.
    fields: Option<String>,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
    /// From the `Link` header of the page before.
    cursor: Option<String>,
}

/// A query being put together: only texts of ours are in the SQL, what the client says is in the parameters.
struct Query {
    conditions: Vec<String>,
    values: Vec<Vec<String>>,
    sort: Vec<Sort>,
    sorted_by: String,
    selected: String,
    limit: Option<usize>,
}

/// `GET /api/domains`: the rows that are asked for, as a bare array; with `limit` in pages, by the `Link` header.
#[utoipa::path(get, operation_id = "list_domains", path = "/api/domains", tag = "domains", params(Asked), responses((status = 200, body = Vec<Domain>, description = "The rows"), Problem))]
pub(in crate::api) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let uri = request.into_parts().0.uri;
    let mut query = Query::read(Parameters::of(&uri)?)?;
    query.within(&caller.scope);
    match query.limit {
        Some(limit) => page(&api, &uri, &query, limit).await,
        None => all(&api, &query).await,
    }
}

impl Query {
    fn read(mut parameters: Parameters) -> Result<Self, Problem> {
        let mut query = Self {
            conditions: Vec::new(),
            values: Vec::new(),
            sort: Vec::new(),
            sorted_by: parameters.take("sort").unwrap_or_else(|| "domain,path_prefix".to_owned()),
            selected: selected(parameters.take("fields").as_deref())?,
            limit: None,
        };
        for filter in FILTERS {
            let values = parameters.all(filter.name);
            if let Some(labels) = filter.labels
                && let Some(wrong) = values.iter().find(|value| !labels.contains(&value.as_str()))
            {
                let wrong: String = wrong.chars().take(64).collect();
                return Err(Problem::parameter(filter.name, format!("`{wrong}` is none of its labels"))
                    .remedy(format!("use one of {}", labels.join(", "))));
            }
            if !values.is_empty() {
                let column = filter.column;
                query.condition(values, |parameter| format!("{column} = ANY({parameter})"));
            }
        }
        for words in parameters.all("q") {
            let escaped = words.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            query.condition(vec![format!("%{escaped}%")], |parameter| {
                format!(
                    "concat_ws(' ', d.domain || d.path_prefix, d.backend_host, d.owner, d.notes) ILIKE ({parameter})[1]"
                )
            });
        }
        query.sort = sorts(&query.sorted_by)?;
        if let Some(text) = parameters.take("limit") {
            let limit = text.parse().ok().filter(|limit| (1..=MOST).contains(limit));
            query.limit = Some(limit.ok_or_else(|| {
                Problem::parameter("limit", format!("it is not 1 to {MOST}")).remedy("leave it out for all rows")
            })?);
        }
        if let Some(cursor) = parameters.take("cursor") {
            query.behind(&cursor)?;
        }
        let known: Vec<&str> = FILTERS.iter().map(|filter| filter.name).chain(OTHERS.iter().copied()).collect();
        parameters.done(&known)?;
        Ok(query)
    }

    /// Adds a condition on values, which are a parameter of type `text[]`.
    fn condition(&mut self, values: Vec<String>, sql: impl FnOnce(&str) -> String) {
        self.values.push(values);
        self.conditions.push(sql(&format!("${}", self.values.len())));
    }

    /// Only rows of a token's scope.
    fn within(&mut self, scope: &Scope) {
        let (condition, entries) = scope.sql(self.values.len() + 1);
        self.values.extend(entries.into_iter().map(<[String]>::to_vec));
        self.conditions.push(condition);
    }

    /// Only rows behind the one that the cursor names.
    fn behind(&mut self, cursor: &str) -> Result<(), Problem> {
        let wrong = || {
            Problem::parameter("cursor", "it is not one that we gave for this order")
                .remedy("take it from the Link header as it is, with the same `sort`; or leave it out")
        };
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())?;
        let (sorted_by, values): (String, Vec<String>) = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        if sorted_by != self.sorted_by
            || values.len() != self.sort.len()
            || values.iter().any(|text| text.contains('\0'))
        {
            return Err(wrong());
        }
        self.values.push(values);
        let parameter = format!("${}", self.values.len());
        let value = |at: usize, kind: &str| format!("({parameter})[{}]::{kind}", at + 1);
        let mut either = Vec::new();
        for (at, last) in self.sort.iter().enumerate() {
            let same = self.sort.iter().enumerate().take(at);
            let same = same.map(|(at, key)| format!("{} = {}", key.expression, value(at, key.kind)));
            let beyond = if last.descending { '<' } else { '>' };
            let beyond = format!("{} {beyond} {}", last.expression, value(at, last.kind));
            either.push(format!("({})", same.chain([beyond]).collect::<Vec<_>>().join(" AND ")));
        }
        // Says nothing new, but lets an index on the first key begin at the right place.
        if let Some(first) = self.sort.first() {
            let from = if first.descending { "<=" } else { ">=" };
            self.conditions.push(format!("{} {from} {}", first.expression, value(0, first.kind)));
        }
        self.conditions.push(format!("({})", either.join(" OR ")));
        Ok(())
    }

    /// The whole statement; the keys of the order come second, as texts.
    fn sql(&self) -> String {
        let keys: Vec<String> = self.sort.iter().map(|key| format!("({})::text", key.expression)).collect();
        let order =
            self.sort.iter().map(|key| format!("{}{}", key.expression, if key.descending { " DESC" } else { "" }));
        let mut sql = format!("SELECT {}::text, ARRAY[{}] FROM domains d", self.selected, keys.join(", "));
        if !self.conditions.is_empty() {
            let _ = write!(sql, " WHERE {}", self.conditions.join(" AND "));
        }
        let _ = write!(sql, " ORDER BY {}", order.collect::<Vec<_>>().join(", "));
        // One more tells that there is another page.
        if let Some(limit) = self.limit {
            let _ = write!(sql, " LIMIT {}", limit + 1);
        }
        sql
    }

    fn parameters(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.values.iter().map(|values| (values as &(dyn ToSql + Sync), Type::TEXT_ARRAY)).collect()
    }
}

/// The JSON of a row: all of it, or the fields that are asked for.
fn selected(fields: Option<&str>) -> Result<String, Problem> {
    let Some(fields) = fields else { return Ok("to_json(d)".to_owned()) };
    let known = || READ_ONLY.iter().chain(writable(Table::Domains)).copied();
    let mut pairs = Vec::new();
    for field in fields.split(',').map(str::trim) {
        let Some(name) = known().find(|known| *known == field) else {
            let nearest = known().min_by_key(|known| strsim::damerau_levenshtein(field, known)).unwrap_or_default();
            let shown: String = field.chars().take(64).collect();
            return Err(Problem::parameter("fields", format!("there is no field `{shown}`"))
                .remedy(format!("did you mean `{nearest}`?")));
        };
        let pair = format!("'{name}', d.{name}");
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    Ok(format!("json_build_object({})", pairs.join(", ")))
}

/// The order: `-updated_at,domain`. The id is always last, so that no two rows are alike.
fn sorts(text: &str) -> Result<Vec<Sort>, Problem> {
    let mut sorts = Vec::new();
    for key in text.split(',').map(str::trim) {
        let (descending, name) = key.strip_prefix('-').map_or((false, key), |name| (true, name));
        let Some((_, expression, kind)) = SORTS.iter().find(|(known, ..)| *known == name) else {
            let known: Vec<&str> = SORTS.iter().map(|(name, ..)| *name).collect();
            let shown: String = name.chars().take(64).collect();
            return Err(Problem::parameter("sort", format!("rows cannot be sorted by `{shown}`"))
                .remedy(format!("use some of {}, with - before it for the other direction", known.join(", "))));
        };
        if !sorts.iter().any(|sort: &Sort| sort.expression == *expression) {
            sorts.push(Sort { expression, kind, descending });
        }
    }
    sorts.push(Sort { expression: "d.id", kind: "uuid", descending: false });
    Ok(sorts)
}

/// Every row, streamed. The first one is awaited here: an error still has a status of its own.
async fn all(api: &Api, query: &Query) -> Result<Response, Problem> {
    let client = api.pool.get().await?;
    let rows = client.query_typed_raw(&query.sql(), query.parameters()).await?;
    let mut rows = Box::pin(rows);
    let kind = [(header::CONTENT_TYPE, "application/json")];
    let Some(first) = rows.try_next().await? else { return Ok((kind, "[]\n").into_response()) };
    let mut piece = BytesMut::from("[");
    piece.extend_from_slice(first.try_get::<_, &str>(0)?.as_bytes());
    let pieces = stream::try_unfold(Some((client, rows, piece)), async |state| {
        let Some((client, mut rows, mut piece)) = state else { return Ok(None) };
        while piece.len() < PIECE {
            let Some(row) = rows.try_next().await? else {
                piece.extend_from_slice(b"]\n");
                return Ok(Some((piece.freeze(), None)));
            };
            piece.extend_from_slice(b",\n");
            piece.extend_from_slice(row.try_get::<_, &str>(0)?.as_bytes());
        }
        let full: Bytes = piece.split().freeze();
        Ok::<_, tokio_postgres::Error>(Some((full, Some((client, rows, piece)))))
    });
    Ok((kind, Body::from_stream(pieces)).into_response())
}

async fn page(api: &Api, uri: &Uri, query: &Query, limit: usize) -> Result<Response, Problem> {
    let client = api.pool.get().await?;
    let found = client.query_typed(&query.sql(), &query.parameters()).await.map_err(|error| match error.code() {
        // A cursor that somebody made up.
        Some(code) if code.code().starts_with("22") => {
            Problem::parameter("cursor", "it is not one that we gave").remedy("take it from the Link header as it is")
        }
        _ => error.into(),
    })?;
    let mut body = String::from("[");
    for (at, row) in found.iter().take(limit).enumerate() {
        body.push_str(if at > 0 { ",\n" } else { "" });
        body.push_str(row.try_get(0)?);
    }
    body.push_str("]\n");
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    if found.len() > limit
        && let Some(last) = found.get(limit - 1)
    {
        let keys: Vec<String> = last.try_get(1)?;
        let cursor = serde_json::to_vec(&(&query.sorted_by, keys)).map_err(|_| Problem::internal())?;
        let cursor = BASE64_URL_SAFE_NO_PAD.encode(cursor);
        let others = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.starts_with("cursor="));
        let others: Vec<&str> = others.collect();
        let link = format!("<{}?{}&cursor={cursor}>; rel=\"next\"", uri.path(), others.join("&"));
        response.headers_mut().extend(http::HeaderValue::try_from(link).map(|link| (header::LINK, link)));
    }
    Ok(response)
}
