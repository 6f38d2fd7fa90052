# shellcheck shell=bash
# Reads rotate-secrets.conf: sections [KIND NAME] with lines `key = value`. To be sourced by deploy/rotate-secrets.

declare -A settings=() kind_of=() phase_of=()
names=()

# What each kind may say; `!` marks what it must say.
declare -Ar KEYS=(
  [run]='state backups log grace patience keep provider provider_url provider_ca'
  [database]='phase admin! roles! owner! url_file! reload'
  [token]='phase file! into reload wait_url verify'
  [redis]='phase host port socket tls_ca user file! into reload verify'
  [mosquitto]='phase users! secrets! passwords! broker_reload! into! reload host port ca_file topic verify'
  [file]='phase file! into reload wait_url verify length'
  [authelia-storage]='phase command settings! key_file! stop start wait_url verify'
  [grafana]='phase command user file! url!'
  [command]='phase change! files! reload wait_url verify'
  [manual]='phase says! days'
)

declare -Ar DEFAULTS=(
  [run.state]=/var/lib/charliehub-rotate-secrets
  [run.backups]=/var/backups/charliehub-secrets
  [run.log]=/var/log/charliehub/rotate-secrets.log
  [run.grace]=30
  [run.patience]=60
  [run.keep]=8
  [run.provider]='charliehub-provider --config /etc/charliehub/provider.toml'
  [run.provider_url]=http://127.0.0.1:8001
  [redis.host]=127.0.0.1
  [redis.port]=6379
  [redis.user]=default
  [mosquitto.host]=127.0.0.1
  [mosquitto.port]=1883
  [mosquitto.topic]=charliehub/rotation
  [file.length]=64
  [authelia-storage.command]=authelia
  [grafana.command]='grafana cli'
  [grafana.user]=admin
  [manual.days]=90
)

declare -Ar PHASES=(
  [database]=internal [token]=internal [redis]=internal [mosquitto]='config' [file]='config' [authelia-storage]='config'
  [grafana]='config' [command]='config' [manual]=external
)

read_config() { # FILE
  local file=$1 line number=0 name='' kind='' key value
  [[ -r $file ]] || fail "$file cannot be read: copy deploy/rotate-secrets.conf there, and say what is on this host"
  # Its commands run as root.
  (((8#$(stat -L -c %a "$file") & 8#022) == 0)) || fail "$file can be written by others: chmod go-w $file"
  while IFS= read -r line || [[ $line ]]; do
    number=$((number + 1))
    line=${line#"${line%%[![:space:]]*}"}
    line=${line%"${line##*[![:space:]]}"}
    case $line in
      '' | '#'*) continue ;;
      '['*']')
        read -r kind name <<<"${line:1:-1}"
        name=${name:-$kind}
        [[ ${KEYS[$kind]:-} ]] || fail "$file:$number: unknown kind [$kind]; there are: ${!KEYS[*]}"
        [[ $name =~ ^[a-z0-9][a-z0-9-]*$ ]] || fail "$file:$number: the name '$name' may hold a-z, 0-9 and -"
        [[ ! ${kind_of[$name]:-} ]] || fail "$file:$number: two sections are called '$name'; write [$kind OTHER-NAME]"
        [[ $name != all && $name != internal && $name != config && $name != external ]] ||
          fail "$file:$number: '$name' is no name for a secret"
        if [[ $kind != run ]]; then
          names+=("$name")
          kind_of[$name]=$kind phase_of[$name]=${PHASES[$kind]}
        fi
        ;;
      *=*)
        key=${line%%=*} value=${line#*=}
        key=${key%"${key##*[![:space:]]}"} value=${value#"${value%%[![:space:]]*}"}
        [[ $kind ]] || fail "$file:$number: '$key' stands before the first section"
        [[ " ${KEYS[$kind]//!/} " == *" $key "* ]] ||
          fail "$file:$number: unknown key '$key' in [$kind]; there are: ${KEYS[$kind]//!/}"
        settings[$name.$key]=$value
        [[ $key != phase ]] || phase_of[$name]=$value
        ;;
      *) fail "$file:$number: neither [KIND NAME] nor key = value" ;;
    esac
  done <"$file"
  check_config "$file"
}

check_config() { # FILE
  local name key
  for name in "${names[@]}"; do
    [[ ${phase_of[$name]} =~ ^(internal|config|external)$ ]] ||
      fail "$1: [$name] phase = ${phase_of[$name]}; write internal, config or external"
    for key in ${KEYS[${kind_of[$name]}]}; do
      if [[ ${key%!} == length && ! $(setting "$name" length) =~ ^(1[6-9]|[2-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-6])$ ]]; then
        fail "$1: [file $name] length is from 16 to 256"
      fi
      [[ $key != *! || ${settings[$name.${key%!}]:-} ]] || fail "$1: [${kind_of[$name]} $name] needs '${key%!}'"
    done
  done
  for key in grace patience keep; do
    [[ $(run_setting $key) =~ ^[0-9]+$ ]] || fail "$1: [run] $key is a whole number of seconds, or of runs for keep"
  done
}

setting() { printf '%s' "${settings[$1.$2]-${DEFAULTS[${kind_of[$1]}.$2]-}}"; } # NAME KEY
run_setting() { printf '%s' "${settings[run.$1]-${DEFAULTS[run.$1]-}}"; }        # KEY

# Why a secret cannot be rotated here, where it is not there. Fails when it is.
absent() { # NAME
  local key program path
  for program in $("${kind_of[$1]//-/_}_programs" "$1"); do
    have "$program" || { printf '%s is not on this host' "$program" && return; }
  done
  for key in url_file file key_file passwords secrets files; do
    for path in $(setting "$1" "$key"); do
      [[ -e $path ]] || { printf '%s is not there' "$path" && return; }
    done
  done
  return 1
}

describe() { # NAME
  "${kind_of[$1]//-/_}_describe" "$1"
}
