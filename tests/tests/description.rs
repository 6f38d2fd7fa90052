//! The API is what its description says: schemathesis sends thousands of requests made from it, right and wrong ones, and
//! finds no answer that is not described and no error of ours; a client that a generator made of it works.

use std::{path::PathBuf, process::Stdio, time::Duration};

use charliehub_tests::{World, full};
use tokio::{process::Command, time::timeout};

/// Where `deploy/install-tools.sh` puts a package of PyPI's.
fn installed(package: &str) -> PathBuf {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    cache.join("charliehub").join(package)
}

#[tokio::test]
async fn the_api_answers_as_its_description_says() {
    let world = World::new().await;
    let place = installed("schemathesis-4.32.5");
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
        .args(["--checks", checks, "--phases", "coverage,fuzzing,stateful", "--seed", "1"])
        .args(["-n", if full() { "20" } else { "6" }])
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

#[tokio::test]
async fn a_generated_client_works() {
    let world = World::new().await;
    let place = installed("openapi-python-client-0.29.1");
    assert!(place.is_dir(), "the generator is missing: deploy/install-tools.sh openapi-client");
    let home = world.home.path();
    std::fs::write(home.join("openapi.json"), world.provider.must(&["openapi"]).await).unwrap();
    // Its formatter is not on the way of what is generated.
    std::fs::write(home.join("generator.yml"), "post_hooks: []\n").unwrap();
    let python = async |arguments: &[&str]| {
        let path = std::env::join_paths([place.as_path(), home]).unwrap();
        let mut command = Command::new("python3");
        command.args(arguments).env("PYTHONPATH", path).current_dir(home).stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(Duration::from_mins(2), command.output()).await.expect("it ends").unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    };
    let generate =
        "-m openapi_python_client generate --path openapi.json --output-path hub --meta none --config generator.yml";
    let arguments: Vec<&str> = generate.split(' ').chain(["--fail-on-warning"]).collect();
    let said = python(&arguments).await;
    assert!(!said.to_lowercase().contains("warning"), "{said}");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/description/client.py");
    let address = format!("http://{}", world.provider.address());
    println!("{}", python(&["-W", "error", script, &address, &world.provider.admin_token()]).await);
}
