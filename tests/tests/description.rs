//! The API is what its description says: schemathesis sends thousands of requests made from it, right and wrong ones, and
//! finds no answer that is not described and no error of ours.

use std::{path::PathBuf, process::Stdio, time::Duration};

use charliehub_tests::World;
use tokio::{process::Command, time::timeout};

/// Where `deploy/install-tools.sh` puts it.
fn installed() -> PathBuf {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    cache.join("charliehub/schemathesis-4.32.5")
}

#[tokio::test]
async fn the_api_answers_as_its_description_says() {
    let world = World::new().await;
    let place = installed();
    assert!(place.is_dir(), "schemathesis is missing: deploy/install-tools.sh schemathesis");
    let description = world.provider.get("/api/openapi.json").await.json();
    assert_eq!(
        description,
        serde_json::from_str::<serde_json::Value>(&world.provider.must(&["openapi"]).await).unwrap()
    );
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
    let tester = Command::new("python3")
        .args(["-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"])
        .arg(format!("http://{}/api/openapi.json", world.provider.address()))
        .args(["-H", &format!("Authorization: Bearer {}", world.provider.admin_token())])
        .args(["--checks", checks, "--phases", "coverage,fuzzing,stateful", "-n", "20", "--seed", "1"])
        // A stream of events would never end.
        .args(["-H", "Accept: application/json"])
        // It would revoke its own token.
        .args(["--exclude-operation-id", "revoke_token", "--generation-database", "none"])
        .env("PYTHONPATH", place)
        .current_dir(world.home.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(Duration::from_mins(4), tester).await.expect("schemathesis ends").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    println!("{}", said.lines().rev().take(8).collect::<Vec<_>>().join("\n"));
    assert!(said.contains(" generated, "), "{said}");
}
