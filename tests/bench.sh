#!/usr/bin/env bash
# Measures what we promise, each number beside its peer in the same run, and says PASS or MISS.
#
# usage: tests/bench.sh [NAME...] [--json FILE] [--rounds N]
#   NAME   live, serve, memory, rows, api, ack; all of them without one (some 12 minutes)
#
# Installs what the benches need, builds the release profile, leaves nothing running. Exit 0 when all were measured.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/lib.sh"

TRAEFIK=$("$repo/deploy/install-tools.sh" cc nginx postgres traefik wrk)
say "building (release)"
cargo build --quiet --release --manifest-path "$repo/Cargo.toml" -p charliehub-provider -p charliehub-tests --bin charliehub-provider --bin bench
built=$(target_dir)/release
export TRAEFIK CHARLIEHUB_PROVIDER=$built/charliehub-provider
exec "$built/bench" "$@"
