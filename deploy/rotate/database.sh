# shellcheck shell=bash
# [database]: two roles take turns, members of the role that owns the tables. Who has the URL's file switches by itself;
# the provider does within a second or two. To be sourced by deploy/rotate-secrets.

database_programs() { echo psql setsid; }
database_describe() { printf 'roles %s take turns in %s' "$(setting "$1" roles)" "$(setting "$1" url_file)"; }

# user, password and the rest of the URL in the file, into three variables of the caller.
split_url() { # URL
  # shellcheck disable=SC2034 # the caller's
  [[ $1 =~ ^(postgres(ql)?://)([^:@/]+):([^@/]+)@(.+)$ ]] || {
    echo 'error: url_file holds no postgres://USER:PASSWORD@HOST/DATABASE' >&2
    return 1
  }
  user=${BASH_REMATCH[3]} password=$(printf '%b' "${BASH_REMATCH[4]//%/\\x}") rest=${BASH_REMATCH[1]}${BASH_REMATCH[5]}
}

# As the role that has this URL. The password goes by the environment, which others do not see.
sql_by() { # URL SQL
  local user password rest
  split_url "$1"
  PGUSER=$user PGPASSWORD=$password PGCONNECT_TIMEOUT=5 psql -XAtq -v ON_ERROR_STOP=1 -c "$2" "$rest" </dev/null
}

# As the one who may change roles. Variables behind the SQL, as psql has them: name=value.
sql_admin() { # NAME SQL VARIABLE...
  local name=$1 sql=$2 variables=() word
  shift 2
  for word in "$@"; do variables+=(-v "$word"); done
  PGCONNECT_TIMEOUT=5 psql -XAtq -v ON_ERROR_STOP=1 "${variables[@]}" "$(setting "$name" admin)" <<<"$sql"
}

other_role() { # NAME ROLE
  local one two
  read -r one two <<<"$(setting "$1" roles)"
  case $2 in
    "$one") printf '%s' "$two" ;;
    "$two") printf '%s' "$one" ;;
    *) printf "error: %s is neither %s nor %s: put one of them into url_file first\n" "$2" "$one" "$two" >&2 && return 1 ;;
  esac
}

database_prepare() {
  local name=$1 file old user password rest new secret
  file=$(setting "$name" url_file)
  old=$(last_word "$file")
  split_url "$old"
  new=$(other_role "$name" "$user")
  sql_by "$old" 'SELECT 1' >/dev/null
  sql_admin "$name" 'SELECT 1' >/dev/null
  secret=$(make_secret)
  back_up "$name" "$file"
  printf '%s' "$user" | keep "$name" old-role
  printf '%s' "$new" | keep "$name" new-role
  printf '%s' "$secret" | keep "$name" password
  printf '%s' "$old" | keep "$name" old
  printf '%s' "${rest%%://*}://$new:$secret@${rest#*://}" | keep "$name" new
}

database_admit() {
  local name=$1 role secret said
  role=$(kept "$name" new-role) secret=$(kept "$name" password)
  sql_admin "$name" "
    SELECT format('CREATE ROLE %I IN ROLE %I', :'role', :'owner')
     WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \\gexec
    ALTER ROLE :\"role\" LOGIN;
    ALTER ROLE :\"role\" SET role = :'owner';" "role=$role" "owner=$(setting "$name" owner)"
  # psql makes the verifier: the server, and its log, never see the password. Without a terminal it reads stdin.
  said=$(printf '%s\n%s\n' "$secret" "$secret" | PGCONNECT_TIMEOUT=5 setsid -w psql -Xq -v ON_ERROR_STOP=1 \
    -c "\\password $role" "$(setting "$name" admin)" 2>&1) || { sed '/^Enter /d' <<<"$said" >&2 && return 1; }
  sql_by "$(kept "$name" new)" 'SELECT 1' >/dev/null
}

database_switch() {
  kept "$1" new | put "$(setting "$1" url_file)"
  reload "$1"
}

# Sessions of the provider that still have a role.
no_provider_has() { # NAME ROLE
  local count
  count=$(sql_admin "$1" "SELECT count(*) FROM pg_stat_activity
    WHERE usename = :'role' AND application_name LIKE 'charliehub-provider%'" "role=$2")
  [[ $count == 0 ]]
}

database_verify() {
  local name=$1
  sql_by "$(kept "$name" new)" 'SELECT 1' >/dev/null
  within_patience "the provider follows $(setting "$name" url_file)" no_provider_has "$name" "$(kept "$name" old-role)"
}

# A role that nobody uses until its turn comes.
lay_down() { # NAME ROLE
  sql_admin "$1" "
    SELECT format('ALTER ROLE %I NOLOGIN PASSWORD NULL', rolname) FROM pg_roles WHERE rolname = :'role' \\gexec
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :'role';" "role=$2" >/dev/null
}

database_retire() { lay_down "$1" "$(kept "$1" old-role)"; }

database_confirm() {
  if sql_by "$(kept "$1" old)" 'SELECT 1' >/dev/null 2>&1; then
    echo 'error: the old password still opens the database' >&2
    return 1
  fi
  sql_by "$(kept "$1" new)" 'SELECT 1' >/dev/null
}

database_undo() {
  local name=$1 role
  role=$(kept "$name" new-role)
  bring_back "$name"
  reload "$name"
  within_patience "the provider is back on the old role" no_provider_has "$name" "$role"
  lay_down "$name" "$role"
  sql_by "$(kept "$name" old)" 'SELECT 1' >/dev/null
}
