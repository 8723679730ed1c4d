#!/usr/bin/env bash
# One peer on a TPU pod slice of Cloud TPU: the slice, what its hosts need, and a service on each of them.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=arguments.bash
. "$here/arguments.bash"

usage() {
  cat <<'TEXT'
usage: launch/tpu_pod.sh ACTION --name NAME --zone ZONE [OPTIONS] [-- MORE FLAGS OF gauntlet peer]

  create   asks for the slice and waits for it; one that was pre-empted is deleted and asked for again
  setup    installs the package, the shared folder, the credentials and a service on every host
  run      create, setup, then starts the service on every host; it outlives this shell and starts again after a failure
  watch    run, and again whenever the slice is pre-empted, until the run is over
  follow   shows what the node says on host 0
  stop     stops the service on every host; run starts it again
  delete   deletes the slice; --home stays where it is

Each can be given again at any time, and does what is left to do.

  --name NAME           of the peer, and of the slice
  --zone ZONE           such as us-west4-a
  --project PROJECT     (default: gcloud's own)
  --accelerator TYPE    such as v5litepod-16, v5p-32, v6e-16 (default: v5litepod-16)
  --runtime VERSION     of the hosts' software (default: the accelerator's usual one)
  --spot                cheaper, and may be pre-empted at any time
  --network, --subnetwork, --service-account    of the slice's hosts (default: the project's)
  --ledger URL          of the run
  --bucket URL          of the peer; s3:// takes AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of this shell's environment
  --config FILE         the run's config, where the ledger's terms are not enough (default: none)
  --nfs SERVER:/SHARE   is mounted on every host at /mnt/gauntlet, for the peer's key and state
  --home DIR            for key and state, where all hosts see one folder already (default with --nfs: /mnt/gauntlet/NAME)
  --install WHAT        what pip installs (default: gauntlet-jax[tpu])
  --poll SECONDS        between two looks at the slice (default: 30)
  --dry-run             prints the commands and does nothing
TEXT
}

given=("$@")
option=([name]="" [zone]="" [project]="" [accelerator]=v5litepod-16 [runtime]="" [network]="" [subnetwork]=""
  [service-account]="" [ledger]="" [bucket]="" [config]="" [nfs]="" [home]="" [install]='gauntlet-jax[tpu]' [poll]=30)
take "create setup run watch follow stop delete" "$@"
need name zone accelerator install poll
check_values
matches zone '[a-z]+-[a-z]+[0-9]+-[a-z]' "a zone such as us-west4-a"
matches project '[a-z][a-z0-9-]{4,28}[a-z0-9]' "a project's id"
matches accelerator '(v2|v3|v4|v5p|v5litepod|v6e)-[1-9][0-9]{0,4}' "a type such as v5litepod-16"
matches runtime '[a-z0-9][a-z0-9.-]*' "a version such as v2-alpha-tpuv5-lite"
for name in network subnetwork; do matches "$name" '[a-z][a-z0-9-]*' "a to z, digits and -"; done
matches service-account '[a-z0-9-]+@[a-z0-9.-]+' "an address such as NAME@PROJECT.iam.gserviceaccount.com"

name=${option[name]} unit=gauntlet-${option[name]} size=${option[accelerator]##*-}
case ${option[accelerator]%-*} in # a host has four chips, or all eight of the smallest slices; v2 to v5p count two cores a chip
  v5litepod | v6e) if [ "$size" -le 8 ]; then hosts=1; else hosts=$((size / 4)); fi ;;
  *) hosts=$(((size + 7) / 8)) ;;
esac
case ${option[accelerator]%-*} in
  v5litepod) runtime=v2-alpha-tpuv5-lite ;;
  v5p) runtime=v2-alpha-tpuv5 ;;
  v6e) runtime=v2-alpha-tpuv6e ;;
  *) runtime=tpu-ubuntu2204-base ;;
