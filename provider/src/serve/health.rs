//! `/healthz` and `/readyz`.

use axum::{Json, body::Body, response::IntoResponse as _};
use http::{Response, StatusCode};

use crate::status::Readiness;

pub(super) fn ready(readiness: Readiness) -> Response<Body> {
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

pub(super) fn alive() -> Response<Body> {
    Json(serde_json::json!({ "alive": true })).into_response()
}
