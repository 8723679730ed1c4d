"""The launchers of pods: what they would do, what they refuse, and their manifests against the published schemas."""

import json
import os
import shutil
import subprocess

import jsonschema
import pytest
import yaml
from launchers import LAUNCH, NFS, PEER, ROOT, RUN, ZONE, dry, launch


@pytest.mark.parametrize("name", ["slurm.sbatch", "arguments.bash"])
def test_the_rest_of_the_shell_is_sound(name):
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("shellcheck is missing")
    found = subprocess.run(
        [shellcheck, "--external-sources", str(LAUNCH / name)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout


def test_a_pod_slice_before_it_is_asked_for():
    lines = dry("tpu_pod.sh", "run", "--name", "ada", *ZONE, *NFS, *RUN, "--spot").splitlines()
    assert lines[0] == (
        "gcloud compute tpus queued-resources create ada --node-id ada --zone us-west4-a"
        " --accelerator-type v5litepod-16 --runtime-version v2-alpha-tpuv5-lite --spot"
    )
    home = "--home /mnt/gauntlet/ada --distributed auto"
    assert f"ExecStart=/opt/gauntlet/venv/bin/gauntlet {PEER} {home}" in lines
    assert "Restart=on-failure" in lines and "WorkingDirectory=/mnt/gauntlet/ada" in lines
    assert lines[-3].endswith("sudo systemctl enable --quiet --now gauntlet-ada")
    setup = "\n".join(lines).split("SCRIPT\n")[0].split("<<'SCRIPT'\n")[1]
    assert subprocess.run(["bash", "-n"], input=setup, text=True, check=False).returncode == 0
    assert dry("tpu_pod.sh", "delete", "--name", "ada", *ZONE) == (
        "gcloud compute tpus queued-resources delete ada --zone us-west4-a --force --quiet\n"
    )


def test_a_slurm_job_before_it_is_submitted(tmp_path):
    program = tmp_path / "gauntlet"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    words = ["--name", "ada", "--home", "/shared/ada", "--nodes", "2", "--gpus", "8", "--gauntlet", program]
    assert dry("slurm.sh", "run", *words, *RUN).splitlines() == [
        "mkdir -p -m 0700 /shared/ada",
        "sbatch --parsable --job-name=gauntlet-ada --nodes=2 --output=/shared/ada/slurm.log --gpus-per-node=8"
        f" {LAUNCH}/slurm.sbatch 20 '' {program} {PEER} --home /shared/ada --distributed auto",
    ]


def test_a_job_of_skypilot_before_it_is_launched():
    line = dry("sky.sh", "run", "--name", "ada", "--nodes", "2", *NFS, *RUN, "--spot")
    assert line.startswith(
        "sky jobs launch --yes --detach-run --name gauntlet-ada --num-nodes 2 --gpus H100:8 --use-spot --env NAME=ada"
    )
    assert "--env PEER_HOME=/mnt/gauntlet/ada" in line and line.endswith(f"{LAUNCH}/sky.yaml\n")
    assert "secret" not in line


SCHEMAS = json.loads((ROOT / "tests" / "launch" / "schemas.json").read_text())


def check(document, kind):
    jsonschema.Draft202012Validator({"$ref": f"#/{kind}", **SCHEMAS}).validate(document)


@pytest.mark.parametrize(
    ("topology", "hosts", "chips"),
    [("v5e:4x4", 4, 4), ("v5e:2x4", 1, 8), ("v5p:2x2x4", 4, 4), ("v6e:4x8", 8, 4)],
)
@pytest.mark.parametrize("more", [["--privileged", "yes"], ["--config", ROOT / "configs" / "local.py"]])
def test_the_manifests_follow_their_schemas(topology, hosts, chips, more):
    words = ["--name", "ada", "--image", "r/p:1", "--topology", topology, "--spot", *RUN, *more]
    volume, job_set = yaml.safe_load_all(launch("gke.sh", "render", *words).stdout)
    check(volume, "PersistentVolumeClaim")
    check(job_set, "JobSet")
    assert volume["spec"]["accessModes"] == ["ReadWriteMany" if hosts > 1 else "ReadWriteOnce"]
    job = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == job["completions"] == hosts
    pod = job["template"]["spec"]
    container = pod["containers"][0]
    assert container["resources"]["limits"] == {"google.com/tpu": chips}
    node = f"{PEER} --home /home/gauntlet --distributed auto"
    if more[0] == "--config":
        node = node.replace("peer ", "peer /etc/gauntlet/config.py ", 1)
    assert container["args"] == node.split()
    assert container["securityContext"]["runAsUser"] == (0 if more[0] == "--privileged" else 10001)
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology.split(":")[1]
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"


def test_what_a_schema_does_not_know_is_refused():
    words = ["--name", "ada", "--image", "r/p:1", *RUN]
    job_set = list(yaml.safe_load_all(launch("gke.sh", "render", *words).stdout))[1]
    job = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]
    for part, key in ((job_set["spec"], "colour"), (job, "restarts"), (job["template"]["spec"], "container")):
        part[key] = []
        with pytest.raises(jsonschema.ValidationError, match=key):
            check(job_set, "JobSet")
        del part[key]
    del job_set["spec"]["failurePolicy"]["rules"][0]["name"]
    with pytest.raises(jsonschema.ValidationError, match="'name' is a required property"):
        check(job_set, "JobSet")


def test_the_task_of_skypilot_follows_its_schema_and_is_sound_shell():
    task = yaml.safe_load((LAUNCH / "sky.yaml").read_text())
    check(task, "SkyPilotTask")
    for part in ("setup", "run"):
        assert subprocess.run(["bash", "-n"], input=task[part], text=True, check=False).returncode == 0


def test_a_dry_run_on_kubernetes_prints_the_manifests_and_how_they_are_applied():
    words = ["--name", "ada", "--image", "r/p:1", *RUN]
    rendered = launch("gke.sh", "render", *words).stdout
    assert dry("gke.sh", "run", *words) == (
        rendered + "# the manifests above | kubectl apply --server-side --filename -\n"
    )


@pytest.mark.parametrize("script", ["tpu_pod.sh", "gke.sh", "slurm.sh", "sky.sh"])
@pytest.mark.parametrize("value", ["x; rm -rf ~", "$(id)", "a\nb", "a'b", 'a"b', "-x", "", "x" * 99])
def test_a_name_that_could_become_a_command_is_refused(script, value):
    found = launch(script, "delete", "--name", value, *(ZONE if script == "tpu_pod.sh" else []), "--dry-run")
    assert found.returncode == 2 and found.stdout == ""
    assert "--name" in found.stderr and "\n" not in found.stderr.strip("\n")


@pytest.mark.parametrize(
    ("script", "words", "options"),
    [
        (
            "tpu_pod.sh",
            [*ZONE, *NFS],
            "zone project accelerator runtime network service-account nfs home install poll",
        ),
        (
            "gke.sh",
            ["--image", "r/p:1"],
            "image topology context namespace service-account storage storage-class",
        ),
        ("slurm.sh", ["--home", "/s"], "home gauntlet env-file nodes gpus partition constraint time config"),
        ("sky.sh", NFS, "infra nodes gpus nfs home install ledger bucket"),
    ],
)
def test_so_is_every_other_value(script, words, options):
    for option in options.split():
        value = "x; rm -rf ~\n$(id)'\""
        found = launch(script, "run", "--name", "ada", *words, *RUN, f"--{option}", value, "--dry-run")
        assert (found.returncode, found.stdout) == (2, ""), option
        assert f"{option}" in found.stderr and found.stderr.count("\n") == 1


@pytest.mark.parametrize("word", ["--behavior;id", "$(id)", "a b", "`id`"])
def test_more_flags_are_checked_too(word):
    found = launch("sky.sh", "run", "--name", "ada", *NFS, *RUN, "--dry-run", "--", word)
    assert found.returncode == 2 and found.stdout == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fly"], "no action"),
        (["create", "--colour", "x"], "no option"),
        (["create", "--name", "ada"], "needs --zone"),
        (["run", "--name", "ada", *ZONE, *RUN], "needs --nfs or --home"),
        (["create", "--name", "ada", "--zone", "moon"], "a zone such as"),
    ],
)
def test_wrong_use_of_a_launcher_is_one_line(words, told):
    found = launch("tpu_pod.sh", *words)
    assert found.returncode == 2 and told in found.stderr and found.stderr.count("\n") == 1


