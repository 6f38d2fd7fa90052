//! Style, script and icon of the page: part of this program, the same for everybody, so no token is asked for.

use axum::{
    extract::{Path, Request},
    response::{IntoResponse as _, Response},
};
use http::{StatusCode, header};

use crate::{
    api::Problem,
    debug::{ICON, SCRIPT, STYLE, version},
};

/// For ever with its version in the query, else asked again by its `ETag`.
pub(super) async fn get(Path(file): Path<String>, request: Request) -> Response {
    let (kind, text) = match file.as_str() {
        "style.css" => ("text/css; charset=utf-8", STYLE),
        "app.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return Problem::not_found("there is no such file below /debug").into_response(),
    };
    let etag = format!("\"{}\"", version(text));
    let keep = if request.uri().query().is_some() { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = [(header::CONTENT_TYPE, kind), (header::ETAG, &etag), (header::CACHE_CONTROL, keep)];
    let known = request.headers().get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|one| one.trim() == etag)) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, text).into_response()
}
