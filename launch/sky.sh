#!/usr/bin/env bash
# One peer on GPU nodes of any cloud, as a managed job of SkyPilot.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=arguments.bash
. "$here/arguments.bash"

usage() {
  cat <<'TEXT'
usage: launch/sky.sh ACTION --name NAME [OPTIONS] [-- MORE FLAGS OF gauntlet peer]

  run      launches launch/sky.yaml as the managed job gauntlet-NAME, unless it is there already
  follow   shows what the job says
  delete   cancels the job; --home stays where it is

Each can be given again at any time. SkyPilot finds other nodes after a pre-emption.

  --name NAME           of the peer
  --ledger URL          of the run
  --bucket URL          of the peer; s3:// takes AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of this shell's environment
  --config FILE         the run's config, where the ledger's terms are not enough (default: none)
  --infra WHERE         such as aws, gcp/us-central1, k8s (default: the cheapest that you have access to)
  --nodes N             (default: 1)
  --gpus KIND:N         of each node (default: H100:8)
  --spot                cheaper, and may be pre-empted at any time
  --nfs SERVER:/SHARE   is mounted on every node at /mnt/gauntlet, for the peer's key and state
  --home DIR            for key and state, where all nodes see one folder already (default with --nfs: /mnt/gauntlet/NAME)
  --install WHAT        what pip installs (default: gauntlet-jax[cuda])
  --dry-run             prints the commands and does nothing
TEXT
}

option=([name]="" [ledger]="" [bucket]="" [config]="" [infra]="" [nodes]=1 [gpus]="" [nfs]="" [home]=""
  [install]='gauntlet-jax[cuda]')
gpus=H100:8
take "run follow delete" "$@"
if [ -n "${option[gpus]}" ]; then
  matches gpus '[A-Z][A-Za-z0-9-]*:[1-9][0-9]?' "such as H100:8"
  gpus=${option[gpus]} option[gpus]=""
fi
need name nodes install
check_values
matches infra '[a-z0-9]+(/[a-z0-9._*-]+){0,2}' "such as gcp/us-central1"
job=gauntlet-${option[name]}

is_there() { # the job, unfinished
  local found
  found=$(sky jobs queue --skip-finished --output json) || fail "sky jobs queue does not answer"
  [[ $found =~ \"(job_)?name\":\ *\"$job\" ]]
}

start() {
  local home=${option[home]} words=() text=""
  if [ -z "$home" ] && [ -n "${option[nfs]}" ]; then home=/mnt/gauntlet/${option[name]}; fi
  [ -n "$home" ] || fail "run needs --nfs or --home: key and state lie in a folder that all nodes see and that outlives them"
  check_credentials
  if [ -z "$dry" ] && is_there; then echo "job $job is there: nothing to do"; return; fi
  [ -z "${option[config]}" ] || text=$(base64 -w 0 "${option[config]}")
  words=(sky jobs launch --yes --detach-run --name "$job" --num-nodes "${option[nodes]}" --gpus "$gpus")
  if [ -n "$spot" ]; then words+=(--use-spot); else words+=(--no-use-spot); fi
  [ -z "${option[infra]}" ] || words+=(--infra "${option[infra]}")
  words+=(--env "NAME=${option[name]}" --env "LEDGER=${option[ledger]}" --env "BUCKET=${option[bucket]}"
    --env "PEER_HOME=$home" --env "NFS=${option[nfs]}" --env "INSTALL=${option[install]}" --env "CONFIG_BASE64=$text"
    --env "WORDS=${extra[*]}")
  if [[ ${option[bucket]} == s3://* ]]; then words+=(--secret AWS_ACCESS_KEY_ID --secret AWS_SECRET_ACCESS_KEY); fi
  run "${words[@]}" "$here/sky.yaml"
}

case $action in
  run)
    need ledger bucket
    start
    ;;
  follow) run sky jobs logs --name "$job" --follow ;;
  delete)
    if [ -z "$dry" ] && ! is_there; then echo "job $job: absent"; exit 0; fi
    run sky jobs cancel --yes --name "$job"
    ;;
esac
