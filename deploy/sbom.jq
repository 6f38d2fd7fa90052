# What is linked into one of our programs, as CycloneDX 1.5. Input: cargo metadata of the workspace, for one platform.
# $name: the program's package. $sums: {"name version": SHA-256} of Cargo.lock. $time: RFC 3339. $serial: a UUID.

def purl: "pkg:cargo/\(.name)@\(.version)";
def licences: (.license // "NOASSERTION") | gsub(" */ *"; " OR ");

# All that is reached from the ids of the input, by the edges of $needs.
def reached($needs): . as $now | (. + [.[] | $needs[.][]] | unique) | if . == $now then . else reached($needs) end;

INDEX(.packages[]; .id) as $packages
# What only tests use is not in the program; what builds it is part of what was trusted.
| (INDEX(.resolve.nodes[]; .id) | map_values([.deps[] | select(any(.dep_kinds[]; .kind != "dev")) | .pkg])) as $needs
| first($packages[] | select(.name == $name and .source == null)) as $root
| ([$root.id] | reached($needs)) as $all
| {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    serialNumber: "urn:uuid:\($serial)",
    version: 1,
    metadata: {
      timestamp: $time,
      component: {
        type: "application",
        "bom-ref": ($root | purl),
        name: $root.name,
        version: $root.version,
        description: $root.description,
        licenses: [{expression: ($root | licences)}],
        purl: ($root | purl)
      }
    },
    components: [
      $all[] | select(. != $root.id) | $packages[.]
      | {type: "library", "bom-ref": purl, name, version, licenses: [{expression: licences}], purl: purl}
        + ($sums["\(.name) \(.version)"] as $sum | if $sum then {hashes: [{alg: "SHA-256", content: $sum}]} else {} end)
    ] | sort_by(."bom-ref"),
    dependencies: [
      $all[] | {ref: ($packages[.] | purl), dependsOn: ([$needs[.][] | $packages[.] | purl] | unique)}
    ] | sort_by(.ref)
  }
