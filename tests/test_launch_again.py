"""The launchers of pods given again, after a pre-emption, and where a cloud refuses: with stand-ins for the clouds' own tools."""

import shutil

import pytest
from launchers import NFS, RUN, ZONE, Cloud, dry, launch


def test_creating_twice_creates_once_and_a_lost_slice_is_asked_for_again(tmp_path):
    cloud = Cloud(tmp_path / "bin", "gcloud")
    words = ["create", "--name", "ada", *ZONE, "--poll", "1"]

    def create(requests: list[str], nodes: list[str]) -> list[str]:
        cloud.answer(**{"queued-resources_describe": requests, "tpu-vm_describe": nodes})
        found = launch("tpu_pod.sh", *words, path=cloud.folder)
        assert found.returncode == 0, found.stderr
        return [" ".join(call.split()[3:5]) for call in cloud.calls()]

    assert create(["absent", "PROVISIONING", "ACTIVE"], ["CREATING", "READY"]) == ["queued-resources create"]
    assert create(["ACTIVE"], ["READY"]) == []
    again = ["queued-resources delete", "queued-resources create"]
    assert create(["ACTIVE", "absent", "ACTIVE"], ["PREEMPTED", "READY"]) == again
    assert create(["SUSPENDED", "absent", "ACTIVE"], ["READY"]) == again


def test_watching_asks_again_for_a_slice_that_was_taken_away_and_ends_with_the_run(tmp_path):
    cloud = Cloud(tmp_path / "bin", "gcloud")
    cloud.answer(
        **{
            "queued-resources_describe": ["ACTIVE", "SUSPENDED", "SUSPENDED", "absent", "ACTIVE"],
            "tpu-vm_describe": ["READY"],
            "ActiveState": ["active", "inactive"],
        }
    )
    words = ["watch", "--name", "ada", *ZONE, "--home", "/shared/ada", *RUN, "--poll", "1"]
    found = launch("tpu_pod.sh", *words, path=cloud.folder)
    assert found.returncode == 0, found.stderr
    assert "slice ada is gone: again" in found.stdout and "the run is over" in found.stdout
    verbs = [" ".join(call.split()[3:5]) for call in cloud.calls() if "ActiveState" not in call]
    start = ["tpu-vm ssh", "tpu-vm ssh"]  # setup, then the service
    assert verbs == [*start, "queued-resources delete", "queued-resources create", *start]


@pytest.mark.parametrize(
    ("requests", "setups"),
    [
        (["ACTIVE", "SUSPENDED", "SUSPENDED", "absent", "ACTIVE"], ["ok", "refused", "ok"]),
        (["ACTIVE", "SUSPENDED", "FAILED", "FAILED", "FAILED", "absent", "ACTIVE"], ["ok"]),
    ],
)
def test_what_goes_wrong_while_a_lost_slice_is_asked_for_again_is_tried_again(tmp_path, requests, setups):
    cloud = Cloud(tmp_path / "bin", "gcloud")
    cloud.answer(
        **{
            "queued-resources_describe": requests,
            "tpu-vm_describe": ["READY"],
            "useradd": setups,
            # The first inactive is a host that goes down or comes up.
            "ActiveState": ["inactive", "active", "inactive"],
        }
    )
    words = ["watch", "--name", "ada", *ZONE, "--home", "/shared/ada", *RUN, "--poll", "1"]
    found = launch("tpu_pod.sh", *words, path=cloud.folder)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("that did not work; it is tried again") == 1
    calls = cloud.calls()
    last_set_up = max(i for i, call in enumerate(calls) if "useradd" in call)
    assert "systemctl enable" in calls[last_set_up + 1]
    assert sum("ActiveState" in call for call in calls[last_set_up:]) == 4


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ("ERROR: (gcloud) NOT_FOUND: it is not there", 0),
        ("ERROR: (gcloud) Not Found: Resource 'ada' was not found. It is said as NAME.", 0),
        ("ERROR: (gcloud) Project 'p' not found or deleted", 2),
    ],
)
def test_absent_is_what_the_cloud_itself_does_not_find(tmp_path, told, code):
    (tmp_path / "gcloud").write_text(f'#!/bin/sh\necho "{told}" >&2\nexit 1\n')
    (tmp_path / "gcloud").chmod(0o755)
    found = launch("tpu_pod.sh", "delete", "--name", "ada", *ZONE, path=tmp_path)
    assert found.returncode == code, found.stderr
    assert (found.stdout == "slice ada: absent\n") == (code == 0)


