# shellcheck shell=bash
# Words shared by deploy/install-tools.sh, deploy/quickstart.sh and tests/run.sh. To be sourced.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=$PATH:/usr/sbin:/sbin # nginx, mosquitto and ip live there, and not every user has it

# Progress and errors go to stderr, so that stdout stays for results.
say() { printf '==> %s\n' "$*" >&2; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [[ $EUID -eq 0 ]]; }
target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$repo/target}"; }
