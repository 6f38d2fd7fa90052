#!/usr/bin/env bash
# Measures what we promise, each number beside its peer in the same run, and says PASS or MISS.
#
# usage: tests/bench.sh [NAME...] [--json FILE] [--rounds N] [--rows N]
#   NAME   live, serve, memory, rows, api, ack, scale, fanout, edge; all of them without one (some 40 minutes)
#   --rows N   of scale: no more rows than these; a million takes most of its time
#
# Installs what the benches need, builds the release profile, leaves nothing running. Exit 0 when all were measured.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/lib.sh"

TRAEFIK=$("$repo/deploy/install-tools.sh" cc ip iptables jq nginx openssl ping postgres traefik wireguard wrk)
say "building (release)"
cargo build --quiet --release --manifest-path "$repo/Cargo.toml" -p charliehub-provider -p charliehub-edge-agent \
  -p charliehub-tests --bin charliehub-provider --bin charliehub-edge-agent --bin bench \
  --bin broadcaster
built=$(target_dir)/release
export TRAEFIK CHARLIEHUB_PROVIDER=$built/charliehub-provider CHARLIEHUB_AGENT=$built/charliehub-edge-agent
exec "$built/bench" "$@"
