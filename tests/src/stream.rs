//! Reads server-sent events as a browser does.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

/// One event.
#[derive(Clone, Debug)]
pub struct Heard {
    pub id: String,
    pub kind: String,
    pub data: Value,
}

/// An answer of `GET /api/events` that goes on.
#[derive(Debug)]
pub struct Stream {
    body: Incoming,
    /// What came and is not a whole block yet.
    text: String,
    /// What a browser would come back with.
    id: String,
}

impl Stream {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, text: String::new(), id: String::new() }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// The next event; none when the stream has ended.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                if let Some(id) = field("id") {
                    id.clone_into(&mut self.id);
                }
                if let Some(data) = field("data") {
                    let data = serde_json::from_str(data).expect("data is JSON");
                    let kind = field("event").unwrap_or("message").to_owned();
                    return Some(Heard { id: self.id.clone(), kind, data });
                }
            }
            // Also when the connection broke.
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.text.push_str(std::str::from_utf8(&data).expect("frames end with events, so with characters"));
            }
        }
    }
}
