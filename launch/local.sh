#!/usr/bin/env bash
# shellcheck disable=SC2317 # what traps call
# A shared run on this machine: a ledger, validators and peers as processes of their own, over folders as buckets.
set -euo pipefail
set -m # every process its own group: Ctrl-C reaches this script alone, which then stops the others in order

usage() {
  cat <<'TEXT'
usage: launch/local.sh [--dir DIR] [--config CONFIG] [--port PORT] [--peers N] [--validators N] [--dry-run]

Starts the ledger, the validators V1.. and the peers P1.. of a run in the background, and follows them. Ctrl-C, or the
end of the run, stops all of them. The same --dir again goes on with the run that is there.

  --dir DIR         for ledger, buckets, keys and logs (default: a new folder in runs/local)
  --config CONFIG   the run (default: configs/local.py)
  --port PORT       of the ledger, on 127.0.0.1 (default: 7400)
  --peers N         how many of the config's peers, named P1.. (default: 6)
  --validators N    how many of its validators, named V1.. (default: 2)
  --dry-run         prints the commands and does nothing
TEXT
}

fail() {
  echo "local.sh: $*" >&2
  exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir="" config=$root/configs/local.py port=7400 peers=6 validators=2 dry=""
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --dry-run) dry=yes; shift ;;
    --dir | --config | --port | --peers | --validators)
      [ $# -ge 2 ] || fail "$1 needs a value"
      declare "${1#--}=$2"
      shift 2
      ;;
    *) fail "there is no option $1 (--help lists them)" ;;
  esac
done
for number in "$port" "$peers" "$validators"; do
  [[ $number =~ ^[0-9]+$ ]] || fail "$number is no number"
done
[ -f "$config" ] || fail "there is no config $config"
dir=$(realpath -m "${dir:-runs/local/$(date +%Y%m%d-%H%M%S)}")
gauntlet=$root/.venv/bin/gauntlet
if [ ! -x "$gauntlet" ]; then
  gauntlet=$(command -v gauntlet) || fail "there is no gauntlet: run make setup in $root, or install the package"
fi
# It becomes part of buckets' addresses, in which other characters mean something.
[[ $dir =~ ^[A-Za-z0-9/._-]+$ ]] || fail "--dir $dir: letters, digits, / . _ and - are fine"
url=http://127.0.0.1:$port

names=() pids=() follower="" stopped="" asked=""

start() { # NAME COMMAND...: in the background, with a log
  local name=$1
  shift
  if [ -n "$dry" ]; then
    printf '%q ' "$@"
    echo "> $dir/logs/$name.log &"
    return
  fi
  "$@" >>"$dir/logs/$name.log" 2>&1 </dev/null &
  names+=("$name")
  pids+=($!)
}

node() { # validator|peer NAME
  start "$2" "$gauntlet" "$1" "$config" --ledger "$url" --name "$2" --home "$dir/nodes/$2" \
    --bucket "file://$dir/buckets/$2" --allow-folder "$dir/buckets"
}

alive() { kill -0 "$1" 2>/dev/null; }

last_line() { tail -n 1 "$dir/logs/$1.log"; }

pause() { # SECONDS; what runs in the foreground would get Ctrl-C in this script's place
  sleep "$1" &
  wait $! || true
}

any_alive() { # of the nodes, which are all but the first
  for pid in "${pids[@]:1}"; do if alive "$pid"; then return 0; fi; done
  return 1
}

wait_for_nodes() { # SECONDS
  for _ in $(seq $(($1 * 5))); do
    any_alive || return 0
    pause 0.2
  done
}

signal() { # NAME PID...
  local name=$1
  shift
  for pid in "$@"; do kill "-$name" "$pid" 2>/dev/null || true; done
}

is_over() { [ -f "$dir/follow/summary.json" ]; }

stop_all() { # the nodes first, the ledger last
  [ -z "$stopped" ] || return 0
  stopped=yes
  trap '' INT TERM HUP # it takes seconds, and half of it would leave processes behind
  echo "stopping" || true
  if is_over; then wait_for_nodes 20; fi # they end by themselves, and say with what parameters
  signal TERM "${pids[@]:1}"
  wait_for_nodes 20
  signal KILL "${pids[@]:1}"
  signal TERM "${pids[@]:0:1}"
  wait
  if is_over; then
    sed -n 's/.*the run is over, parameters //p' "$dir"/logs/[VP]*.log | sort | uniq -c |
      while read -r count digest; do echo "$count nodes ended with parameters ${digest:0:16}"; done
  fi
  echo "all stopped"
  if [ -n "$asked" ]; then echo "start them again with: launch/local.sh$options"; fi
}

interrupt() { # ends the follower, which says how far it came; the rest follows from that
  asked=yes
  if [ -n "$follower" ] && alive "$follower"; then signal INT "$follower"; else exit 130; fi
}

options=" --dir $(printf %q "$dir") --port $port --peers $peers --validators $validators"
[ "$config" = "$root/configs/local.py" ] || options+=" --config $(printf %q "$config")"

if [ -z "$dry" ]; then
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then fail "port $port is in use: give another --port"; fi
  trap stop_all EXIT
  trap interrupt INT TERM HUP
  mkdir -p "$dir/logs" "$dir/buckets"
  echo "logs in $dir/logs"
fi

start ledger "$gauntlet" ledger serve "$dir/ledger.sqlite" --config "$config" --port "$port"
if [ -z "$dry" ]; then
  until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    alive "${pids[0]}" || { wait "${pids[0]}" || true; fail "$(last_line ledger)"; }
    pause 0.2
  done
fi
for ((number = 1; number <= validators; number++)); do node validator "V$number"; done
for ((number = 1; number <= peers; number++)); do node peer "P$number"; done

follow=("$gauntlet" follow "$url" --out "$dir/follow" --allow-folder "$dir/buckets")
if [ -n "$dry" ]; then
  printf '%q ' "${follow[@]}"
  echo
  exit 0
fi
"${follow[@]}" </dev/null &
follower=$!
told=""
while alive "$follower"; do
  for at in "${!pids[@]}"; do
    if ! alive "${pids[at]}" && [[ "$told " != *" ${names[at]} "* ]]; then
      told+=" ${names[at]}"
      code=0
      wait "${pids[at]}" || code=$?
      [ $code = 0 ] || echo "${names[at]} has ended with code $code: $(last_line "${names[at]}")"
    fi
  done
  pause 0.5
done
code=0
wait "$follower" || code=$?
exit "$code"
