//! Tables of nftables beside those of iptables: no iptables shows them, and what they drop or let through is in no rule
//! that is held against the policy.
//!
//! Only chains that the kernel calls count. Tables of iptables itself and of programs that make theirs again at each start
//! are not told.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use super::{judge::BACKEND, run};
use crate::sample::Sample;

const TARGET: &str = "nft";

/// Where iptables-nft keeps its rules, in families `ip` and `ip6`.
const OF_IPTABLES: &[&str] = &["filter", "mangle", "nat", "raw", "security"];

/// None: nothing can be asked, and programs that make such tables are mostly `nft`.
pub(super) async fn sample(known: &[String]) -> Option<Sample> {
    let program = run::find("nft")?;
    Some(match list(&program).await {
        Ok(json) => judge(&json, known),
        Err(why) => unread(&why),
    })
}

async fn list(program: &Path) -> Result<String, String> {
    let said = run::run(program, &["-j", "list", "chains"], b"").await.map_err(|error| error.to_string())?;
    if said.code == Some(0) { Ok(said.output) } else { Err(said.why()) }
}

fn unread(why: &str) -> Sample {
    Sample::unknown(BACKEND, TARGET, "whether there are tables beside iptables' own cannot be told")
        .observed(why)
        .source("nft -j list chains")
        .remedy("give the agent CAP_NET_ADMIN")
}

/// What nft lists: `{"nftables": [{"metainfo": {}}, {"chain": {}}]}` (libnftables-json(5)).
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    chain: Option<Chain>,
}

#[derive(Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    /// The kernel calls it, and does not only come to it by a jump.
    hook: Option<String>,
}

fn judge(json: &str, known: &[String]) -> Sample {
    let listing: Listing = match serde_json::from_str(json) {
        Ok(listing) => listing,
        Err(error) => return unread(&format!("what nft printed is not understood: {error}")),
    };
    let is_strange = |chain: &Chain| {
        let is_of_iptables =
            matches!(chain.family.as_str(), "ip" | "ip6") && OF_IPTABLES.contains(&chain.table.as_str());
        let sees_packets_of_ip = matches!(chain.family.as_str(), "ip" | "ip6" | "inet" | "netdev");
        sees_packets_of_ip && !is_of_iptables && !known.iter().any(|start| chain.table.starts_with(start.as_str()))
    };
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for chain in listing.nftables.into_iter().filter_map(|item| item.chain).filter(is_strange) {
        if let Some(hook) = chain.hook {
            let seen = format!("{} at {hook}", chain.name);
            tables.entry(format!("{} {}", chain.family, chain.table)).or_default().push(seen);
        }
    }
    let source = "nft -j list chains";
    let Some(first) = tables.keys().next() else {
        return Sample::ok(BACKEND, TARGET, "no tables of nftables beside iptables' own").source(source);
    };
    let names: Vec<&str> = tables.keys().map(String::as_str).collect();
    let seen: Vec<String> = tables.iter().map(|(table, chains)| format!("{table}: {}", chains.join(", "))).collect();
    let text = format!("packets also pass tables that iptables does not show: {}", names.join(", "));
    Sample::warning(BACKEND, TARGET, text)
        .observed(seen.join("; "))
        .expected("rules in iptables only, where they are held against the policy and the saved file")
        .source(source)
        .remedy(format!(
            "look at `nft list table {first}`; what makes it again at each start goes into `firewall.native_tables`, else \
             write its rules as iptables' and remove it: nft delete table {first}"
        ))
}

#[cfg(test)]
mod tests {
    use charliehub_proto::finding::Status;

    use super::*;

    fn listed(chains: &[(&str, &str, Option<&str>)]) -> Sample {
        let chains = chains.iter().map(|(family, table, hook)| {
            serde_json::json!({"chain": {"family": family, "table": table, "name": "in", "handle": 1, "hook": hook}})
        });
        let items: Vec<_> =
            std::iter::once(serde_json::json!({"metainfo": {"json_schema_version": 1}})).chain(chains).collect();
        judge(&serde_json::json!({ "nftables": items }).to_string(), &["f2b-".to_owned(), "wg-quick-".to_owned()])
    }

    #[test]
    fn which_tables_are_told() {
        let hook = Some("input");
        let fine = listed(&[
            ("ip", "filter", hook),
            ("ip6", "raw", hook),
            ("inet", "f2b-table", hook),
            ("ip", "wg-quick-wg0", hook),
            ("bridge", "filter", hook),
            ("inet", "ch", None),
        ]);
        assert_eq!(fine.status, Status::Ok, "{fine:?}");
        let told = listed(&[("inet", "ch", hook), ("inet", "filter", hook), ("ip", "ch", hook)]);
        assert_eq!(told.status, Status::Warning);
        assert_eq!(told.observed.unwrap(), "inet ch: in at input; inet filter: in at input; ip ch: in at input");
        assert!(told.remedy.unwrap().ends_with("nft delete table inet ch"));
    }

    #[test]
    fn what_is_not_understood_is_unknown() {
        for json in ["", "{}", "{\"nftables\": 7}", "{\"nftables\": [{\"chain\": {\"family\": 1}}]}"] {
            assert_eq!(judge(json, &[]).status, Status::Unknown, "{json}");
        }
    }
}
