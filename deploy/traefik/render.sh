#!/usr/bin/env bash
# Makes Traefik's static configuration from a template: deploy/traefik/hub.yaml, if no other is named.
#
# usage: deploy/traefik/render.sh [--template FILE] [--with WORD]... OUT NAME=VALUE... NAME_FILE=PATH...
#   OUT is written whole or not at all, with mode 600. NAME_FILE=PATH takes the value of NAME from a file, as for TOKEN.
#   --with WORD     with the lines that are marked #WORD#: internal, postgres, ssh (entry points); token or mtls (how
#                   Traefik shows the provider who it is; token, if neither is given)
#   --template F    another template
#
#   deploy/traefik/render.sh --with internal /etc/charliehub/traefik.yaml ACME_EMAIL=ops@example.org TOKEN_FILE=/run/token
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

template=$repo/deploy/traefik/hub.yaml out=''
declare -A value=() with=() used=()

main() {
  parse_arguments "$@"
  [[ -r $template ]] || fail "$template cannot be read"
  [[ -n ${with[token]:-} || -n ${with[mtls]:-} ]] || with[token]=1
  local draft
  umask 077
  draft=$(mktemp "$out.XXXXXX")
  # shellcheck disable=SC2064 # the name of now
  trap "rm -f '$draft'" EXIT
  render <"$template" >"$draft"
  check_all_used
  mv -T "$draft" "$out"
}

parse_arguments() {
  while (($#)); do
    case $1 in
      -h | --help)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
      --with | --template)
        (($# > 1)) || fail "$1 needs a value: see deploy/traefik/render.sh --help"
        if [[ $1 == --with ]]; then with[$2]=1; else template=$2; fi
        shift
        ;;
      -*) fail "unknown option '$1': see deploy/traefik/render.sh --help" ;;
      *_FILE=*)
        [[ -r ${1#*=} ]] || fail "${1%%=*}: ${1#*=} cannot be read"
        take "${1%%_FILE=*}" "$(<"${1#*=}")"
        ;;
      *=*) take "${1%%=*}" "${1#*=}" ;;
      *)
        [[ -z $out ]] || fail "two files to write: '$out' and '$1'"
        out=$1
        ;;
    esac
    shift
  done
  [[ -n $out ]] || fail "no file to write: see deploy/traefik/render.sh --help"
}

# What would end the quoted string that it is put in is refused, not escaped: no address, path or token has it.
take() { # NAME VALUE
  [[ $2 != *[\"\\[:cntrl:]]* ]] || fail "$1: a quote, backslash or control character in its value"
  [[ -n $2 ]] || fail "$1: its value is empty"
  value[$1]=$2
}

render() {
  local line word left marker name filled
  while IFS= read -r line; do
    if [[ $line =~ ^#([a-z]+)# ]]; then
      word=${BASH_REMATCH[1]}
      used[--with $word]=1
      [[ -n ${with[$word]:-} ]] || continue
      line=${line#"#$word#"}
    fi
    filled='' left=$line
    while [[ ! $line =~ ^\ *# && $left =~ @([A-Z_]+)(=[^@]*)?@ ]]; do
      marker=${BASH_REMATCH[0]} name=${BASH_REMATCH[1]}
      used[$name]=1
      if [[ -z ${value[$name]+given} ]]; then
        [[ ${BASH_REMATCH[2]} == =* ]] || fail "$name is missing: give $name=VALUE or ${name}_FILE=PATH"
        filled+=${left%%"$marker"*}${BASH_REMATCH[2]#=}
      else
        filled+=${left%%"$marker"*}${value[$name]}
      fi
      left=${left#*"$marker"}
    done
    printf '%s\n' "$filled$left"
  done
}

# A name or word that the template does not have is a slip that would go unseen.
check_all_used() {
  local name
  for name in "${!value[@]}"; do
    [[ -n ${used[$name]:-} ]] || fail "$name is not in ${template##*/}, or not with these --with"
  done
  for name in "${!with[@]}"; do
    [[ -n ${used[--with $name]:-} ]] || fail "--with $name: ${template##*/} has no line marked #$name#"
  done
}

main "$@"
