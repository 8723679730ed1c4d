#!/usr/bin/env bash
# A node under a supervisor: its exit code says whether the run is over or the node was merely told to stop.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/until_over.sh [--dry-run] COMMAND...

Runs COMMAND and ends with its code. A node that is told to stop (SIGTERM, SIGINT) ends with 0 as if the run were over;
here it then ends with 143, so that Kubernetes and Slurm take a pre-emption for what it is and start the node again.
TEXT
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  "") usage >&2; exit 2 ;;
  --dry-run) shift; printf '%q ' "$@"; echo; exit 0 ;;
esac

told=""
"$@" &
node=$!
# shellcheck disable=SC2317 # a trap calls it
pass_on() {
  told=yes
  kill -TERM "$node" 2>/dev/null || true
}
trap pass_on TERM INT
code=0
wait "$node" || code=$?
while kill -0 "$node" 2>/dev/null; do # a signal ends a wait, not the node
  code=0
  wait "$node" || code=$?
done
[ -z "$told" ] || exit 143
exit "$code"
