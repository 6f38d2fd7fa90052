# shellcheck shell=bash
# Secrets of which only one is valid at a time: the switch itself is the change, and there is nothing to withdraw.
# [file], [authelia-storage], [grafana], [command]; and [manual], which only a person can change.
# To be sourced by deploy/rotate-secrets.

file_programs() { :; }
file_describe() { printf 'a new secret in %s%s; who signed in before may have to again' "$(setting "$1" file)" "$(also_in "$1")"; }

file_prepare() {
  local name=$1 length
  length=$(setting "$name" length)
  # shellcheck disable=SC2046 # files, one a word
  back_up "$name" "$(setting "$name" file)" $(setting "$name" into)
  last_word "$(setting "$name" file)" | keep "$name" old
  make_secret "$length" | keep "$name" new
}

file_admit() { :; }

file_switch() { switch_to_new "$1"; }

file_verify() { prove "$1"; }
file_retire() { :; }
file_confirm() { [[ $(last_word "$(setting "$1" file)") == "$(kept "$1" new)" ]]; }

file_undo() {
  bring_back "$1"
  reload "$1"
  prove "$1"
}

# What encrypts Authelia's database: its own command writes everything anew. Authelia stands still meanwhile.
authelia_storage_programs() {
  local words
  read -ra words <<<"$(setting "$1" command)"
  printf '%s\n' "${words[0]}"
}
authelia_storage_describe() { printf 'the database of Authelia with a new key, in %s' "$(setting "$1" key_file)"; }

storage_encryption() { # NAME old|new WORDS...
  local name=$1 which=$2 words
  shift 2
  read -ra words <<<"$(setting "$name" command)"
  AUTHELIA_STORAGE_ENCRYPTION_KEY_FILE=${state:?}/run/$name/$which "${words[@]}" storage encryption "$@" \
    --config "$(setting "$name" settings)" 8>&-
}

# Its exit code is 0 either way: the text tells.
authelia_opens() { storage_encryption "$1" "$2" check | grep -q 'Validation: SUCCESS'; }

authelia_storage_prepare() {
  local name=$1
  back_up "$name" "$(setting "$name" key_file)"
  last_word "$(setting "$name" key_file)" | keep "$name" old
  make_secret 64 | keep "$name" new
  authelia_opens "$name" old
}

authelia_storage_admit() { :; }

authelia_storage_switch() {
  run_command "$1" stop
  storage_encryption "$1" old change-key --new-encryption-key "$(kept "$1" new)" >/dev/null
  line "$1" new | put "$(setting "$1" key_file)"
  run_command "$1" start
}

authelia_storage_verify() {
  authelia_opens "$1" new
  prove "$1"
}

authelia_storage_retire() { :; }
authelia_storage_confirm() { refused authelia_opens "$1" old; }

authelia_storage_undo() {
  run_command "$1" stop
  if ! authelia_opens "$1" old; then
    storage_encryption "$1" new change-key --new-encryption-key "$(kept "$1" old)" >/dev/null
    authelia_opens "$1" old
  fi
  bring_back "$1"
  run_command "$1" start
  prove "$1"
}

grafana_programs() {
  local words
  read -ra words <<<"$(setting "$1" command)"
  printf '%s\n' "${words[0]}" curl
}
grafana_describe() { printf 'a new password of %s in %s' "$(setting "$1" user)" "$(setting "$1" file)"; }

grafana_status() { # NAME old|new
  printf 'user = "%s:%s"\n' "$(setting "$1" user)" "$(kept "$1" "$2")" |
    curl -s --max-time 10 -o /dev/null -w '%{http_code}' -K - "$(setting "$1" url)/api/org"
}
grafana_opens() { [[ $(grafana_status "$1" "$2") == 200 ]]; }

grafana_set() { # NAME old|new
  local words
  read -ra words <<<"$(setting "$1" command)"
  kept "$1" "$2" | "${words[@]}" admin reset-admin-password --password-from-stdin >/dev/null 8>&-
}

grafana_prepare() {
  local name=$1
  back_up "$name" "$(setting "$name" file)"
  last_word "$(setting "$name" file)" | keep "$name" old
  make_secret | keep "$name" new
  grafana_opens "$name" old
}

grafana_admit() { :; }

grafana_switch() {
  grafana_set "$1" new
  line "$1" new | put "$(setting "$1" file)"
}

grafana_verify() { within_patience 'Grafana takes the new password' grafana_opens "$1" new; }
grafana_retire() { :; }
grafana_confirm() { refused grafana_opens "$1" old; }

grafana_undo() {
  grafana_opens "$1" old || grafana_set "$1" old
  bring_back "$1"
  within_patience 'Grafana takes the old password' grafana_opens "$1" old
}

command_programs() {
  local words
  read -ra words <<<"$(setting "$1" change)"
  printf '%s\n' "${words[0]}"
}
command_describe() { printf 'runs %s' "$(setting "$1" change)"; }

command_prepare() {
  # shellcheck disable=SC2046 # files and folders, one a word
  back_up "$1" $(setting "$1" files)
}
command_admit() { :; }
command_switch() {
  run_command "$1" change
  reload "$1"
}
command_verify() { prove "$1"; }
command_retire() { :; }
command_confirm() { prove "$1"; }
command_undo() {
  bring_back "$1"
  reload "$1"
  prove "$1"
}

manual_programs() { :; }
manual_describe() { printf 'needs a person: %s' "$(setting "$1" says)"; }

# A person is told when it is time; until the person says `--done` the agent's check `recent` has a finding.
manual_remind() { # NAME
  local name=$1 file=${state:?}/stamps/$1 days age=never
  days=$(setting "$name" days)
  if [[ -e $file ]]; then
    age=$((($(date +%s) - $(stat -c %Y "$file")) / 86400))
    ((age >= days)) || { record "$name" "was done $age days ago: not yet" && return; }
    age="$age days ago"
  fi
  record "$name" "NEEDS A PERSON (last done: $age): $(setting "$name" says); then: rotate-secrets --done $name"
}