def test_a_node_that_was_told_to_stop_is_no_run_that_is_over(tmp_path):
    until_over = LAUNCH / "until_over.sh"
    assert subprocess.run([until_over, "true"], check=False).returncode == 0
    assert subprocess.run([until_over, "sh", "-c", "exit 3"], check=False).returncode == 3
    node = "trap 'exit 0' TERM; echo ready; while true; do sleep 0.1; done"
    with subprocess.Popen([until_over, "bash", "-c", node], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(timeout=20) == 143


SRUN = """#!/usr/bin/env bash
echo "devices $JAX_LOCAL_DEVICE_IDS key $AWS_ACCESS_KEY_ID"
trap 'echo "srun would kill its tasks"; kill -KILL "$(cat "${0%/*}/node")"; exit 9' TERM
"${@:2}" & echo $! >"${0%/*}/node"
code=0; wait $! || code=$?; exit $code
"""
SCANCEL = """#!/usr/bin/env bash
echo "scancel $*"
kill -TERM "$(cat "${0%/*}/node")"
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then echo "JobId=7 JobState=$STATE Restarts=0"; else echo "scontrol $*"; fi
"""


@pytest.mark.parametrize(
    ("node", "tell", "state", "restarted", "code", "end"),
    [
        ("true", False, "RUNNING", "0", 0, "the run is over"),
        ("exit 3", False, "RUNNING", "0", 0, "scontrol requeue 7"),
        ("exit 3", False, "RUNNING", "2", 3, "ended with code 3, after 2 restarts"),
        ("exit 3", False, "CANCELLED", "0", 3, "devices 0,1,2,3 key AK"),
        (
            "trap 'exit 0' TERM; echo ready; while true; do sleep 0.1; done",
            True,
            "RUNNING",
            "5",
            0,
            "scontrol requeue 7",
        ),
        (
            "trap 'exit 0' TERM; echo ready; while true; do sleep 0.1; done",
            True,
            "CANCELLED",
            "0",
            0,
            "scancel --signal=TERM 7.0",
        ),
    ],
)
def test_a_slurm_job_goes_back_into_the_queue_until_the_run_is_over(
    tmp_path, node, tell, state, restarted, code, end
):
    for name, text in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    keys = tmp_path / "keys"
    keys.write_text("AWS_ACCESS_KEY_ID=AK\nAWS_SECRET_ACCESS_KEY=s\n")
    slurm = {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "4", "SLURM_RESTART_COUNT": restarted, "STATE": state}
    with subprocess.Popen(
        [LAUNCH / "slurm.sbatch", "2", keys, "bash", "-c", node],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **slurm},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if line == "ready\n" and tell:
                process.terminate()
    assert process.returncode == code
    assert lines[-1] == end
    assert "srun would kill its tasks" not in lines
