//! `export`: the Traefik configuration of a revision, for people and for other tools, from the history of snapshots.
//!
//! What it prints is what Traefik's file provider loads: the marker, which only means something to us, is left out.

mod yaml;

use std::sync::Arc;

use anyhow::Context as _;
use charliehub_proto::traefik::to_json;
use serde_json::{Map, Value};
use tokio_postgres::{Client, error::SqlState};

use super::{Encoding, Export, database, output};
use crate::{
    app::settings,
    compile::Compiler,
    config::Config,
    snapshot::{
        disk::gunzip,
        encode::{Draft, MARKER},
    },
    store::read,
};

pub(super) async fn run(config: &Config, export: &Export) -> anyhow::Result<()> {
    let work = async |client: &mut Client| bytes(client, config, export.revision).await;
    let bytes = database::with(config, async |opened| opened.run(work).await).await?;
    let config = without_marker(serde_json::from_slice(&bytes)?);
    let text = match export.format {
        Encoding::Json => to_json(&config),
        Encoding::Yaml => yaml::write(&config),
    };
    Ok(output::print(&format!("{}\n", text.trim_end()))?)
}

/// Also without the groups that only it kept from being empty, which Traefik does not take.
fn without_marker(mut config: Value) -> Value {
    let mut remove = |group: &str, name: &str| {
        if let Some(group) = config.pointer_mut(group).and_then(Value::as_object_mut) {
            let goes = name == MARKER || group.get(name).is_some_and(|inner| *inner == Value::Object(Map::new()));
            goes.then(|| group.remove(name));
        }
    };
    remove("/http/middlewares", MARKER);
    remove("/http", "middlewares");
    remove("", "http");
    config
}

/// The bytes as they were served, where they are kept; else what the rows of the revision compile to now.
pub(super) async fn bytes(client: &Client, config: &Config, revision: Option<i64>) -> anyhow::Result<Vec<u8>> {
    if let Some(bytes) = exact(client, revision).await? {
        return Ok(bytes);
    }
    let Some(revision) = revision else {
        anyhow::bail!("nothing was served yet; start the provider, and insert a row");
    };
    let rows = read::as_of(client, revision).await.map_err(|error| match error.code() {
        Some(code) if *code == SqlState::NO_DATA_FOUND => {
            anyhow::anyhow!("revision {revision} is not in the history; `withheld` and the table revisions list them")
        }
        _ => database::explain(error),
    })?;
    let compiler = Compiler::apart(&Arc::new(settings(config, config.serve.listen)), read::by_key(rows));
    Ok(Draft::new(compiler.pieces()).finish().identity().into())
}

/// The bytes of a revision as they were compiled; of the newest that was served when none is named.
pub(super) async fn exact(client: &Client, revision: Option<i64>) -> anyhow::Result<Option<Vec<u8>>> {
    let sql = "SELECT charliehub.snapshot_body(b) FROM snapshots s JOIN snapshot_bodies b USING (digest)
                WHERE CASE WHEN $1::bigint IS NULL THEN s.state IN ('served', 'approved') ELSE s.revision = $1 END
                  AND s.part IS NULL ORDER BY s.id DESC LIMIT 1";
    let found = client.query_opt(sql, &[&revision]).await.map_err(database::explain)?;
    found.map(|row| gunzip(row.try_get(0)?).context("the kept snapshot is damaged")).transpose()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_marker_goes_and_leaves_no_empty_group() {
        let marker = json!({"headers": {"customResponseHeaders": {"X-Charliehub-Config": "d"}}});
        for (given, wanted) in [
            (json!({"http": {"middlewares": {MARKER: marker}}}), json!({})),
            (
                json!({"http": {"middlewares": {MARKER: marker}, "routers": {"r": {}}}, "tls": {"stores": {}}}),
                json!({"http": {"routers": {"r": {}}}, "tls": {"stores": {}}}),
            ),
            (
                json!({"http": {"middlewares": {MARKER: marker, "gzip": {"compress": {}}}}}),
                json!({"http": {"middlewares": {"gzip": {"compress": {}}}}}),
            ),
        ] {
            assert_eq!(without_marker(given.clone()), wanted, "{given}");
        }
    }
}