esac
[ -z "${option[runtime]}" ] || runtime=${option[runtime]}
where=(--zone "${option[zone]}")
[ -z "${option[project]}" ] || where+=(--project "${option[project]}")
home=${option[home]}
if [ -z "$home" ] && [ -n "${option[nfs]}" ]; then home=/mnt/gauntlet/$name; fi
case $action in
  setup | run | watch)
    need ledger bucket
    [ -n "$home" ] || fail "$action needs --nfs or --home: key and state lie in a folder that all hosts see and that outlives them"
    check_credentials
    ;;
esac

tpus() { gcloud compute tpus "$@"; }

slice_state() { # absent, ready, lost, or the state that it passes through
  local request node
  request=$(state_of tpus queued-resources describe "$name" "${where[@]}" --format 'value(state.state)') || exit 2
  case $request in
    absent) echo absent ;;
    ACTIVE)
      node=$(state_of tpus tpu-vm describe "$name" "${where[@]}" --format 'value(state)') || exit 2
      case $node in
        READY) echo ready ;;
        absent | PREEMPTED | TERMINATED | STOPPED | STOPPING | DELETING) echo lost ;;
        *) echo "$node" ;;
      esac
      ;;
    SUSPENDED) echo lost ;; # what becomes of a request whose slice was pre-empted
    *) echo "$request" ;;
  esac
}

ask() { # for the slice
  local words=(queued-resources create "$name" --node-id "$name" "${where[@]}" --accelerator-type "${option[accelerator]}"
    --runtime-version "$runtime")
  [ -z "$spot" ] || words+=(--spot)
  local key
  for key in network subnetwork service-account; do
    [ -z "${option[$key]}" ] || words+=("--$key" "${option[$key]}")
  done
  run gcloud compute tpus "${words[@]}"
}

remove() { run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet; }

create() {
  if [ -n "$dry" ]; then ask; return; fi
  local state before="" failed=""
  while true; do
    state=$(slice_state) || exit 2
    [ "$state" = "$before" ] || echo "slice $name: $state"
    before=$state
    case $state in
      ready) return ;;
      absent) ask ;;
      lost) remove; continue ;; # a request is used up with its slice
      FAILED)
        [ -z "$failed" ] || fail "the request for slice $name has failed; gcloud compute tpus queued-resources describe $name says why"
        failed=yes
        remove
        continue
        ;;
    esac
    sleep "${option[poll]}"
  done
}

on_hosts() { # all|NUMBER SCRIPT: in bash, on these hosts
  local words=(gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker "$1" --command)
  if [ -n "$dry" ]; then
    printf "%s \"\$(cat <<'SCRIPT'\n%s\nSCRIPT\n)\"\n" "$(said "${words[@]}")" "$2"
  else
    "${words[@]}" "$2"
  fi
}

mount_script() {
  [ -n "${option[nfs]}" ] || return 0
  cat <<TEXT
if ! mountpoint -q /mnt/gauntlet; then
  command -v mount.nfs >/dev/null || { sudo apt-get update -qq; sudo apt-get install -y -qq nfs-common; }
  sudo mkdir -p /mnt/gauntlet
  grep -q ' /mnt/gauntlet ' /etc/fstab || echo '${option[nfs]} /mnt/gauntlet nfs hard,_netdev 0 0' | sudo tee -a /etc/fstab >/dev/null
  sudo mount /mnt/gauntlet
fi
TEXT
}

