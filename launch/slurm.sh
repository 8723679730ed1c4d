#!/usr/bin/env bash
# One peer as a batch job of Slurm; several peers are several jobs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=arguments.bash
. "$here/arguments.bash"

usage() {
  cat <<'TEXT'
usage: launch/slurm.sh ACTION --name NAME --home DIR [OPTIONS] [-- MORE FLAGS OF gauntlet peer]

  run      submits launch/slurm.sbatch, unless the peer's job is in the queue already
  follow   shows the job's log
  delete   takes the job out of the queue; --home stays where it is

Each can be given again at any time. Slurm starts the job again after a pre-emption, at the time limit and on failures.

  --name NAME           of the peer, and of its job: gauntlet-NAME
  --home DIR            the peer's key and state: a folder of its own that all nodes see
  --ledger URL          of the run
  --bucket URL          of the peer
  --env-file FILE       lines AWS_ACCESS_KEY_ID=... and AWS_SECRET_ACCESS_KEY=..., for nobody but you to read (chmod 600);
                        without it a bucket at s3:// takes these two of this shell's environment
  --config FILE         the run's config, where the ledger's terms are not enough (default: none)
  --nodes N             (default: 1)
  --gpus N              of each node (default: none)
  --partition, --account, --qos, --constraint, --time    as sbatch takes them (default: the cluster's)
  --restarts N          after failures (default: 20)
  --gauntlet FILE       the program, where all nodes see it (default: .venv/bin/gauntlet here, else the one in PATH)
  --dry-run             prints the commands and does nothing
TEXT
}

option=([name]="" [home]="" [ledger]="" [bucket]="" [env-file]="" [config]="" [nodes]=1 [gpus]="" [partition]="" [account]=""
  [qos]="" [constraint]="" [time]="" [restarts]=20 [gauntlet]="")
take "run follow delete" "$@"
need name nodes restarts
[ "$action" = delete ] || need home
check_values
for key in partition account qos constraint; do matches "$key" '[A-Za-z0-9][A-Za-z0-9_.,|&-]*' "letters, digits and _ . - are fine"; done
matches time '([0-9]+-)?[0-9]+(:[0-9]+){0,2}' "such as 2-00:00:00"
for key in env-file gauntlet; do matches "$key" '[A-Za-z0-9._/-]+' "a path of letters, digits, / . _ and -"; done
job=gauntlet-${option[name]} log=${option[home]}/slurm.log

find_program() {
  program=${option[gauntlet]}
  if [ -z "$program" ]; then
    program=$(realpath -m "$here/../.venv/bin/gauntlet")
    [ -x "$program" ] || program=$(command -v gauntlet) || fail "there is no gauntlet: make setup, or name it with --gauntlet"
  fi
  [ -x "$program" ] || fail "--gauntlet $program is no program"
  program=$(realpath -s "$program")
}

check_env_file() {
  local file=${option[env-file]}
  if [ -z "$file" ]; then check_credentials; return; fi
  [ -r "$file" ] || fail "there is no --env-file $file that you may read"
  [[ $(stat -L -c %a "$file") == ?00 ]] || fail "--env-file $file: others may read it; mend that with chmod 600"
  option[env-file]=$(realpath "$file")
}

jobs_there() { # the peer's jobs in the queue
  squeue --me --noheader --name "$job" --format '%i %T' || fail "squeue does not answer"
}

start() {
  local jobs words=() key config=""
  find_program
  check_env_file
  [ -z "${option[config]}" ] || config=$(realpath "${option[config]}")
  if [ -z "$dry" ]; then
    jobs=$(jobs_there) || exit 2
    if [ -n "$jobs" ]; then echo "job ${jobs%%$'\n'*} is $job: nothing to do"; return; fi
  fi
  run mkdir -p -m 0700 "${option[home]}"
  node_words "$config" "${option[home]}" auto
  local sbatch=(sbatch --parsable "--job-name=$job" "--nodes=${option[nodes]}" "--output=$log")
  [ -z "${option[gpus]}" ] || sbatch+=("--gpus-per-node=${option[gpus]}")
  for key in partition account qos constraint time; do
    [ -z "${option[$key]}" ] || sbatch+=("--$key=${option[$key]}")
  done
  sbatch+=("$here/slurm.sbatch" "${option[restarts]}" "${option[env-file]}" "$program" "${words[@]}")
  run "${sbatch[@]}"
}

case $action in
  run)
    need ledger bucket
    start
    ;;
  follow) run tail -n 50 -F "$log" ;;
  delete)
    if [ -z "$dry" ]; then
      there=$(jobs_there) || exit 2
      if [ -z "$there" ]; then echo "job $job: absent"; exit 0; fi
    fi
    run scancel --user "$(id -un)" --name "$job"
    ;;
esac
