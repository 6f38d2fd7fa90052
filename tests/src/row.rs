//! A row of `domains` as somebody types it into psql: column and value, every value quoted.

use std::{collections::BTreeMap, net::SocketAddr};

#[derive(Clone, Debug)]
pub struct Row(BTreeMap<String, String>);

impl Row {
    /// A plain route: http, entry point `web`, public.
    pub fn http(domain: &str, backend: SocketAddr) -> Self {
        Self::bare(domain).with("tls_mode", "none").to(backend)
    }

    /// The same on `websecure` with the default certificate.
    pub fn https(domain: &str, backend: SocketAddr) -> Self {
        Self::bare(domain).with("tls_mode", "default").to(backend)
    }

    pub fn tcp(domain: &str, entry_point: &str, backend: SocketAddr) -> Self {
        Self::bare(domain)
            .with("protocol", "tcp")
            .with("tcp_entrypoint", entry_point)
            .with("tls_mode", "default")
            .to(backend)
    }

    /// Only the name: no backend.
    pub fn bare(domain: &str) -> Self {
        Self(BTreeMap::new()).with("domain", domain)
    }

    #[must_use]
    pub fn to(self, backend: SocketAddr) -> Self {
        self.with("backend_host", &backend.ip().to_string()).with("backend_port", &backend.port().to_string())
    }

    #[must_use]
    pub fn with(mut self, column: &str, value: &str) -> Self {
        self.0.insert(column.to_owned(), value.to_owned());
        self
    }

    pub fn insert(&self) -> String {
        let columns: Vec<&str> = self.0.keys().map(String::as_str).collect();
        let values: Vec<String> = self.0.values().map(|v| quote(v)).collect();
        format!("INSERT INTO domains ({}) VALUES ({})", columns.join(", "), values.join(", "))
    }

    /// As the body of `POST /api/domains`; numbers and lists as JSON has them.
    pub fn json(&self) -> serde_json::Value {
        self.0
            .iter()
            .map(|(column, value)| {
                let text = value.clone();
                let value = serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text));
                (column.clone(), value)
            })
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}
