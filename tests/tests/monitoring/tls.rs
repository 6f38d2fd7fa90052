//! The provider's own TLS, as a Prometheus sees it that asks over TLS itself.

use std::{fs, path::Path};

use charliehub_tests::{Connection, Home, Pki, Postgres, Prometheus, World, deployed, secs, unix_time};
use hyper::Method;

use super::{TLS, each_shows_something_that_changes, must, names};

/// A provider with TLS, asked as the handbook has Prometheus do it. Its certificate ends in two days, that of a Traefik in five.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_end_are_told_by_a_prometheus_that_asks_over_tls() {
    let home = Home::new();
    let pki = Pki::init(&home, "pki").await;
    let server = ["server", "edge.test", "--san", "127.0.0.1,provider", "--days"];
    let own = pki.issue(server[0], server[1], &[&server[2..], &["2"]].concat()).await;
    let client = pki.issue("traefik", "hub2", &["--days", "5"]).await;
    let quoted = |path: &Path| format!("\"{}\"", path.display());
    let postgres = Postgres::start(&home).await;
    let world = World::over(home, postgres, |provider| {
        let address = format!("\"https://{}\"", provider.address());
        provider
            .set("serve", "tls_certificate", &quoted(&own.certificate))
            .set("serve", "tls_key", &quoted(&own.key))
            .set("serve", "client_ca", &quoted(&pki.ca()))
            .set("compile", "self_url", &address)
    })
    .await;
    let (home, address) = (&world.home, world.provider.address());
    let mut connection = Connection::by_tls(home, address, "127.0.0.1", pki.client(Some(&client))).await.unwrap();
    connection.send(Method::GET, "/healthz", &[], "").await.unwrap();

    let handbook = fs::read_to_string(deployed("README.md")).unwrap();
    let line = handbook.lines().find(|line| line.starts_with("sed -i '/job_name: \"charliehub-provider\"")).unwrap();
    let line = line.replace("/run/secrets/charliehub_ca", &pki.ca().display().to_string());
    let prometheus = Prometheus::prepared(home, &[("127.0.0.1:8001", address)], |file| {
        let line = line.replace("deploy/prometheus/prometheus.yml", &file.display().to_string());
        must("sh", &["-c".into(), line.into()]);
    })
    .await;
    let since = unix_time();
    let fires = |alert: &str| format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}");
    let soon = ["ProviderCertificateAlmostExpired", "ProviderCertificateExpiresSoon", "ClientCertificateExpiresSoon"];
    for alert in soon {
        prometheus.until(&fires(alert), secs(30)).await;
    }
    assert!(prometheus.query(&fires("ProviderCertificateRefused")).await.unwrap().is_empty());
    assert!(prometheus.query(&fires("ClientAuthorityExpiresSoon")).await.unwrap().is_empty());
    each_shows_something_that_changes(&prometheus, since, |name| name.starts_with(TLS)).await;
    names(&prometheus, |name| name.starts_with(TLS)).await;

    fs::copy(&client.key, &own.key).unwrap();
    prometheus.until(&fires("ProviderCertificateRefused"), secs(30)).await;
    pki.must("issue", &[&server[..], &["90"]].concat()).await;
    for alert in ["ProviderCertificateRefused", soon[0], soon[1]] {
        prometheus.until(&format!("absent({})", fires(alert)), secs(30)).await;
    }
    assert!(!prometheus.query(&fires(soon[2])).await.unwrap().is_empty(), "the Traefik's is as it was");
}
