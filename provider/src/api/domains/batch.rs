//! `POST /api/domains/batch`: many changes in one transaction, all or none of them.

use axum::{
    Extension,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use charliehub_proto::change::WrittenBatch;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Api, Problem, answer_headers, unseen};
use crate::{
    api::{
        fields::{Fields, OfDomain},
        json,
        write::{Op, Order, Step, Target, Writing, write},
    },
    auth::Caller,
    row::Table,
};

const MOST: usize = 1000;
/// A row is some hundred bytes.
const LIMIT: usize = 8 << 20;

/// One change, as it is sent.
#[derive(Deserialize, ToSchema)]
#[schema(as = BatchItem)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Item {
    #[schema(title = "CreateItem")]
    Create {
        #[schema(value_type = OfDomain)]
        domain: Value,
    },
    #[schema(title = "ReplaceItem")]
    Replace {
        id: Uuid,
        version: Option<i64>,
        #[schema(value_type = OfDomain)]
        domain: Value,
    },
    #[schema(title = "PatchItem")]
    Patch {
        id: Uuid,
        version: Option<i64>,
        #[schema(value_type = OfDomain)]
        domain: Map<String, Value>,
    },
    #[schema(title = "DeleteItem")]
    Delete { id: Uuid, version: Option<i64> },
}

impl Item {
    fn step(self, strict: bool) -> Result<Step, Problem> {
        let (op, expected, changes) = match self {
            Self::Create { domain } => (Op::Insert(Fields::from_value(Table::Domains, &domain)?), None, false),
            Self::Replace { id, version, domain } => {
                (Op::Replace(Target::Id(id), Fields::from_value(Table::Domains, &domain)?), version, true)
            }
            Self::Patch { id, version, domain } => (Op::Merge(Target::Id(id), domain), version, true),
            Self::Delete { id, version } => (Op::Delete(Target::Id(id)), version, true),
        };
        if strict && changes && expected.is_none() {
            return Err(unseen().field("version").remedy("read the row, and send its `version` with the item"));
        }
        Ok(Step { table: Table::Domains, op, expected })
    }
}

/// `POST /api/domains/batch`: answers with the row of each item, in their order, and with what all of them did.
#[utoipa::path(post, operation_id = "batch_domains", path = "/api/domains/batch", tag = "domains", params(Writing, ("Idempotency-Key" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)),
    request_body = Vec<Item>, responses((status = 200, body = WrittenBatch, description = "The rows, and what the writes did"), Problem))]
pub(in crate::api) async fn batch(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (order, body) = Order::with_body(request, &caller, LIMIT).await?;
    let items: Vec<Item> = json::read(&body)?;
    if items.is_empty() || items.len() > MOST {
        let detail = format!("there are {} items, and 1 to {MOST} can be done at once", items.len());
        return Err(Problem::invalid(".", detail).remedy("send fewer in each request"));
    }
    let steps = items.into_iter().enumerate().map(|(index, item)| {
        item.step(api.strict_locking).map_err(|problem| {
            let field = problem.body().field.clone().unwrap_or_default();
            problem.field(&format!("[{index}].{field}"))
        })
    });
    let steps: Vec<Step> = steps.collect::<Result<_, _>>()?;
    let written = write(&api, &order, &steps).await?;
    let rows: Vec<&str> = written.rows.iter().map(|applied| applied.json.as_str()).collect();
    let change = serde_json::to_string(&written.change).map_err(|_| Problem::internal())?;
    let answer = format!("{{\"items\":[{}],\"change\":{change}}}\n", rows.join(","));
    Ok((StatusCode::OK, answer_headers(&written), answer).into_response())
}
