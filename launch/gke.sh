#!/usr/bin/env bash
# One peer on a TPU slice of Google Kubernetes Engine, as a JobSet whose hosts start and fail together.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=arguments.bash
. "$here/arguments.bash"

usage() {
  cat <<'TEXT'
usage: launch/gke.sh ACTION --name NAME [OPTIONS] [-- MORE FLAGS OF gauntlet peer]

  render   prints the manifests
  run      applies them: the volume for key and state, the credentials, the JobSet
  follow   shows what the node says on host 0
  stop     deletes the JobSet and keeps volume and credentials; run goes on from there
  delete   deletes JobSet, credentials and config; the volume holds the peer's key and stays
  forget   deletes the volume as well

Each can be given again at any time, and does what is left to do. Kubernetes starts the peer again after a pre-emption.

  --name NAME           of the peer
  --image IMAGE         made from launch/Dockerfile
  --topology KIND:SHAPE of the slice, such as v5e:4x4, v5p:2x2x4, v6e:4x8 (default: v5e:4x4)
  --spot                cheaper, and may be pre-empted at any time
  --context CONTEXT     of kubectl (default: the current one)
  --namespace NAMESPACE (default: the context's)
  --ledger URL          of the run
  --bucket URL          of the peer; s3:// takes AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of this shell's environment
  --config FILE         the run's config, where the ledger's terms are not enough (default: none)
  --service-account NAME    of Kubernetes, to which a gs:// bucket is open (default: default)
  --storage-class NAME  of the volume (default: standard-rwx where there are several hosts, else standard-rwo)
  --storage SIZE        of the volume (default: 1Ti, the least of standard-rwx)
  --restarts N          after failures other than pre-emptions (default: 20)
  --privileged yes      the container as root with all rights, where the chips ask for it (default: no)
  --dry-run             prints manifests and commands and does nothing
TEXT
}

option=([name]="" [image]="" [topology]=v5e:4x4 [context]="" [namespace]="" [ledger]="" [bucket]="" [config]=""
  [service-account]=default [storage-class]="" [storage]=1Ti [restarts]=20 [privileged]=no)
take "render run follow stop delete forget" "$@"
need name
check_values
matches topology '(v4|v5p):[1-9][0-9]?x[1-9][0-9]?x[1-9][0-9]?|(v5e|v6e):[1-9][0-9]?x[1-9][0-9]?' "such as v5e:4x4 or v5p:2x2x4"
matches context '[A-Za-z0-9][A-Za-z0-9._:/@-]*' "a context that kubectl config get-contexts lists"
for key in namespace service-account storage-class; do matches "$key" '[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?' "a to z, digits and -"; done
matches storage '[1-9][0-9]{0,4}(Gi|Ti)' "a size such as 1Ti"
matches privileged 'yes|no' "yes or no"

name=${option[name]} object=gauntlet-${option[name]}
kubectl=(kubectl)
[ -z "${option[context]}" ] || kubectl+=(--context "${option[context]}")
[ -z "${option[namespace]}" ] || kubectl+=(--namespace "${option[namespace]}")

kind=${option[topology]%:*} shape=${option[topology]#*:}
chips=$((${shape//x/ * })) per_host=4
# The small slices of v5e and v6e are one machine with all of their chips.
if [[ $kind == v[56]e && $chips -le 8 ]]; then per_host=$chips; fi
[ $((chips % per_host)) = 0 ] || fail "--topology ${option[topology]}: $chips chips are no whole number of hosts with $per_host"
hosts=$((chips / per_host))
case $kind in
  v4) accelerator=tpu-v4-podslice ;;
  v5e) accelerator=tpu-v5-lite-podslice ;;
  v5p) accelerator=tpu-v5p-slice ;;
  v6e) accelerator=tpu-v6e-slice ;;
esac

render() {
  local config="" text class=${option[storage-class]} mode=ReadWriteOnce selector tolerations="[]"
  local security='{runAsUser: 10001, runAsGroup: 10001, runAsNonRoot: true, allowPrivilegeEscalation: false}'
  [ -z "${option[config]}" ] || config=/etc/gauntlet/config.py
  [ "$hosts" = 1 ] || mode=ReadWriteMany
  if [ -z "$class" ]; then if [ "$hosts" = 1 ]; then class=standard-rwo; else class=standard-rwx; fi; fi
  selector="cloud.google.com/gke-tpu-accelerator: $accelerator, cloud.google.com/gke-tpu-topology: \"$shape\""
  if [ -n "$spot" ]; then
    selector+=', cloud.google.com/gke-spot: "true"'
    tolerations='[{key: cloud.google.com/gke-spot, operator: Equal, value: "true", effect: NoSchedule}]'
  fi
  [ "${option[privileged]}" = no ] || security='{runAsUser: 0, privileged: true}'
  node_words "$config" /home/gauntlet auto
  text=$(printf ', "%s"' "${words[@]}") # no word holds a quote or a backslash
  put() { manifest=${manifest//"\${$1}"/"$2"}; }
  local manifest
  manifest=$(cat "$here/gke/peer.yaml")
  put WORDS "[${text:2}]"
  put NAME "$name"
  put IMAGE "${option[image]}"
  put HOSTS "$hosts"
  put CHIPS "$per_host"
  put RESTARTS "${option[restarts]}"
  put NODE_SELECTOR "{$selector}"
  put TOLERATIONS "$tolerations"
  put SECURITY "$security"
  put SERVICE_ACCOUNT "${option[service-account]}"
  put STORAGE_CLASS "$class"
  put STORAGE "${option[storage]}"
  put ACCESS_MODE "$mode"
  echo "$manifest"
}

apply() { # WHAT: standard input, which is WHAT
  local words=("${kubectl[@]}" apply --server-side --filename -)
  if [ -n "$dry" ]; then
    cat >/dev/null
    echo "# $1 | $(said "${words[@]}")"
  else
    "${words[@]}"
  fi
}

make() { # COMMAND...: what kubectl create would send; the cluster hears nothing of it
  if [ -n "$dry" ]; then cat >/dev/null; else "${kubectl[@]}" create "$@" --dry-run=client --output yaml; fi
}

start() {
  if [[ ${option[bucket]} == s3://* ]]; then
    # --server-side: the other way keeps a copy of the secret in an annotation.
    credentials | make secret generic "$object" --from-env-file=/dev/stdin | apply "secret $object with the write credentials"
  fi
  if [ -n "${option[config]}" ]; then
    make configmap "$object" "--from-file=config.py=${option[config]}" </dev/null | apply "config map $object with ${option[config]@Q}"
  fi
  [ -z "$dry" ] || render
  render | apply "the manifests above" ||
    fail "a JobSet that is there cannot be changed: launch/gke.sh stop --name $name, then run again"
}

remove() { run "${kubectl[@]}" delete --ignore-not-found "$@"; }

case $action in
  render | run) need image ledger bucket ;;
esac
case $action in
  render) render ;;
  run)
    check_credentials
    start
    ;;
  follow)
    run "${kubectl[@]}" logs --follow --tail 50 --container peer \
      --selector "jobset.sigs.k8s.io/jobset-name=$object,batch.kubernetes.io/job-completion-index=0"
    ;;
  stop) remove jobset "$object" ;;
  delete | forget)
    remove jobset "$object"
    remove secret "$object"
    remove configmap "$object"
    [ "$action" = delete ] || remove persistentvolumeclaim "$object-home"
    ;;
esac
