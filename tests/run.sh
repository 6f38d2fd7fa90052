#!/usr/bin/env bash
# Every check and every test, in one run; the last line is `N passed, N failed`.
#
# usage: tests/run.sh [--full]
#   --full   with real intervals and the sizes that CI cannot afford (CHARLIEHUB_FULL=1)
#
# Installs what it needs (deploy/install-tools.sh). All steps run, also after one that failed.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/lib.sh"

passed=0 failed=0
declare -a failures=()

main() {
  case ${1:-} in
    '') ;;
    --full) export CHARLIEHUB_FULL=1 ;;
    *) fail "unknown argument '$1'; usage: tests/run.sh [--full]" ;;
  esac
  cd "$repo"
  have cargo || fail "Rust is missing: install it with rustup, then run this again"
  TRAEFIK=$(deploy/install-tools.sh bind buildah busybox cc check-jsonschema chromium conntrack curl cyclonedx debootstrap faketime \
    git gitleaks grafana-schema ip iptables jq logrotate mosquitto mosquitto-clients nft nginx nspawn openapi-client \
    openssl pebble pgbouncer ping podman postgres prometheus qemu redis schemathesis shellcheck wireguard wrk traefik \
    traefik-3.0.4 traefik-3.4.3 traefik-3.6.15 deb deny nextest)
  export TRAEFIK CARGO_TERM_PROGRESS_WHEN=never

  step 'formatting' cargo fmt --all --check
  step 'scripts' check_scripts
  step 'secrets' check_secrets
  step 'licences, bans, sources' cargo deny --log-level error check licenses bans sources
  step 'advisories' check_advisories
  step 'lints' cargo clippy --quiet --workspace --all-targets -- -D warnings
  step 'build' cargo build --quiet --workspace --bins
  run_tests
  step 'documentation examples' cargo test --quiet --workspace --doc
  step 'quickstart' quickstart
  summary
}

# step NAME COMMAND...: one check, counted, with the time it took. A COMMAND that could not check anything returns 77.
step() {
  local name=$1 began=$SECONDS result=0
  shift
  say "$name"
  "$@" || result=$?
  case $result in
    0) passed=$((passed + 1)) ;;
    77) say "$name: NOT CHECKED" ;;
    *) count_failure "$name" ;;
  esac
  say "$name: $((SECONDS - began)) s"
}

count_failure() {
  failed=$((failed + 1))
  failures+=("$1")
  say "$1: FAILED"
}

# Also those of deploy whose name does not say so.
check_scripts() {
  git ls-files --cached --others --exclude-standard -- '*.sh' .ci/run deploy | while IFS= read -r file; do
    [[ ! -f $file ]] || awk 'FNR == 1 && (/^#!.*(bash|\/sh)$/ || /^# shellcheck shell=/) { print FILENAME } { exit }' "$file"
  done | xargs -d '\n' shellcheck -x
}

# What is pushed that was not there before, commit by commit; where that cannot be told, everything. Finds what a commit
# with --no-verify brought past the hook.
check_secrets() {
  if git rev-parse -q --verify origin/main >/dev/null && [[ $(git rev-list --count origin/main..HEAD) != 0 ]]; then
    deploy/git-hooks/scan --range origin/main..HEAD
  else
    deploy/git-hooks/scan --tree
  fi
}

# The list of known vulnerabilities comes from the network: out of reach, nothing is proven.
check_advisories() {
  local log result=0
  log=$(mktemp)
  cargo deny --log-level error check advisories 2>"$log" || result=$?
  cat "$log" >&2
  if ((result)) && grep -q 'failed to fetch advisory database' "$log"; then result=77; fi
  rm "$log"
  return "$result"
}

# As the README has it; without --full with the build that is there, which spares CI minutes.
quickstart() {
  local build=(--debug)
  if [[ -n ${CHARLIEHUB_FULL:-} ]]; then build=(); fi
  deploy/quickstart.sh --smoke "${build[@]}"
}

# nextest's own count, from its JUnit report: tests that ran out of time are failures there too.
run_tests() {
  local report began=$SECONDS result=0 tests=0 bad=0
  report=$repo/target/nextest/default/junit.xml # of the workspace, wherever cargo builds
  rm -f "$report"
  say "tests"
  TMPDIR=$(temporary) cargo nextest run --workspace --no-tests pass || result=$?
  if [[ -s $report ]]; then
    tests=$(report_attribute tests) bad=$(($(report_attribute failures) + $(report_attribute errors)))
  fi
  passed=$((passed + tests - bad)) failed=$((failed + bad))
  if ((bad)); then failures+=("$bad tests"); elif ((result)); then count_failure "tests"; fi
  say "tests: $((SECONDS - began)) s"
}

# Databases come and go with thousands of small files, which costs a disk more than the tests: in memory, where there is room.
temporary() {
  local at=/dev/shm room memory
  room=$(df --output=avail -B1M "$at" 2>/dev/null | tail -n 1) memory=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
  if ((${room:-0} < 8192 || ${memory:-0} < 8192)) || findmnt -no OPTIONS "$at" | grep -qE 'noexec|nodev'; then
    at=${TMPDIR:-/tmp}
  fi
  printf '%s\n' "$at"
}

report_attribute() { grep -m 1 '<testsuites ' "$report" | sed -E "s/.* $1=\"([0-9]+)\".*/\1/"; }

summary() {
  local failure
  for failure in "${failures[@]}"; do say "failed: $failure"; done
  say "all of it took $((SECONDS / 60)) min $((SECONDS % 60)) s"
  printf '%s passed, %s failed\n' "$passed" "$failed"
  ((failed == 0))
}

main "$@"