def test_what_a_cloud_refuses_is_said_and_not_taken_for_absence(tmp_path):
    cloud = Cloud(tmp_path / "bin", "gcloud")
    cloud.answer()
    (cloud.folder / "gcloud").write_text("#!/bin/sh\necho 'ERROR: PERMISSION_DENIED' >&2\nexit 1\n")
    for action in ("create", "delete"):
        found = launch("tpu_pod.sh", action, "--name", "ada", *ZONE, path=cloud.folder)
        assert (found.returncode, found.stderr) == (2, "tpu_pod.sh: ERROR: PERMISSION_DENIED\n")
    for name in ("bash", "dirname", "mktemp", "rm"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    without = launch("tpu_pod.sh", "delete", "--name", "ada", *ZONE, environment={"PATH": str(tmp_path)})
    assert (without.returncode, without.stdout) == (2, "") and "gcloud: command not found" in without.stderr


def test_deleting_what_is_gone_is_fine(tmp_path):
    cloud = Cloud(tmp_path / "bin", "gcloud")
    for state, deletes in (("ACTIVE", 1), ("absent", 0), ("DELETING", 0)):
        cloud.answer(**{"queued-resources_describe": [state]})
        found = launch("tpu_pod.sh", "delete", "--name", "ada", *ZONE, path=cloud.folder)
        assert found.returncode == 0, found.stderr
        assert len(cloud.calls()) == deletes


def test_a_slurm_job_that_is_in_the_queue_is_not_submitted_again(tmp_path):
    cloud = Cloud(tmp_path / "bin", "squeue", "sbatch")
    words = ["run", "--name", "ada", "--home", tmp_path / "ada", "--gauntlet", "/bin/true", *RUN]
    cloud.answer(noheader=["7 RUNNING"])
    assert "nothing to do" in launch("slurm.sh", *words, path=cloud.folder).stdout and cloud.calls() == []
    cloud.answer(noheader=[""], parsable=["8"])
    assert launch("slurm.sh", *words, path=cloud.folder).returncode == 0
    assert len(cloud.calls()) == 1 and "--job-name=gauntlet-ada" in cloud.calls()[0]


def test_deleting_a_job_that_is_gone_is_fine(tmp_path):
    cloud = Cloud(tmp_path / "bin", "squeue", "scancel", "sky")
    for there, deletes in ((True, 1), (False, 0)):
        queue = '[{"job_name": "gauntlet-ada"}]' if there else '[{"job_name": "gauntlet-adam"}]'
        cloud.answer(noheader=["7 RUNNING" if there else ""], jobs_queue=[queue])
        for script in ("slurm.sh", "sky.sh"):
            found = launch(script, "delete", "--name", "ada", path=cloud.folder)
            assert found.returncode == 0, found.stderr
        assert len(cloud.calls()) == 2 * deletes


def test_manifests_are_applied_again_and_what_is_deleted_may_be_gone(tmp_path):
    cloud = Cloud(tmp_path / "bin", "kubectl")
    run = ["run", "--name", "ada", "--image", "r/p:1", *RUN]
    for words, calls in (
        (run, ["apply --server-side --filename -"]),
        (["stop", "--name", "ada"], ["delete --ignore-not-found jobset gauntlet-ada"]),
        (
            ["delete", "--name", "ada"],
            [f"delete --ignore-not-found {kind} gauntlet-ada" for kind in ("jobset", "secret", "configmap")],
        ),
    ):
        for _ in range(2):
            cloud.answer()
            found = launch("gke.sh", *words, path=cloud.folder)
            assert found.returncode == 0, found.stderr
            assert cloud.calls() == [f"kubectl {call}" for call in calls]
    lines = dry("gke.sh", "forget", "--name", "ada", "--context", "c", "--namespace", "n").splitlines()
    assert lines[-1] == (
        "kubectl --context c --namespace n delete --ignore-not-found persistentvolumeclaim gauntlet-ada-home"
    )
    cloud.answer(apply=["refused"])
    changed = launch("gke.sh", *run, path=cloud.folder)
    assert changed.returncode == 2 and "launch/gke.sh stop --name ada, then run again" in changed.stderr


def test_a_job_of_skypilot_that_is_there_is_not_launched_again(tmp_path):
    cloud = Cloud(tmp_path / "bin", "sky")
    words = ["run", "--name", "ada", *NFS, *RUN]
    for queue, launches in (('[{"job_name": "gauntlet-ada"}]', 0), ("[]", 1)):
        cloud.answer(jobs_queue=[queue], jobs_launch=["ok"])
        assert launch("sky.sh", *words, path=cloud.folder).returncode == 0
        assert len(cloud.calls()) == launches


def test_credentials_are_on_no_command_line(tmp_path):
    secret = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "verysecretindeed"}
    bucket = ["--ledger", "https://l.example.org", "--bucket", "s3://ada/run?endpoint=https://s.example.org"]
    cloud = Cloud(tmp_path / "bin", "gcloud", "sky", "kubectl")
    cloud.answer(
        **{"queued-resources_describe": ["ACTIVE"], "tpu-vm_describe": ["READY"], "jobs_queue": ["[]"]}
    )
    runs = [
        ("tpu_pod.sh", [*ZONE, *NFS]),
        ("sky.sh", NFS),
        ("gke.sh", ["--image", "r/p:1"]),
    ]
    for script, words in runs:
        found = launch(script, "run", "--name", "ada", *words, *bucket, path=cloud.folder, environment=secret)
        assert found.returncode == 0, found.stderr
        said = (
            found.stdout
            + found.stderr
            + dry(script, "run", "--name", "ada", *words, *bucket, environment=secret)
        )
        assert "verysecret" not in said and "AKIA" not in said
    assert cloud.calls() and not any("verysecret" in call or "AKIA" in call for call in cloud.calls())
    without = launch("sky.sh", "run", "--name", "ada", *NFS, *bucket)
    assert without.returncode == 2 and "AWS_ACCESS_KEY_ID is not set" in without.stderr
