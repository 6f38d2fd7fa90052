//! `GET /maintenance/{id}`: what a visitor of a site under maintenance sees. Traefik asks for it, in the site's name.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use uuid::Uuid;

use super::Api;

/// The message of a row under maintenance, by its id.
pub type Messages = Arc<dyn Fn(&Uuid) -> Option<String> + Send + Sync>;

/// What is said when the row says nothing, or is not known here.
const DEFAULT: &str = "This site is under maintenance and will be back soon.";
/// When a client may come back, in seconds.
const RETRY_AFTER: &str = "300";

/// Always 503: the page of an unknown row tells nobody that it is unknown.
pub async fn page(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let message = id.parse().ok().and_then(|id| (api.messages)(&id));
    let mut text = String::new();
    escape(message.as_deref().unwrap_or(DEFAULT), &mut text);
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Maintenance</title>\n\
         <style>body{{font:1.2rem/1.5 system-ui,sans-serif;max-width:40rem;margin:20vh auto;padding:0 1rem;\
         white-space:pre-line}}</style>\n<p>{text}</p>\n</html>\n"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::RETRY_AFTER, RETRY_AFTER),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    (StatusCode::SERVICE_UNAVAILABLE, headers, html).into_response()
}

fn escape(text: &str, html: &mut String) {
    for letter in text.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' | '\'' => drop(write!(html, "&#{};", u32::from(letter))),
            other => html.push(other),
        }
    }
}
