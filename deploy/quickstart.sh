#!/usr/bin/env bash
# The main job on real parts: routes live in PostgreSQL, an unmodified Traefik gets them in milliseconds.
#
# usage: deploy/quickstart.sh [--smoke] [--debug] [--data-dir DIR]
#   installs what is missing, builds, starts small backends, mosquitto, charliehub-provider with a private PostgreSQL,
#   Traefik and charliehub-edge-agent, all on loopback; prints what runs where and what to try; Ctrl-C stops it and removes
#   what it made.
#   --smoke         the same, then makes one change, shows it live, checks the sample routes, lets the agent find what is
#                   wrong with a file and that it was mended, stops and exits
#   --debug         with the debug build, which is made in a third of the time, is that of the tests, and answers later
#   --data-dir DIR  keeps the provider's data (database, tokens) there for the next start
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

unset DATABASE_URL "${!CHARLIEHUB_@}" # settings of another provider are not for this one
readonly BACKENDS=(auth docs grafana prometheus unifi portal new)

smoke=false profile=release data='' run='' site_address=''
declare -a parts=()  # names, in the order of their start
declare -A pid=()    # part -> process
declare -A port=()   # backend, part or entry point -> port on 127.0.0.1

main() {
  parse_arguments "$@"
  install_and_build
  make_run_directory
  trap stop_all EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  start_backends
  start_mosquitto
  start_provider
  start_traefik
  start_agent
  if $smoke; then
    smoke_test
  else
    trap 'exit 0' INT TERM HUP
    print_table
    until_one_ends
  fi
}

parse_arguments() {
  while (($#)); do
    case $1 in
      --smoke) smoke=true ;;
      --debug) profile=debug ;;
      --data-dir)
        (($# > 1)) || fail "--data-dir needs a directory"
        data=$2
        shift
        ;;
      -h | --help)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
      *) fail "unknown argument '$1': see deploy/quickstart.sh --help" ;;
    esac
    shift
  done
}

install_and_build() {
  have cargo || fail "Rust is missing: install it with rustup, then run this again"
  local tools=(cc curl mosquitto postgres traefik)
  if $smoke; then tools+=(ip mosquitto-clients); fi
  traefik=$("$repo/deploy/install-tools.sh" "${tools[@]}")
  local release=() takes='five minutes'
  if [[ $profile == release ]]; then release=(--release) takes='a quarter of an hour'; fi
  say "building ($profile): the first time takes $takes on two cores"
  cargo build --manifest-path "$repo/Cargo.toml" "${release[@]}" -p charliehub-provider -p charliehub-edge-agent -p charliehub-tests \
    --bin charliehub-provider --bin charliehub-edge-agent --bin hello-backend --bin probe
  bin=$(target_dir)/$profile
}

# In /tmp whatever TMPDIR says: PostgreSQL and mosquitto run as users of their own when we are root, and must get through.
make_run_directory() {
  run=$(mktemp -d /tmp/charliehub-run-XXXXXX)
  chmod 711 "$run"
  mkdir -m 700 "$run/logs"
  data=$(realpath -m "${data:-$run/data}")
}

# ---- parts

# start NAME COMMAND...: in a session of its own, so that Ctrl-C reaches only us and the parts stop in order; told to
# stop by the kernel when we are killed.
start() {
  local name=$1
  shift
  QUICKSTART_RUN=$run setpriv --pdeathsig TERM setsid "$@" >"$run/logs/$name.log" 2>&1 </dev/null &
  pid[$name]=$!
  parts+=("$name")
}

running() { kill -0 "${pid[$1]}" 2>/dev/null; }

# until_ready NAME SECONDS COMMAND...: waits for COMMAND to succeed; 1 when the part ended, or has not come that far in time.
until_ready() {
  local name=$1 deadline=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ! running "$name" || ((SECONDS >= deadline)); then return 1; fi
    sleep 0.05
  done
}

part_failed() {
  printf -- '---- last lines of %s\n' "$1" >&2
  tail -n 20 "$run/logs/$1.log" >&2
  printf -- '----\n' >&2
  fail "$1 ${2:-did not start}"
}

stop() {
  local name=$1 deadline=$((SECONDS + 15))
  kill -TERM "${pid[$name]}" 2>/dev/null || return 0
  while running "$name"; do
    if ((SECONDS >= deadline)); then
      say "$name does not stop: killed"
      kill -KILL "${pid[$name]}" 2>/dev/null || true
      return 1
    fi
    sleep 0.05
  done
}

