# shellcheck shell=bash
# [token NAME]: a token of the provider, and whoever shows it. Two are valid at once: the new one may what the old one
# may, is put into its file and into the files that quote it, and then the old one is revoked. To be sourced by
# deploy/rotate-secrets.

token_programs() { provider_words && printf '%s\n' curl "${words[0]}"; }
token_describe() { printf 'a new token in %s%s' "$(setting "$1" file)" "$(also_in "$1")"; }

also_in() {
  local into
  into=$(setting "$1" into)
  [[ ! $into ]] || printf ' and %s' "$into"
}

provider_words() { read -ra words <<<"$(run_setting provider)"; }

provider() {
  local words
  provider_words
  "${words[@]}" "$@" 8>&-
}

token_sql() { provider psql -- -XAtq -v ON_ERROR_STOP=1 -c "$1"; }

token_prepare() {
  local name=$1 file old hash found
  file=$(setting "$name" file)
  old=$(last_word "$file")
  [[ $old =~ ^ch_[A-Za-z0-9_-]{43}$ ]] || { printf 'error: %s holds no token of the provider\n' "$file" >&2 && return 1; }
  hash=$(printf '%s' "$old" | sha256sum | cut -d' ' -f1)
  # Lines: its id, role and subject, then the options that make another one like it.
  mapfile -t found < <(token_sql "WITH t AS (SELECT * FROM charliehub.tokens
      WHERE hash = decode('$hash', 'hex') AND revoked_at IS NULL)
    SELECT id::text FROM t UNION ALL SELECT role FROM t UNION ALL SELECT coalesce(subject, '') FROM t
    UNION ALL SELECT '--role=' || role FROM t
    UNION ALL SELECT '--subject=' || subject FROM t WHERE subject IS NOT NULL
    UNION ALL SELECT '--expires=' || greatest(1, extract(epoch FROM expires_at - created_at)::bigint) || 's' FROM t
               WHERE expires_at IS NOT NULL
    UNION ALL SELECT '--scope-domain=' || d FROM t, jsonb_array_elements_text(coalesce(scope->'domains', '[]')) d
    UNION ALL SELECT '--scope-owner=' || d FROM t, jsonb_array_elements_text(coalesce(scope->'owners', '[]')) d
    UNION ALL SELECT '--scope-site=' || d FROM t, jsonb_array_elements_text(coalesce(scope->'sites', '[]')) d")
  ((${#found[@]} > 3)) || {
    printf 'error: the token in %s is not a living one of this provider\n' "$file" >&2
    return 1
  }
  # shellcheck disable=SC2046 # files, one a word
  back_up "$name" "$file" $(setting "$name" into)
  printf '%s' "$old" | keep "$name" old
  printf '%s' "${found[0]}" | keep "$name" old-id
  printf '%s' "${found[1]}" | keep "$name" role
  printf '%s' "${found[2]}" | keep "$name" subject
  printf '%s\n' "${found[@]:3}" | keep "$name" options
}

# By this name it is found again, should we be killed before we have its text.
token_name() { printf '%s %s' "$1" "$(<"${state:?}/run/id")"; }

token_admit() {
  local name=$1 options
  mapfile -t options < <(kept "$name" options)
  provider token create "${options[@]}" "$(token_name "$name")" 2>/dev/null | tr -d '\n' | keep "$name" new
  has_kept "$name" new
  within_patience "the new token is taken" token_opens "$name" new
}

# The token goes by stdin: others see the words of a command.
token_status() { # NAME old|new
  local path ca
  case $(kept "$1" role) in
    traefik) path=/traefik ;;
    agent) path=/api/agents/$(kept "$1" subject)/expected ;;
    *) path='/api/domains?limit=1' ;;
  esac
  ca=$(run_setting provider_ca)
  printf 'header = "Authorization: Bearer %s"\n' "$(kept "$1" "$2")" |
    curl -s --max-time 10 -o /dev/null -w '%{http_code}' ${ca:+--cacert "$ca"} -K - "$(run_setting provider_url)$path"
}

token_opens() { [[ $(token_status "$1" "$2") == 200 ]]; }
token_is_refused() { [[ $(token_status "$1" "$2") == 401 ]]; }

token_switch() { switch_to_new "$1"; }

token_verify() {
  token_opens "$1" new
  prove "$1"
}

# Revokes a token; one that is not there any more is fine.
revoke_where() { # CONDITION
  local id ids
  ids=$(token_sql "SELECT id FROM charliehub.tokens WHERE revoked_at IS NULL AND $1")
  for id in $ids; do
    provider token revoke "$id" >/dev/null
  done
}

token_retire() { revoke_where "id = '$(kept "$1" old-id)'"; }

token_confirm() {
  within_patience "the old token is refused" token_is_refused "$1" old
  token_opens "$1" new
}

token_undo() {
  bring_back "$1"
  reload "$1"
  within_patience "the old token opens" token_opens "$1" old
  prove "$1"
  revoke_where "name = '$(token_name "$1")'"
}
