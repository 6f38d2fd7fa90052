//! 2,000 hosts whose certificates a resolver keeps, all of them in its `acme.json`: the third change in a row, for which a
//! Traefik that compares lists of names takes longer each time.

use std::{fs, os::unix::fs::OpenOptionsExt as _};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::rows;
use crate::{
    edge::{Source, Traefik, backend},
    report::{Report, milliseconds},
    routes::SWITCH,
    setup::Setup,
    way::{Change, Way},
};

pub(super) const ROWS: u32 = 2_000;

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    eprintln!("   {ROWS} rows with a resolver");
    let setup = Setup::with(&rows::switch(), |provider| {
        provider.set("compile", "cert_resolvers", r#"["le"]"#).set("compile", "default_resolver", r#""le""#)
    })
    .await?;
    let home = &setup.home;
    let answers = [("first", backend(home, "first").await?), ("second", backend(home, "second").await?)];
    setup.postgres.sql(rows::NAMES).await;
    let [(_, port), _] = answers;
    setup.postgres.sql(&rows::insert_with(1, ROWS - 1, "'acme'", "'127.0.0.1'", port)).await;
    let acme =
        format!("UPDATE charliehub.domains SET tls_mode = 'acme', backend_port = {port} WHERE domain = '{SWITCH}'");
    setup.postgres.sql(&acme).await;
    setup.served().await;

    let names = setup.postgres.sql("SELECT domain FROM charliehub.domains").await;
    let kept: Vec<Value> = names.into_iter().flatten().map(|name| certificate(&name)).collect::<anyhow::Result<_>>()?;
    let storage = home.join("acme.json");
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&storage)?;
    serde_json::to_writer(file, &json!({ "le": { "Account": null, "Certificates": kept } }))?;
    // Nobody is asked for a certificate that is there.
    let resolver = format!(
        "certificatesResolvers:\n  le:\n    acme:\n      email: bench@bench.test\n      storage: {}\n      \
         caServer: http://127.0.0.1:1/directory\n      tlsChallenge: {{}}\n",
        storage.display()
    );
    let source = Source::Hold { provider: setup.address(), token: setup.token() };
    let edge = Traefik::with(home, "traefik-resolver", &source, "", &resolver)?;
    let database = setup.connect().await;
    let mut way = Way::new(edge, Change::Row { database: &database, host: SWITCH }, answers);
    way.until_ready()?;
    let mut last = 0.0;
    for n in 1..=3 {
        let change = way.change().await?;
        last = milliseconds(change.committed, change.committed + change.took());
        report.value(&format!("resolver, {ROWS} hosts: ms of change {n}"), last);
    }
    report.at_most("2,000 hosts with a resolver, third change in a row", last, 1_000.0, "ms");
    Ok(())
}

/// As Traefik keeps one: EC256, signed by itself, of this name.
fn certificate(name: &str) -> anyhow::Result<Value> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()])?;
    let [certificate, key] = [made.cert.pem(), made.signing_key.serialize_pem()].map(|pem| BASE64_STANDARD.encode(pem));
    Ok(json!({ "domain": { "main": name }, "certificate": certificate, "key": key, "Store": "default" }))
}
