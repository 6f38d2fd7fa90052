//! Reads a body of JSON so that every mistake is named with its line, column and path, and no key counts twice.

use std::{collections::BTreeSet, fmt, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest as _, Request},
};
use http::{HeaderValue, StatusCode, header};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor},
};

use tokio::time::timeout;

use super::Problem;

/// The largest body of one row.
pub(super) const LIMIT: usize = 1 << 20;

/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// The whole body, when it says that it is JSON and is not too large.
pub(super) async fn body(mut request: Request, limit: usize) -> Result<Bytes, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // A page of another site can send a form without asking, never this media type.
    if kind != "application/json" && !kind.ends_with("+json") {
        let detail = "the body is not said to be JSON";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "The body is not JSON", detail)
            .remedy("send `Content-Type: application/json`"));
    }
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > limit) {
        return Err(too_large(limit));
    }
    axum::extract::DefaultBodyLimit::max(limit).apply(&mut request);
    let read = timeout(PATIENCE, Bytes::from_request(request, &())).await.map_err(|_| {
        let detail = format!("the body did not come within {} s", PATIENCE.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The body came too slowly", detail)
            .remedy("send it at once")
            .header(header::CONNECTION, HeaderValue::from_static("close"))
    })?;
    read.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(limit),
        _ => Problem::bad_request("the body ended early"),
    })
}

/// What was not read of it would be taken for the next request.
fn too_large(limit: usize) -> Problem {
    let detail = format!("the body is larger than {limit} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail)
        .remedy("send fewer or smaller rows in each request")
        .header(header::CONNECTION, HeaderValue::from_static("close"))
}

/// Reads `bytes` as a `T`.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice::<Unique>(bytes)
        .map_err(|error| Problem::bad_request(error.to_string()).remedy("mend the JSON there"))?;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let problem = Problem::invalid(&path, format!("`{path}`: {}", error.inner()));
        problem.remedy("send it in the form of /api/openapi.json")
    })
}

/// Any JSON in which no object has a key twice. Most readers keep the last one, some the first: nobody knows which.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format_args!("key `{key}` is there twice")));
            }
            keys.insert(key);
            map.next_value::<Self>()?;
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}
