use std::collections::BTreeSet;

use http_body_util::BodyExt as _;

use super::*;
use crate::{auth::Role, postgres::tests::cluster::Cluster};

#[tokio::test]
async fn every_constraint_has_its_remedy() {
    let (_cluster, client) = Cluster::migrated().await;
    let rows = client
        .query(
            "WITH t AS (SELECT unnest('{charliehub.domains,charliehub.fragments,charliehub.sites,charliehub.policies,charliehub.peers}'::regclass[]) AS t)
             SELECT conname::text FROM pg_constraint JOIN t ON conrelid = t
             UNION SELECT indexrelid::regclass::text FROM pg_index JOIN t ON indrelid = t WHERE indisunique",
            &[],
        )
        .await
        .unwrap();
    let strip = |name: String| name.trim_start_matches("charliehub.").to_owned();
    let mut there: BTreeSet<String> = rows.iter().map(|row| strip(row.get(0))).collect();
    let of_triggers = [
        "domains_immutable",
        "fragments_immutable",
        "sites_immutable",
        "policies_immutable",
        "peers_immutable",
        "sites_networks_apart",
        "peers_addresses_apart",
    ];
    there.extend(of_triggers.map(str::to_owned));
    let known: BTreeSet<String> = REMEDIES.iter().map(|known| known.constraint.to_owned()).collect();
    assert_eq!(known.len(), REMEDIES.len(), "each once");
    assert_eq!(known, there);
}

#[tokio::test]
async fn a_problem_says_how_to_mend_it() {
    let needs = &[Role::Editor, Role::Admin];
    for (refusal, status, header, word) in [
        (Refusal::Missing, 401, Some("www-authenticate"), "token create"),
        (Refusal::Unknown, 401, Some("www-authenticate"), "token create"),
        (Refusal::Role { has: Role::Reader, needs }, 403, None, "--role editor"),
        (Refusal::Slow { seconds: 3 }, 429, Some("retry-after"), "mend the token"),
    ] {
        let response = Problem::from(refusal).into_response();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers()["content-type"], MEDIA_TYPE);
        assert!(header.is_none_or(|name| response.headers().contains_key(name)), "{status} {header:?}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Body = serde_json::from_slice(&body).unwrap();
        assert_eq!(body.status, status);
        assert!(body.remedy.unwrap().contains(word));
    }
}
