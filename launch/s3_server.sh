#!/usr/bin/env bash
# A throw-away S3 server on loopback: one monitor, one object store in memory and the RADOS Gateway of Ceph, without systemd.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/s3_server.sh start DIR [PORT]           starts the server on http://127.0.0.1:PORT (7480)
       launch/s3_server.sh user DIR NAME ACCESS SECRET    makes a user, or leaves the one that is there
       launch/s3_server.sh bucket DIR BUCKET ACCESS SECRET  makes a bucket of that user's, which everybody may read
       launch/s3_server.sh stop DIR                   stops it and forgets everything
       --dry-run before the verb prints what would be done

DIR holds its files; put it under /dev/shm. Everything is in memory and gone when it stops. Needs Debian's packages
ceph-mon, ceph-osd, radosgw and ceph-common.
TEXT
}

run() {
  if [ -n "$dry" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}

fail() {
  echo "s3_server: $*" >&2
  exit 2
}

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

alive() { # NAME; a process that has its number since, but not its name, is another's
  local program=ceph-$1
  [ "$1" = rgw ] && program=radosgw
  [ -f "$dir/run/$1.pid" ] && [ "$(cat "/proc/$(cat "$dir/run/$1.pid")/comm" 2>/dev/null)" = "$program" ]
}

need() {
  for program in ceph-mon ceph-osd radosgw radosgw-admin monmaptool ceph; do
    command -v "$program" >/dev/null || fail "$program is missing: apt-get install ceph-mon ceph-osd radosgw ceph-common"
  done
}

settings() {
  local port=$1 monitor=$2
  cat <<CONF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon_host = [v2:127.0.0.1:$monitor]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
auth_allow_insecure_global_id_reclaim = true
keyring = $dir/keyring
run_dir = $dir/run
admin_socket =
log_file = $dir/log/\$name.log
mon_cluster_log_file = $dir/log/cluster.log
crash_dir = $dir/log
pid_file =
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
[mon]
mon_data = $dir/mon
mon_data_avail_crit = 1
mon_data_avail_warn = 2
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
[osd]
osd_data = $dir/osd
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_memory_target = 1073741824
osd_crush_update_on_start = false
osd_class_update_on_start = false
osd_op_num_shards = 2
[client]
ms_mon_client_mode = crc
rgw_frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw_thread_pool_size = 64
rgw_run_sync_thread = false
rgw_dynamic_resharding = false
rgw_enable_quota_threads = false
rgw_enable_usage_log = false
rgw_enable_ops_log = false
rgw_num_control_oids = 1
rgw_gc_max_objs = 1
rgw_lc_max_objs = 1
rgw_data_log_num_shards = 1
rgw_md_log_max_shards = 1
rgw_usage_max_shards = 1
rgw_reshard_num_logs = 1
rgw_override_bucket_index_max_shards = 1
CONF
}

background() { # NAME COMMAND...: starts it with its process id noted
  local name=$1
  shift
  if [ -n "$dry" ]; then run "$@"; return; fi
  "$@" >"$dir/log/$name.out" 2>&1 &
  echo $! >"$dir/run/$name.pid"
}

give_up() {
  local code=$?
  if [ $code != 0 ]; then
    stop
    tail -n 3 "$dir"/log/*.out >&2
  fi
}

start() {
  local port=${1:-7480} monitor uuid
  need
  if alive rgw; then echo "running already"; return; fi
  is_free "$port" || fail "port $port is in use: give another"
  monitor=$((port + 9000))
  while ! is_free "$monitor"; do monitor=$((monitor + 1)); done
  run mkdir -p "$dir/mon" "$dir/osd" "$dir/run" "$dir/log"
  if [ -n "$dry" ]; then echo "write $dir/ceph.conf"; else
    settings "$port" "$monitor" >"$dir/ceph.conf"
    : >"$dir/keyring"
  fi
  trap give_up EXIT
  export CEPH_CONF=$dir/ceph.conf CEPH_ARGS="--conf $dir/ceph.conf"
  uuid=$(cat /proc/sys/kernel/random/uuid)
  run monmaptool --create --clobber --addv a "[v2:127.0.0.1:$monitor]" --set-min-mon-release pacific \
    --fsid "$(sed -n 's/^fsid = //p' "$dir/ceph.conf" 2>/dev/null || echo FSID)" "$dir/monmap" >/dev/null
  run ceph-mon --mkfs -i a --monmap "$dir/monmap"
  background mon ceph-mon -f -i a
  run ceph osd new "$uuid" >/dev/null
  run ceph osd crush add 0 1.0 root=default host=here >/dev/null 2>&1
  run ceph-osd --mkfs -i 0 --osd-uuid "$uuid" >/dev/null 2>&1
  background osd ceph-osd -f -i 0
  background rgw radosgw -f -n client.rgw
  [ -n "$dry" ] && return
  for _ in $(seq 600); do
    alive rgw || fail "the gateway did not start"
    if ! is_free "$port" && curl -s -o /dev/null "http://127.0.0.1:$port/"; then
      echo "S3 at http://127.0.0.1:$port"
      return
    fi
    sleep 0.05
  done
  fail "the gateway did not answer within 30 s"
}

user() {
  local name=$1 access=$2 secret=$3
  export CEPH_CONF=$dir/ceph.conf CEPH_ARGS="--conf $dir/ceph.conf"
  if [ -z "$dry" ] && radosgw-admin user info --uid="$name" >/dev/null 2>&1; then return; fi
  run radosgw-admin user create --uid="$name" --display-name="$name" --access-key="$access" --secret="$secret" >/dev/null 2>&1 ||
    fail "the user $name could not be made"
}

signed() { # METHOD PATH BODY ACCESS SECRET; the secret goes through a pipe, since command lines are public
  if [ -n "$dry" ]; then echo "$1 $2 $3"; return; fi
  printf 'user = "%s:%s"\n' "$4" "$5" |
    curl --config - --fail --silent --show-error --output /dev/null --aws-sigv4 aws:amz:us-east-1:s3 \
      --request "$1" --header 'x-amz-content-sha256: UNSIGNED-PAYLOAD' --data-binary "$3" "$2"
}

bucket() {
  local name=$1 access=$2 secret=$3 port at
  port=$(sed -n 's/^rgw_frontends = .*:\([0-9]*\) .*/\1/p' "$dir/ceph.conf" 2>/dev/null || true)
  [ -n "$port$dry" ] || fail "no server has been started in $dir"
  at="http://127.0.0.1:${port:-7480}/$name"
  signed PUT "$at" "" "$access" "$secret" || fail "the bucket $name could not be made"
  # Who may not list is told 403 instead of 404 of what is not there.
  signed PUT "$at?policy=" '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*",'\
'"Action":["s3:GetObject","s3:ListBucket"],"Resource":["arn:aws:s3:::'"$name"'","arn:aws:s3:::'"$name"'/*"]}]}' \
    "$access" "$secret" || fail "the bucket $name could not be opened to readers"
}

stop() {
  for name in rgw osd mon; do
    if alive "$name"; then run kill -KILL "$(cat "$dir/run/$name.pid")" || true; fi
  done
  [ -f "$dir/ceph.conf" ] || return 0
  run rm -rf "$dir/mon" "$dir/osd" "$dir/run" "$dir/keyring" "$dir/monmap"
}

dry=""
if [ "${1:-}" = --dry-run ]; then dry=yes; shift; fi
case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  start | stop | user | bucket) verb=$1; shift ;;
  *) usage >&2; exit 2 ;;
esac
[ $# -ge 1 ] || { usage >&2; exit 2; }
dir=$1
shift
[ -n "$dry" ] || mkdir -p "$dir"
dir=$(realpath -m "$dir")
case "$verb" in user | bucket) [ $# -eq 3 ] || { usage >&2; exit 2; } ;; esac
"$verb" "$@"
