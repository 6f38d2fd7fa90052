#!/usr/bin/env bash
# Two PostgreSQLs, one the primary and one its standby. Copy it to both hosts; run it as the user postgres.
#
# usage: pair.sh prepare                  on the primary: role, rights and database for what follows
#        pair.sh clone HOST[:PORT]        on the other: make $PGDATA, which must be empty, a standby of HOST
#        pair.sh synchronous on|off       on the primary: a commit waits until the standby has it on disk, or does not
#        pair.sh promote [--lost]         on the standby: make it the primary; --lost: although the old one may live
#        pair.sh rejoin HOST[:PORT]       on the old primary, stopped: make it a standby of the new one at HOST
#        pair.sh status                   on either: what it is, who streams, how far behind
#
# From the environment: PGDATA; PGHOST and PGPORT of the local server (a socket's directory); PGPASSFILE, in which the
# password of charliehub_replication is for both hosts (chmod 600), which `prepare` sets from its first line that names it;
# NAME, what this standby is called (default: the host's name); PGCONFIG, postgresql.conf where it is not in PGDATA (Debian).
#
# It stands alone, without deploy/lib.sh: it goes to hosts that have nothing else of this project.
set -euo pipefail

PATH=$PATH:$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
readonly ROLE=charliehub_replication
passfile=${PGPASSFILE:-$HOME/.pgpass}
name=${NAME:-$(hostname -s)}
name=${name//[^a-z0-9_]/_} # a slot is called so too

say() { printf '==> %s\n' "$*" >&2; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}
sql() { psql -XAtq -v ON_ERROR_STOP=1 -d postgres "$@"; }

usage() { sed -n '2,/^set -/{s/^# \{0,1\}//;/^set -/!p}' "$0"; }

main() {
  if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    usage
    return
  fi
  [[ $EUID -ne 0 ]] || fail "run this as the user postgres: runuser -u postgres -- $0 $*"
  case ${1:-} in
    prepare) prepare ;;
    clone) clone "${2:?HOST is missing}" ;;
    synchronous) synchronous "${2:-}" ;;
    promote) promote "${2:-}" ;;
    rejoin) rejoin "${2:?HOST is missing}" ;;
    status) status ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
}

# host, port and the connection string of the role on the server at $1.
address() {
  host=${1%%:*} port=5432
  if [[ $1 == *:* ]]; then port=${1##*:}; fi
  other="host=$host port=$port user=$ROLE passfile=$passfile application_name=$name"
}

is_standby() { [[ $(sql -c 'SELECT pg_is_in_recovery()') == t ]]; }

prepare() {
  local password
  password=$(awk -F: -v role="$ROLE" '$4 == role { print $5; exit }' "$passfile") || true
  [[ -n $password ]] || fail "$passfile has no line for $ROLE: HOST:PORT:*:$ROLE:PASSWORD"
  if is_standby; then fail "this is a standby; run it on the primary"; fi
  # By standard input: arguments can be read by others. What pg_rewind reads needs no superuser.
  sql <<SQL
SET password_encryption = 'scram-sha-256';
DO \$\$ BEGIN CREATE ROLE $ROLE LOGIN REPLICATION; EXCEPTION WHEN duplicate_object THEN NULL; END \$\$;
ALTER ROLE $ROLE PASSWORD '${password//\'/\'\'}';
GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), pg_read_binary_file(text),
  pg_read_binary_file(text, bigint, bigint, boolean) TO $ROLE;
SQL
  [[ $(sql -c "SELECT current_setting('wal_log_hints')") == on ]] || fail "charliehub.conf is not read yet: install it and restart"
  say "ready: now clone on the other host"
}

clone() {
  address "$1"
  [[ -z $(ls -A "$PGDATA" 2>/dev/null) ]] || fail "$PGDATA is not empty: stop the server there and move it away"
  drop_slot
  pg_basebackup -d "$other" -D "$PGDATA" -R -X stream -c fast -C -S "$name"
  say "start it, then ask: pair.sh status"
}

# A slot of an earlier time would keep WAL for nobody. Only an idle one can be dropped.
drop_slot() {
  psql "$other dbname=postgres" -XAtqc "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
    WHERE slot_name = '$name' AND NOT active" >/dev/null
}

synchronous() {
  if is_standby; then fail "this is a standby; run it on the primary"; fi
  case $1 in
    on)
      [[ $(sql -c 'SELECT count(*) FROM pg_stat_replication') != 0 ]] ||
        fail "no standby streams: every write would wait for one; see pair.sh status"
      sql -c "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'" -c 'SELECT pg_reload_conf()' >/dev/null
      say "a commit is one when the standby has it too; without a standby writes wait: pair.sh synchronous off"
      ;;
    off)
      sql -c 'ALTER SYSTEM RESET synchronous_standby_names' -c 'SELECT pg_reload_conf()' >/dev/null
      say "a commit waits for nobody; what a lost primary had not sent is lost with it"
      ;;
    *) fail "say on or off" ;;
  esac
}

promote() {
  is_standby || fail "this is no standby"
  local conninfo
  conninfo=$(sql -c "SELECT current_setting('primary_conninfo')")
  if [[ ${1:-} != --lost ]] && psql "$conninfo dbname=postgres connect_timeout=3" -XAtqc 'SELECT 1' >/dev/null 2>&1; then
    fail "the primary still answers: stop it first, or two will take writes (--lost: it is cut off from who writes)"
  fi
  # It waits for nobody until it has a standby of its own.
  sql -c 'SELECT pg_promote(true, 60)' | grep -q t || fail "it was not promoted in 60 s; see its log"
  sql -c 'ALTER SYSTEM RESET synchronous_standby_names' -c 'SELECT pg_reload_conf()' >/dev/null
  sql -c 'CHECKPOINT' # so that pg_rewind sees the new timeline
  say "this is the primary now; keep the old one stopped until it has rejoined"
}

rejoin() {
  address "$1"
  if psql -XAtqc 'SELECT 1' -d postgres >/dev/null 2>&1; then fail "stop this server first"; fi
  local -a config=()
  if [[ -n ${PGCONFIG:-} ]]; then config=(--config-file="$PGCONFIG"); fi
  pg_rewind -D "$PGDATA" --source-server="$other dbname=postgres" -R "${config[@]}"
  find "$PGDATA/pg_replslot" -mindepth 1 -delete # its own slots of before: nobody would read them, and they keep WAL
  drop_slot
  psql "$other dbname=postgres replication=database" -XAtqc "CREATE_REPLICATION_SLOT \"$name\" PHYSICAL RESERVE_WAL" >/dev/null
  printf "primary_slot_name = '%s'\n" "$name" >>"$PGDATA/postgresql.auto.conf"
  say "start it, then ask: pair.sh status"
}

status() {
  if is_standby; then
    sql -c "SELECT 'standby of ' || coalesce((SELECT sender_host || ':' || sender_port || ', ' || status FROM pg_stat_wal_receiver), 'nobody: it does not stream')
      || ', last commit ' || coalesce(pg_last_xact_replay_timestamp()::text, 'none yet')"
  else
    sql -c "SELECT 'primary; a commit waits for ' || coalesce(nullif(current_setting('synchronous_standby_names'), ''), 'nobody')" \
      -c "SELECT 'standby ' || application_name || ' at ' || coalesce(host(client_addr), 'this host') || ': ' || state || ', ' || sync_state
            || ', ' || pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) || ' bytes behind' FROM pg_stat_replication" \
      -c "SELECT 'slot ' || slot_name || ': nobody reads it, it keeps ' || pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))
            FROM pg_replication_slots WHERE NOT active"
  fi
}

main "$@"
