//! Fragments by kind and name, as `proto/tests/every_option.json` has them, as one configuration for Traefik.

use serde_json::{Value, json};

/// The dynamic configuration that holds all of them.
pub fn configuration(kinds: &Value) -> Value {
    let mut config = json!({});
    for (kind, bodies) in kinds.as_object().expect("an object of kinds") {
        let (top, one) = kind.split_once('.').expect("a kind such as http.router");
        config[top][format!("{one}s")] = match kind.as_str() {
            "tls.certificate" => bodies.as_object().expect("certificates by name").values().cloned().collect(),
            _ => bodies.clone(),
        };
    }
    config
}
