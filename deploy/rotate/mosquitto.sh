# shellcheck shell=bash
# [mosquitto NAME]: the broker knows one password for each user, so two users take turns. A client's settings name its user
# and the user's file of the password (`secrets`/USER): both change when the user's name is replaced in one file.
# To be sourced by deploy/rotate-secrets.

mosquitto_programs() { echo mosquitto_passwd mosquitto_pub; }
mosquitto_describe() { printf 'users %s take turns%s' "$(setting "$1" users)" "$(also_in "$1")"; }

# The user in the first of the files.
mosquitto_user() { # NAME
  local one two file
  read -r one two <<<"$(setting "$1" users)"
  read -r file _ <<<"$(setting "$1" into)"
  if grep -qF -- "$one" "$file"; then printf '%s %s' "$one" "$two"; else
    grep -qF -- "$two" "$file" || { printf 'error: %s names neither %s nor %s\n' "$file" "$one" "$two" >&2 && return 1; }
    printf '%s %s' "$two" "$one"
  fi
}

mosquitto_prepare() {
  local name=$1 users old new folder
  users=$(mosquitto_user "$name")
  read -r old new <<<"$users"
  folder=$(setting "$name" secrets)
  [[ -e $folder/$new ]] || install -m 600 /dev/null "$folder/$new"
  chown --reference="$folder/$old" "$folder/$new"
  chmod --reference="$folder/$old" "$folder/$new"
  # shellcheck disable=SC2046 # files, one a word
  back_up "$name" "$(setting "$name" passwords)" $(setting "$name" into) "$folder/$old" "$folder/$new"
  printf '%s' "$old" | keep "$name" old-user
  printf '%s' "$new" | keep "$name" new-user
  last_word "$folder/$old" | keep "$name" old
  make_secret | keep "$name" new
  mosquitto_opens "$name" old
}

# One message, with one of the two. User and password go by a file of options.
mosquitto_opens() { # NAME old|new
  local name=$1 home=${state:?}/run/$1/options-$2 ca
  ca=$(setting "$name" ca_file)
  mkdir -p "$home"
  printf -- '-u %s\n-P %s\n' "$(kept "$name" "$2-user")" "$(kept "$name" "$2")" >"$home/mosquitto_pub"
  XDG_CONFIG_HOME=$home timeout 10 mosquitto_pub -h "$(setting "$name" host)" -p "$(setting "$name" port)" \
    ${ca:+--cafile "$ca"} -i "rotate-$RANDOM$RANDOM" -q 1 -t "$(setting "$name" topic)" -m rotated
}

# The file of users without one of them, and with a line for it where there is one on stdin.
mosquitto_users() { # NAME USER
  local file
  file=$(setting "$1" passwords)
  { grep -v "^$2:" "$file" || true; cat; } | keep "$1" users
  kept "$1" users | put "$file"
  run_command "$1" broker_reload
}

mosquitto_admit() {
  local name=$1 user
  user=$(kept "$name" new-user)
  printf '%s:%s\n' "$user" "$(kept "$name" new)" | keep "$name" line
  mosquitto_passwd -U "$state/run/$name/line"
  kept "$name" line | mosquitto_users "$name" "$user"
  line "$name" new | put "$(setting "$name" secrets)/$user"
  within_patience 'the broker knows the new user' mosquitto_opens "$name" new
}

mosquitto_switch() {
  switch_consumers "$1" "$(kept "$1" old-user)" "$(kept "$1" new-user)"
  reload "$1"
}

mosquitto_verify() {
  mosquitto_opens "$1" new
  prove "$1"
}

mosquitto_retire() { mosquitto_users "$1" "$(kept "$1" old-user)" </dev/null; }

mosquitto_confirm() {
  within_patience 'the old user is refused' refused mosquitto_opens "$1" old
  mosquitto_opens "$1" new
}

mosquitto_undo() {
  bring_back "$1"
  run_command "$1" broker_reload
  reload "$1"
  within_patience 'the old user is let in' mosquitto_opens "$1" old
  prove "$1"
}
