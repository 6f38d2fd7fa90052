# shellcheck shell=bash
# Files for deploy/rotate-secrets: each is replaced as a whole, and kept before that. To be sourced.
# `state`, `backups` and `patience` are those of the configuration.

readonly DRAFT=.rotate-secrets.
: "${state=}" "${backups=}" "${patience=}"

# Random letters, digits, - and _: six bits each, and nothing that needs quoting anywhere.
make_secret() { # [LENGTH]
  local text
  text=$(head -c 192 /dev/urandom | base64 -w0 | tr '+/' '-_')
  printf '%s' "${text:0:${1:-43}}"
}

# Replaces a file by what comes on stdin; owner and mode stay. A link stays a link.
put() { # FILE
  local file draft
  file=$(realpath -e -- "$1")
  draft=$(mktemp "${file%/*}/${DRAFT}XXXXXX")
  cat >"$draft"
  chown --reference="$file" "$draft"
  chmod --reference="$file" "$draft"
  sync "$draft"
  mv -T "$draft" "$file"
  sync "${file%/*}"
}

# Replaces a word in a file, wherever it stands. One that stands there already is no error.
put_word() { # FILE OLD NEW
  local text
  text=$(cat "$1" && printf x)
  text=${text%x}
  if [[ $text == *"$2"* ]]; then
    printf '%s' "${text//"$2"/"$3"}" | put "$1"
  elif [[ $text != *"$3"* ]]; then
    printf 'error: %s does not hold what is to be replaced\n' "$1" >&2
    return 1
  fi
}

# What a secret's file holds. The last word, since a token's file may be what printed it.
last_word() { # FILE
  local word
  word=$(tr -s '[:space:]' '\n' <"$1" | sed '/^$/d' | tail -n 1)
  [[ $word ]] || { printf 'error: %s is empty\n' "$1" >&2 && return 1; }
  printf '%s' "$word"
}

# Keeps something for this run only; on disk when the step is noted as done.
keep() { # NAME FILE, the content on stdin
  local draft=$state/run/$1/$2.draft
  cat >"$draft"
  mv -T "$draft" "${draft%.draft}"
}

kept() { cat "$state/run/$1/$2"; } # NAME FILE
line() { kept "$1" "$2" && echo; }
has_kept() { [[ -s $state/run/$1/$2 ]]; }

# Copies files and folders into the dated folder, for the way back and for people.
back_up() { # NAME PATH...
  local name=$1 place path
  place=$backups/$(<"$state/run/id")/$name
  shift
  rm -rf "$place"
  mkdir -p "$place"
  for path in "$@"; do
    path=$(realpath -e -- "$path")
    mkdir -p "$place${path%/*}"
    cp -aT "$path" "$place$path"
  done
  find "$place" -type f -exec chmod 600 {} +
  find "$place" -type d -exec chmod 700 {} +
  find "$place" -print0 | xargs -0 sync
}

# Puts back what was copied, where it differs. Files that came later in a folder stay.
bring_back() { # NAME
  local place file target
  place=$backups/$(<"$state/run/id")/$1
  while IFS= read -r -d '' file; do
    target=${file#"$place"}
    cmp -s "$file" "$target" || put "$target" <"$file"
  done < <(find "$place" -type f -print0)
}

# What `put` had not moved into its place yet.
sweep_drafts() { # NAME
  local place folder
  place=$backups/$(<"$state/run/id")/$1
  [[ -d $place ]] || return 0
  find "$place" -mindepth 1 -type d -printf '/%P\n' | while IFS= read -r folder; do
    find "$folder" -maxdepth 1 -type f -name "$DRAFT*" -delete 2>/dev/null || true
  done
}

shred_work() { rm -rf "${state:?}/run/${1:?}"; }

# Tries until it works, at most `patience` seconds.
within_patience() { # WHAT COMMAND...
  local until=$((SECONDS + patience)) what=$1
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < until)) || { printf 'error: %s: not within %s s\n' "$what" "$patience" >&2 && return 1; }
    sleep 0.1
  done
}

refused() { ! "$@"; }

# The consumers of a secret: files that hold it in the middle of other things, and what makes them read it.
switch_consumers() { # NAME OLD NEW
  local file
  for file in $(setting "$1" into); do put_word "$file" "$2" "$3"; done
}

# The new secret into its file and into those that hold it, and its users read it.
switch_to_new() { # NAME
  line "$1" new | put "$(setting "$1" file)"
  switch_consumers "$1" "$(kept "$1" old)" "$(kept "$1" new)"
  reload "$1"
}

reload() { run_command "$1" reload; }

# A command of the configuration; none is fine.
run_command() { # NAME KEY
  local command
  command=$(setting "$1" "$2")
  [[ ! $command ]] || bash -c "$command" 8>&- >&2
}

# What the configuration says proves that it works.
prove() { # NAME
  local url command
  url=$(setting "$1" wait_url) command=$(setting "$1" verify)
  [[ ! $url ]] || within_patience "$url answers" curl -fsS --max-time 5 -o /dev/null "$url"
  [[ ! $command ]] || within_patience "verify: $command" bash -c "$command"
}
