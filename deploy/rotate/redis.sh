# shellcheck shell=bash
# [redis NAME]: Redis takes two passwords of a user at once (ACL). It is told hashes, so that no log of it has a password.
# To be sourced by deploy/rotate-secrets.

redis_programs() { echo redis-cli; }
redis_describe() { printf 'a new password of %s in %s%s' "$(setting "$1" user)" "$(setting "$1" file)" "$(also_in "$1")"; }

# With one of the two passwords, which goes by the environment.
redis_ask() { # NAME old|new WORDS...
  local name=$1 which=$2 socket ca where answer
  shift 2
  socket=$(setting "$name" socket) ca=$(setting "$name" tls_ca)
  where=(-h "$(setting "$name" host)" -p "$(setting "$name" port)")
  [[ ! $socket ]] || where=(-s "$socket")
  [[ ! $ca ]] || where+=(--tls --cacert "$ca")
  answer=$(REDISCLI_AUTH=$(kept "$name" "$which") timeout 10 redis-cli "${where[@]}" --user "$(setting "$name" user)" \
    --no-auth-warning -e "$@" 2>&1) || { printf '%s\n' "$answer" >&2 && return 1; }
  # A wrong password is only a warning to redis-cli.
  [[ $answer != *WRONGPASS* && $answer != *NOAUTH* && $answer != 'AUTH failed'* ]] || return 1
  printf '%s\n' "$answer"
}

redis_pings() { [[ $(redis_ask "$1" "$2" PING 2>/dev/null) == PONG ]]; }

redis_must_ping() { # NAME old|new
  redis_pings "$1" "$2" || { printf 'error: Redis does not let %s in with the %s password\n' "$(setting "$1" user)" "$2" >&2 && return 1; }
}

# For the next start of Redis: into its ACL file, else into its configuration.
redis_keep() { # NAME old|new
  redis_ask "$1" "$2" ACL SAVE >/dev/null 2>&1 || redis_ask "$1" "$2" CONFIG REWRITE >/dev/null
}

redis_hash() { kept "$1" "$2" | sha256sum | cut -d' ' -f1; }

redis_prepare() {
  local name=$1
  # shellcheck disable=SC2046 # files, one a word
  back_up "$name" "$(setting "$name" file)" $(setting "$name" into)
  last_word "$(setting "$name" file)" | keep "$name" old
  make_secret | keep "$name" new
  redis_must_ping "$name" old
}

redis_admit() {
  redis_ask "$1" old ACL SETUSER "$(setting "$1" user)" "#$(redis_hash "$1" new)" >/dev/null
  redis_keep "$1" old
  redis_must_ping "$1" new
}

redis_switch() { switch_to_new "$1"; }

redis_verify() {
  redis_must_ping "$1" new
  prove "$1"
}

redis_retire() {
  redis_forget "$1" old new
}

# Takes one of the two passwords away, with the other. One that is gone already is fine.
redis_forget() { # NAME WHICH BY
  redis_must_ping "$1" "$3"
  redis_ask "$1" "$3" ACL SETUSER "$(setting "$1" user)" "!$(redis_hash "$1" "$2")" >/dev/null 2>&1 || refused redis_pings "$1" "$2"
  redis_keep "$1" "$3"
}

redis_confirm() {
  refused redis_pings "$1" old
  redis_must_ping "$1" new
}

redis_undo() {
  bring_back "$1"
  reload "$1"
  redis_must_ping "$1" old
  redis_forget "$1" new old
  prove "$1"
}
