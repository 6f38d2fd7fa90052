#!/usr/bin/env bash
# Makes what deploy/compose/compose.yaml needs on the host: directories that their containers may write, and secrets.
#
# usage: deploy/compose/prepare.sh [--home DIR] [--secrets DIR]
#   Run it as root, again whenever you like: it never changes a secret that is there. At its end it names what only a person
#   can bring. --home is CHARLIEHUB_HOME (/opt/charliehub), --secrets is CHARLIEHUB_SECRETS (/etc/charliehub/secrets).
#
# Secrets are root's, mode 440, of a group without members on the host, 10400; each container has that group, and sees the
# files that it is given. mosquitto_passwd (Debian: mosquitto) makes the broker's file.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

readonly READERS=10400
home=${CHARLIEHUB_HOME:-/opt/charliehub} secrets=${CHARLIEHUB_SECRETS:-/etc/charliehub/secrets}

# What a person brings, and what it is.
readonly BROUGHT=(
  "traefik_static: Traefik's static configuration, from deploy/traefik/render.sh"
  "charliehub_ca: the authority of the provider's certificate, PEM"
  "provider_certificate: the provider's certificate, PEM, for the names provider and localhost and for 127.0.0.1"
  "provider_key: its key"
  "default_certificate: what Traefik serves to names without a certificate of their own, PEM"
  "default_key: its key"
  "authelia_users: users and their hashes, from deploy/authelia/users_database.yml.example"
  "ovh_application_key: of the OVH API, for wildcard certificates"
  "ovh_application_secret: likewise"
  "ovh_consumer_key: likewise"
  "unifi_credentials: what the UniFi API logs in with"
)

main() {
  while (($#)); do
    case $1 in
      --home | --secrets)
        (($# > 1)) || fail "$1 needs a directory"
        if [[ $1 == --home ]]; then home=$2; else secrets=$2; fi
        shift
        ;;
      -h | --help)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
      *) fail "unknown argument '$1': see deploy/compose/prepare.sh --help" ;;
    esac
    shift
  done
  is_root || fail "run it as root: it gives directories to the users of the containers"
  have mosquitto_passwd || fail "mosquitto_passwd is missing: apt-get install mosquitto (and disable its service)"
  umask 077
  directories
  generated
  brought
}

# directory PATH OWNER MODE: the owner is the user in the container
directory() { install -d -m "$3" -o "$2" -g "${4:-$2}" "$home/$1"; }

directories() {
  install -d -m 755 "$home"
  directory traefik/certs 0 700
  directory domain-manager/data 10401 700
  directory postgres/data 70 755
  directory authelia/redis-data 999 775 1000
  directory authelia/data 10402 700
  directory prometheus/data 65534 775
  directory alertmanager/data 65534 775
  directory monitoring/grafana 472 775
  directory filebrowser/files 1000 775
  directory filebrowser/data 1000 775
  directory docs 1000 755
  directory mosquitto/data 1883 775
}

generated() {
  local name
  install -d -m 750 -o 0 -g "$READERS" "$secrets"
  for name in postgres_password provider_database_password exporter_database_password authelia_session_secret \
    authelia_storage_encryption_key authelia_storage_password authelia_jwt_secret redis_password grafana_admin_password \
    mqtt_exporter_password; do
    [[ -e $secrets/$name ]] || random | keep "$name"
  done
  if [[ ! -e $secrets/redis_users ]]; then
    printf 'user default on #%s ~* &* +@all\n' "$(sha256sum <"$secrets/redis_password" | cut -d ' ' -f 1)" | keep redis_users
  fi
  if [[ ! -e $secrets/mqtt_users ]]; then
    # As a file of names and passwords that mosquitto_passwd turns into hashes, so that no password is on a command line.
    printf 'exporter:%s\n' "$(<"$secrets/mqtt_exporter_password")" >"$secrets/.mqtt_users"
    mosquitto_passwd -U "$secrets/.mqtt_users"
    keep mqtt_users <"$secrets/.mqtt_users"
    rm "$secrets/.mqtt_users"
  fi
}

# 43 letters and digits: 256 bits, and nothing that a URL or a shell would read otherwise. No newline at the end.
random() { { LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom || true; } | head -c 43; }

# keep NAME <VALUE: whole or not at all
keep() {
  local draft
  draft=$(mktemp "$secrets/.$1.XXXXXX")
  cat >"$draft"
  [[ -s $draft ]] || fail "nothing to keep as $1"
  chown "0:$READERS" "$draft"
  chmod 440 "$draft"
  mv -T "$draft" "$secrets/$1"
  say "made $secrets/$1"
}

brought() {
  local line name
  for line in "${BROUGHT[@]}"; do
    name=${line%%:*}
    if [[ -e $secrets/$name ]]; then
      chown "0:$READERS" "$secrets/$name"
      chmod 440 "$secrets/$name"
    else
      printf 'missing  %s  %s\n' "$secrets/$name" "${line#*: }"
    fi
  done
}

main "$@"