# The last thing that runs, whatever the reason. Stops the last started first, but for the provider: it answers the poll
# that it holds, for which Traefik would wait 10 s before it ends.
stop_all() {
  local status=$? i
  trap '' INT TERM HUP
  [[ -z ${pid[provider]:-} ]] || stop provider || status=1
  for ((i = ${#parts[@]} - 1; i >= 0; i--)); do stop "${parts[i]}" || status=1; done
  [[ -z $site_address ]] || ip address del "$site_address/32" dev lo || status=1
  wait
  end_strays || status=1
  rm -rf "$run" || status=1
  exit "$status"
}

# What a part that failed did not stop itself: named, ended, and a failure of ours.
end_strays() {
  local stray
  local -a strays
  mapfile -t strays < <(strays_of_this_run)
  ((${#strays[@]})) || return 0
  for stray in "${strays[@]}"; do
    printf 'error: left running, ended now: %s\n' "$(tr '\0' ' ' <"/proc/$stray/cmdline")" >&2
    kill -TERM "$stray" 2>/dev/null || true
  done
  local deadline=$((SECONDS + 5))
  while [[ -n $(strays_of_this_run) ]] && ((SECONDS < deadline)); do sleep 0.05; done
  for stray in $(strays_of_this_run); do kill -KILL "$stray" 2>/dev/null || true; done
  return 1
}

# Known by the mark that start() gave it, and the private PostgreSQL, which gets a clean environment, by its own file.
strays_of_this_run() {
  local database
  grep -lsaF "QUICKSTART_RUN=$run" /proc/[0-9]*/environ | cut -d / -f 3 || true
  if read -r database 2>/dev/null <"$data/postgres/postmaster.pid" && [[ -d /proc/$database ]]; then
    printf '%s\n' "$database"
  fi
}

# ---- ports

port_is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# pick_port NAME [WANTED]: WANTED if we may have it, else one below the range that the kernel hands out by itself.
pick_port() {
  local candidate=${2:-0}
  if ((candidate == 0)) || ! is_root || port_is_taken "$candidate"; then
    candidate=$((20000 + RANDOM % 10000))
    while [[ " ${port[*]} " == *" $candidate "* ]] || port_is_taken "$candidate"; do
      candidate=$((20000 + RANDOM % 10000))
    done
  fi
  port[$1]=$candidate
}

# ---- the parts, in the order of their start

start_backends() {
  local name number
  start backends "$bin/hello-backend" "${BACKENDS[@]}"
  until_ready backends 10 backends_are_up || part_failed backends
  while read -r name number; do port[$name]=$number; done <"$run/logs/backends.log"
}

backends_are_up() { (($(wc -l <"$run/logs/backends.log") == ${#BACKENDS[@]})); }

# Started as root mosquitto becomes user mosquitto, and with that would lose what start() arranged; so it starts as that user.
start_mosquitto() {
  local as_itself=()
  if is_root; then as_itself=(setpriv --reuid mosquitto --regid mosquitto --clear-groups --pdeathsig TERM); fi
  pick_port mosquitto
  printf 'listener %s 127.0.0.1\nallow_anonymous true\n' "${port[mosquitto]}" >"$run/mosquitto.conf"
  chmod 644 "$run/mosquitto.conf"
  start mosquitto "${as_itself[@]}" mosquitto -c "$run/mosquitto.conf"
  until_ready mosquitto 10 port_is_taken "${port[mosquitto]}" || part_failed mosquitto
}

start_provider() {
  say "starting charliehub-provider with a private PostgreSQL"
  pick_port provider
  pick_port dashboard 8091
  cat >"$run/provider.toml" <<TOML
[compile]
entry_points = ["web", "websecure", "mqtt"]
self_url = "http://127.0.0.1:${port[provider]}"

[access]
forward_auth = { address = "http://127.0.0.1:${port[auth]}/api/authz/forward-auth", auth_response_headers = ["Remote-User"] }

[[traefik]]
instance = "quickstart"
api = "http://127.0.0.1:${port[dashboard]}"
TOML
  start provider "$bin/charliehub-provider" serve --config "$run/provider.toml" --data-dir "$data" --listen "127.0.0.1:${port[provider]}"
  until_ready provider 60 provider_is_ready || part_failed provider
  local variables=() name
  for name in auth docs grafana prometheus unifi portal; do variables+=(-v "$name=${port[$name]}"); done
  psql <"$repo/deploy/sample-sites.sql"
  psql -v "mqtt=${port[mosquitto]}" "${variables[@]}" <"$repo/deploy/sample-routes.sql"
  psql <"$repo/deploy/sample-sites.sql"
}

# With kept data it is ready before its database is, by the last configuration that it knows.
provider_is_ready() {
  curl -sf --max-time 5 "http://127.0.0.1:${port[provider]}/readyz" && psql -c 'SELECT count(*) FROM domains'
}

psql() { "$bin/charliehub-provider" psql --data-dir "$data" -- -qX -v ON_ERROR_STOP=1 "$@"; }

# Somebody may take a port between our look and Traefik's: then once more, with others. The dashboard stays where it is: the
# provider was told that it reads there what Traefik runs.
start_traefik() {
  local token attempt
  say "starting Traefik"
  token=$(traefik_token)
  for attempt in 1 2 3; do
    pick_port web 80
    pick_port websecure 443
    pick_port mqtt 8883
    render_traefik_yaml "$token"
    start traefik "$traefik" --configfile="$run/traefik.yaml"
    if until_ready traefik 30 docs_is_live; then return; fi
    if ((attempt == 3)) || ! grep -q 'address already in use' "$run/logs/traefik.log"; then break; fi
    unset 'parts[-1]' 'port[web]' 'port[websecure]' 'port[mqtt]'
  done
  part_failed traefik "serves no route"
}

# It watches this machine: the disk, and that nobody but us reads the administrator's token. The sample's tunnels are hub2's.
start_agent() {
  say "starting charliehub-edge-agent"
  pick_port agent 9745
  token quickstart-agent --role agent --subject quickstart >"$run/agent.token"
  cat >"$run/agent.toml" <<TOML
name = "quickstart"
listen = "127.0.0.1:${port[agent]}"
state_dir = "$run/agent"

[provider]
url = "http://127.0.0.1:${port[provider]}"
token_file = "$run/agent.token"

[timing]
host = "2s"

[[policy.files]]
paths = ["$data/admin.token"]
mode = "600"
secret = true

[[policy.disks]]
path = "$data"
warning_percent = 2
critical_percent = 1
TOML
  mkdir -m 700 "$run/agent"
  start agent "$bin/charliehub-edge-agent" --config "$run/agent.toml" run
  until_ready agent 10 agent_says ok || part_failed agent
}

# agent_says STATUS: of the token's file, at the provider
agent_says() {
  "$bin/charliehub-provider" agents list --json --data-dir "$data" --server "http://127.0.0.1:${port[provider]}" |
    tr -d ' \n' | grep -q '"check":"file-mode"[^}]*"status":"'"$1"'"'
}

traefik_token() { token quickstart --role traefik; }

# token NAME ARGUMENTS...: kept with kept data, so that a second start does not make a second one
token() {
  local kept=$data/$1.token
  [[ -s $kept ]] || (umask 077 && "$bin/charliehub-provider" token create --name "$1" "${@:2}" \
    --config "$run/provider.toml" --data-dir "$data" >"$kept")
  cat "$kept"
}

render_traefik_yaml() { # TOKEN
  local text
  text=$(<"$repo/deploy/traefik/traefik.yaml")
  text=${text//@WEB@/127.0.0.1:${port[web]}}
  text=${text//@WEBSECURE@/127.0.0.1:${port[websecure]}}
  text=${text//@MQTT@/127.0.0.1:${port[mqtt]}}
  text=${text//@DASHBOARD@/127.0.0.1:${port[dashboard]}}
  text=${text//@PROVIDER@/http://127.0.0.1:${port[provider]}}
  text=${text//@INSTANCE@/quickstart}
  text=${text//@TOKEN@/$1}
  (umask 077 && printf '%s\n' "$text" >"$run/traefik.yaml")
}

# https HOST [CURL ARGUMENTS...]: a request for HOST through our Traefik
https() {
  local host=$1
  shift
  curl -sk --max-time 5 --resolve "$host:${port[websecure]}:127.0.0.1" "$@" "https://$host:${port[websecure]}/"
}

docs_is_live() { https docs.charliehub.net -f | grep -qx 'hello from docs'; }

# ---- serving

row() { printf '  %-30s %-30s %s\n' "$@"; }

print_table() {
  local suffix='' psql_line
  ((port[websecure] == 443)) || suffix=:${port[websecure]}
  psql_line="$bin/charliehub-provider psql --data-dir $data --"
  echo
  row 'what runs' 'where' 'what it is'
  row 'Traefik: http, https, mqtt' "127.0.0.1:${port[web]}, ${port[websecure]}, ${port[mqtt]}" 'the edge'
  row 'Traefik: dashboard, metrics' "127.0.0.1:${port[dashboard]}" "http://127.0.0.1:${port[dashboard]}/dashboard/"
  row 'charliehub-provider' "127.0.0.1:${port[provider]}" "http://127.0.0.1:${port[provider]}/debug"
  row 'charliehub-edge-agent' "127.0.0.1:${port[agent]}" "http://127.0.0.1:${port[agent]}/findings"
  row 'PostgreSQL' "$data" 'private, of the provider'
  row 'auth.charliehub.net' "127.0.0.1:${port[auth]}" 'stands in for Authelia'
  row 'docs.charliehub.net' "127.0.0.1:${port[docs]}" ''
  row 'grafana.charliehub.net' "127.0.0.1:${port[grafana]}" 'internal: 403 but from 10.44.0.0/16, 10.35.0.0/16'
  row 'prometheus.charliehub.net' "127.0.0.1:${port[prometheus]}" 'internal'
  row 'unifi.charliehub.net' "127.0.0.1:${port[unifi]}" '401 without --cookie authelia_session=YOU'
  row '*.trevarn.com' "127.0.0.1:${port[portal]}" 'customer portals'
  row 'mqtt.verdegris.eu (TCP, TLS)' "127.0.0.1:${port[mosquitto]}" 'mosquitto'
  row 'logs' "$run/logs" ''
  cat <<TRY

Try a route:
  curl -k --resolve docs.charliehub.net:${port[websecure]}:127.0.0.1 https://docs.charliehub.net$suffix/
See the routes, add one by the API (first as a dry run: add ?dry_run=true), see it answer:
  $psql_line -c 'SELECT domain, access_tier, backend_port FROM domains'
  curl -H "Authorization: Bearer \$(cat $data/admin.token)" -H 'Content-Type: application/json' http://127.0.0.1:${port[provider]}/api/domains -d '{"domain": "new.charliehub.net", "tls_mode": "default", "backend_host": "127.0.0.1", "backend_port": ${port[new]}}'
  curl -k --resolve new.charliehub.net:${port[websecure]}:127.0.0.1 https://new.charliehub.net$suffix/
The same by psql, for the site networks only: 403 from here, at once:
  $psql_line -c "UPDATE domains SET access_tier = 'internal' WHERE domain = 'new.charliehub.net'"

What the agent on this machine finds, and what the provider knows of it:
  $bin/charliehub-edge-agent --config $run/agent.toml check
  $bin/charliehub-provider agents list --data-dir $data --server http://127.0.0.1:${port[provider]}
See whether all of it is right, what is not and why; sign in with the token of $data/admin.token:
  http://127.0.0.1:${port[provider]}/debug

Ctrl-C stops all of it$([[ $data == "$run"/* ]] || echo "; the data stays in $data").
TRY
}

until_one_ends() {
  local ended name
  wait -n -p ended || true
  for name in "${parts[@]}"; do
    [[ ${pid[$name]} != "$ended" ]] || part_failed "$name" "ended by itself"
  done
}

# ---- smoke

smoke_test() {
  local host=smoke-$RANDOM.charliehub.net id
  say "one change by psql"
  "$bin/probe" live --connect "127.0.0.1:${port[websecure]}" --host "$host" --expect 'hello from new' \
    --sql "INSERT INTO domains (domain, tls_mode, backend_host, backend_port) VALUES ('$host', 'default', '127.0.0.1', ${port[new]})" \
    -- "$bin/charliehub-provider" psql --data-dir "$data" -- -qAtX -v ON_ERROR_STOP=1
  psql -c "DELETE FROM domains WHERE domain = '$host'"

  say "changes by the API"
  id=$(api POST '?wait=live' "{\"domain\":\"$host\",\"tls_mode\":\"default\",\"backend_host\":\"127.0.0.1\",\"backend_port\":${port[new]}}" |
    sed -n -E 's/^\{"id":"([^"]+)".*"state":"served".*/\1/p')
  [[ -n $id ]] || fail "the API did not say that $host is served"
  until_serves "$host" 200
  api PATCH "/$id?wait=live" '{"access_tier": "internal"}' >/dev/null
  until_serves "$host" 403
  api DELETE "/$id?wait=live" >/dev/null
  until_serves "$host" 404
  printf '  ok  %s: made, closed to the internet, removed\n' "$host"

  say "the sample routes"
  expect docs.charliehub.net 200 docs
  expect auth.charliehub.net 200 auth
  expect kunde.trevarn.com 200 portal
  expect unifi.charliehub.net 401
  expect unifi.charliehub.net 200 unifi --cookie authelia_session=anna
  expect nobody.charliehub.net 404
  expect_internal grafana
  expect_internal prometheus
  expect_mqtt

  say "the agent"
  chmod 644 "$data/admin.token"
  until_agent_says critical
  chmod 600 "$data/admin.token"
  until_agent_says ok
  printf '  ok  a secret that others could read was found, and that it is mended\n'
}

# until_agent_says STATUS
until_agent_says() {
  local deadline=$((SECONDS + 30))
  until agent_says "$1"; do
    ((SECONDS < deadline)) || fail "the agent does not say $1 of a token's file"
    sleep 0.2
  done
}

# api METHOD PATH [BODY]: a request for the rows, as admin
api() {
  curl -sf --max-time 15 -X "$1" -H "Authorization: Bearer $(<"$data/admin.token")" -H 'Content-Type: application/json' \
    ${3:+--data "$3"} "http://127.0.0.1:${port[provider]}/api/domains$2" || fail "the API refused $1 $2"
}

# until_serves HOST STATUS
until_serves() {
  local deadline=$((SECONDS + 5))
  until [[ $(https "$1" -o /dev/null -w '%{http_code}') == "$2" ]]; do
    ((SECONDS < deadline)) || fail "$1 does not answer $2"
    sleep 0.05
  done
}

# expect HOST STATUS [BACKEND [CURL ARGUMENTS...]]
expect() {
  local host=$1 status=$2 backend=${3:-} got
  shift $(($# < 3 ? $# : 3))
  got=$(https "$host" "$@" -o "$run/answer" -w '%{http_code}' || true)
  [[ $got == "$status" ]] || fail "$host answers $got, not $status${*:+ (with $*)}"
  [[ -z $backend ]] || grep -qx "hello from $backend" "$run/answer" || fail "$host is not answered by $backend"
  printf '  ok  %s %s%s\n' "$host" "$status" "${*:+ (with $*)}"
}

# Refused from here, whatever a header says; let in from an address of a site, which we give ourselves for the moment.
expect_internal() {
  expect "$1.charliehub.net" 403
  expect "$1.charliehub.net" 403 '' -H 'X-Forwarded-For: 10.44.0.1' -H 'X-Real-Ip: 10.44.0.1'
  if take_site_address; then
    expect "$1.charliehub.net" 200 "$1" --interface "$site_address"
  else
    printf '  --  %s.charliehub.net from a site: not checked, only root may add the address\n' "$1"
  fi
}

take_site_address() {
  local candidate attempt
  [[ -z $site_address ]] || return 0
  is_root || return 1
  for attempt in {1..20}; do
    candidate=10.44.255.$((1 + RANDOM % 254))
    if ip address add "$candidate/32" dev lo 2>"$run/logs/ip.log"; then
      site_address=$candidate
      return 0
    fi
  done
  return 1
}

# A retained message, so that it does not matter who is first; through TLS, found by its server name.
expect_mqtt() {
  local got
  start tunnel "$bin/probe" tunnel --connect "127.0.0.1:${port[mqtt]}" --sni mqtt.verdegris.eu
  until_ready tunnel 10 test -s "$run/logs/tunnel.log" || part_failed tunnel
  port[tunnel]=$(head -n 1 "$run/logs/tunnel.log")
  mosquitto_pub -h 127.0.0.1 -p "${port[tunnel]}" -q 1 -r -t quickstart -m hello || part_failed mosquitto "took no message"
  got=$(mosquitto_sub -h 127.0.0.1 -p "${port[tunnel]}" -q 1 -t quickstart -C 1 -W 10) || part_failed mosquitto "gave no message"
  [[ $got == hello ]] || fail "mqtt.verdegris.eu gave '$got', not 'hello'"
  printf '  ok  mqtt.verdegris.eu: one message, published and received through TLS\n'
}

main "$@"