unit_text() {
  local config=""
  [ -z "${option[config]}" ] || config=/opt/gauntlet/$name.py
  node_words "$config" "$home" auto
  # systemd takes % for a specifier. What starts with a minus is not looked for.
  cat <<TEXT
[Unit]
Description=gauntlet peer $name
Wants=network-online.target
After=network-online.target remote-fs.target
StartLimitIntervalSec=3600
StartLimitBurst=60

[Service]
User=gauntlet
Environment=HOME=/opt/gauntlet PYTHONUNBUFFERED=1
EnvironmentFile=-/etc/gauntlet/$name.env
WorkingDirectory=$home
ExecStart=/opt/gauntlet/venv/bin/gauntlet ${words[*]//%/%%}
Restart=on-failure
RestartSec=10
TimeoutStopSec=120
LimitMEMLOCK=infinity
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
TEXT
}

setup() {
  local host text
  text=$(
    cat <<TEXT
set -euo pipefail
id -u gauntlet >/dev/null 2>&1 || sudo useradd --system --uid 10001 --home-dir /opt/gauntlet --shell /usr/sbin/nologin gauntlet
sudo install -d -o gauntlet -g gauntlet -m 0755 /opt/gauntlet
sudo install -d -m 0700 /etc/gauntlet
$(mount_script)
sudo install -d -o gauntlet -g gauntlet -m 0700 $home
[ -x /opt/gauntlet/uv/bin/uv ] || sudo -H python3 -m pip install --quiet --target /opt/gauntlet/uv uv
[ -x /opt/gauntlet/venv/bin/python ] ||
  sudo UV_PYTHON_INSTALL_DIR=/opt/gauntlet/python /opt/gauntlet/uv/bin/uv venv --quiet --python 3.12 /opt/gauntlet/venv
sudo /opt/gauntlet/uv/bin/uv pip install --quiet --python /opt/gauntlet/venv/bin/python '${option[install]}'
sudo tee /etc/systemd/system/$unit.service >/dev/null <<'UNIT'
$(unit_text)
UNIT
sudo systemctl daemon-reload
TEXT
  )
  on_hosts all "$text"
  for ((host = 0; host < hosts; host++)); do # one by one: what comes through a pipe comes once
    if [ -n "${option[config]}" ]; then
      pipe "$host" "cat ${option[config]@Q}" "sudo tee /opt/gauntlet/$name.py >/dev/null" <"${option[config]}"
    fi
    if [[ ${option[bucket]} == s3://* ]]; then
      credentials | pipe "$host" "the write credentials" "sudo sh -c 'umask 077; cat >/etc/gauntlet/$name.env'"
    fi
  done
}

pipe() { # HOST WHAT SCRIPT: standard input, which is WHAT, into the script
  [ -z "$dry" ] || { cat >/dev/null; printf '# %s | ' "$2"; }
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker "$1" --command "$3"
}

start() { on_hosts all "sudo systemctl reset-failed $unit 2>/dev/null || true; sudo systemctl enable --quiet --now $unit"; }

run_all() {
  create
  setup
  start
}

watch() {
  run_all
  if [ -n "$dry" ]; then
    echo "# then every ${option[poll]} s: the same again if the slice was pre-empted, the end if the run is over"
    return
  fi
  local state service="" last
  while sleep "${option[poll]}"; do
    last=$service service=""
    state=$(slice_state) || continue # no answer is no news
    case $state in
      ready) ;;
      lost | absent)
        echo "slice $name is gone: again"
        # Until all of it is done: a slice without the service looks like one whose run is over.
        until bash "$0" run "${given[@]:1}"; do
          echo "that did not work; it is tried again"
          sleep "${option[poll]}"
        done
        continue
        ;;
      *) continue ;;
    esac
    service=$(on_hosts 0 "systemctl show --property ActiveState --value $unit" 2>/dev/null) || continue
    case $service in
      inactive)
        [ "$last" = inactive ] || continue # a host that goes down or comes up says so too, for a moment
        echo "the run is over (or somebody stopped $unit); delete takes the slice down"
        return
        ;;
      failed)
        echo "$script: $unit has failed too often; launch/tpu_pod.sh follow shows why" >&2
        exit 1
        ;;
    esac
  done
}

delete() {
  local state
  if [ -z "$dry" ]; then
    state=$(state_of tpus queued-resources describe "$name" "${where[@]}" --format 'value(state.state)') || exit 2
    case $state in
      absent) echo "slice $name: absent"; return ;;
      DELETING) echo "slice $name: being deleted"; return ;;
    esac
  fi
  remove
}

case $action in
  create) create ;;
  setup) setup ;;
  run) run_all ;;
  watch) watch ;;
  follow) on_hosts 0 "sudo journalctl --unit $unit --output cat --lines 50 --follow" ;;
  stop) on_hosts all "sudo systemctl disable --quiet --now $unit" ;;
  delete) delete ;;
esac
