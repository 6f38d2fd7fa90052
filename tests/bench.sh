#!/usr/bin/env bash
# Measures what we promise, each number beside its peer in the same run, and says PASS or MISS.
#
# usage: tests/bench.sh [NAME...] [--json FILE] [--rounds N]
#   NAME   live, serve, memory, rows, api, ack, edge; all of them without one (some 15 minutes)
#
# Installs what the benches need, builds the release profile, leaves nothing running. Exit 0 when all were measured.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/lib.sh"

TRAEFIK=$("$repo/deploy/install-tools.sh" cc ip iptables jq nginx openssl ping postgres traefik wireguard wrk)
say "building (release)"
cargo build --quiet --release --manifest-path "$repo/Cargo.toml" -p charliehub-provider -p charliehub-edge-agent \
  -p charliehub-tests --bin charliehub-provider --bin charliehub-edge-agent --bin bench
built=$(target_dir)/release
export TRAEFIK CHARLIEHUB_PROVIDER=$built/charliehub-provider CHARLIEHUB_AGENT=$built/charliehub-edge-agent
exec "$built/bench" "$@"
