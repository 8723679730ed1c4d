# shellcheck shell=bash
# What the launchers have in common: their options, the checks of every value, dry runs. Sourced by them, not run.
#
# A value comes from a command line and ends in a shell line of another machine, in YAML or in a unit file. So each is
# matched against the narrow set of characters that it can need before anything else happens, and quoted on top of that.
export LC_ALL=C # [a-z] is these 26 letters

script=${0##*/}
# shellcheck disable=SC2034 # the launchers read it
dry="" spot="" action=""
extra=()
declare -A option=()

fail() {
  echo "$script: $*" >&2
  exit 2
}

run() { # COMMAND...: does it, or prints it in a dry run
  if [ -n "$dry" ]; then said "$@"; else "$@"; fi
}

said() { # COMMAND...: as one could type it
  local line
  printf -v line '%q ' "$@"
  echo "${line% }"
}

# shellcheck disable=SC2034 # the launchers read spot and extra
take() { # "ACTIONS" WORDS...: the action, then options whose names are the keys of `option`, then -- and words for gauntlet
  local actions=" $1 " name
  shift
  case ${1:-} in
    -h | --help) usage; exit 0 ;;
    "") usage >&2; exit 2 ;;
  esac
  [[ $1 =~ ^[a-z]+$ && $actions == *" $1 "* ]] || fail "there is no action ${1@Q} (it is one of:${actions% })"
  action=$1
  shift
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage; exit 0 ;;
      --dry-run) dry=yes; shift; continue ;;
      --spot) spot=yes; shift; continue ;;
      --) shift; extra=("$@"); break ;;
    esac
    name=${1#--}
    # A name is checked before it becomes an array's key, where bash would evaluate it.
    [[ $1 == --* && $name =~ ^[a-z][a-z-]*$ && " ${!option[*]} " == *" $name "* ]] ||
      fail "there is no option ${1@Q} (--help lists them)"
    [ $# -ge 2 ] || fail "$1 needs a value"
    option[$name]=$2
    shift 2
  done
  local word
  for word in "${extra[@]}"; do
    [[ $word =~ ^[A-Za-z0-9._~/:@%+=,?\&-]+$ ]] ||
      fail "${word@Q} after -- : letters, digits and . _ ~ / : @ % + = , ? & - are fine"
  done
}

need() { # OPTION...
  local name
  for name in "$@"; do [ -n "${option[$name]}" ] || fail "$action needs --$name (--help explains it)"; done
}

matches() { # OPTION PATTERN ADVICE; an option that was not given is fine
  local value=${option[$1]}
  [ -z "$value" ] || [[ $value =~ ^($2)$ ]] || fail "--$1 ${value@Q}: $3"
}

check_values() { # all options that several launchers have
  local name
  for name in "${!option[@]}"; do
    case $name in
      name) matches name '[a-z]([a-z0-9-]{0,28}[a-z0-9])?' "a to z, digits and -, at most 30, a letter first" ;;
      ledger) matches ledger 'https?://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._/-]*)?' "a URL such as http://host:7400" ;;
      bucket)
        matches bucket '(s3|gs|file)://[A-Za-z0-9._~/-]+(\?[A-Za-z0-9._~:/=&%-]+)?' \
          "s3://bucket/prefix?endpoint=https://HOST&region=REGION, gs://bucket/prefix or file:///folder"
        ;;
      home) matches home '/[A-Za-z0-9._/-]+' "an absolute folder of letters, digits, / . _ and -" ;;
      nfs) matches nfs '[A-Za-z0-9.-]+:/[A-Za-z0-9._/-]*' "SERVER:/SHARE" ;;
      install)
        matches install '[A-Za-z0-9][][A-Za-z0-9@:/+.,_=~<>!-]*' "what pip installs, such as gauntlet-jax[tpu]"
        ;;
      image) matches image '[a-z0-9][A-Za-z0-9./:_@-]*' "an image's name, such as REGION-docker.pkg.dev/PROJECT/REPO/gauntlet:1" ;;
      nodes | gpus | port | poll | restarts) matches "$name" '[1-9][0-9]{0,5}' "a whole number from 1" ;;
    esac
  done
  if [ -n "${option[config]:-}" ] && ! [ -f "${option[config]}" ]; then fail "there is no config ${option[config]@Q}"; fi
}

check_credentials() { # the pair that writes to --bucket, in the environment; nothing here ever prints it
  [[ ${option[bucket]} == s3://* ]] || return 0
  local name
  for name in AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; do
    [ -n "${!name:-}" ] || fail "$name is not set: the credentials that write to the bucket come from the environment"
    # Such a value means the same in an environment file of systemd, of kubectl and of a shell.
    [[ ${!name} =~ ^[A-Za-z0-9/+=_.~-]+$ ]] || fail "$name has characters that no such key has"
  done
}

credentials() { # as lines NAME=VALUE, for a pipe: command lines are public
  printf 'AWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY"
}

state_of() { # COMMAND...: what it prints, or "absent" if it says that there is no such thing; anything else is an error
  local found told
  told=$(mktemp)
  if found=$("$@" 2>"$told"); then # warnings beside an answer are none of it
    rm "$told"
    echo "$found"
    return
  fi
  found=$(<"$told")
  rm "$told"
  # The cloud's own words alone: a shell that lacks the command says "not found", too.
  if [[ $found =~ NOT_FOUND|Resource.*was\ not\ found ]]; then echo absent; else fail "${found##*$'\n'}"; fi
}

node_words() { # CONFIG HOME DISTRIBUTED: the array `words`, the command of one host of the peer, without the program
  words=(peer)
  [ -z "$1" ] || words+=("$1")
  words+=(--ledger "${option[ledger]}" --name "${option[name]}" --bucket "${option[bucket]}" --home "$2" --distributed "$3")
  words+=("${extra[@]}")
}
