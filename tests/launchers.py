"""The launchers of pods under test, and stand-ins for the clouds' own tools."""

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
RUN = ["--ledger", "https://l.example.org", "--bucket", "file:///buckets/ada"]
ZONE = ["--zone", "us-west4-a"]
NFS = ["--nfs", "10.0.0.2:/share"]
PEER = "peer --ledger https://l.example.org --name ada --bucket file:///buckets/ada"

# A stand-in writes down how it was called, and answers from a script of states: the n-th call of a kind gets the n-th answer,
# the last one for ever. Beside each answer stands a warning, as clouds' tools give them. Nobody waits.
STAND_IN = """#!/usr/bin/env python3
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
words = sys.argv[1:]
with (folder / "calls").open("a") as file:
    file.write(json.dumps([pathlib.Path(__file__).name, *words]) + "\\n")
print("WARNING: an update is there", file=sys.stderr)
answers = json.loads((folder / "answers").read_text())
line = " ".join(words)
for kind, replies in answers.items():
    if kind in line:
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        (folder / "answers").write_text(json.dumps(answers))
        if reply == "absent":
            print("ERROR: NOT_FOUND: it is not there", file=sys.stderr)
            sys.exit(1)
        if reply == "refused":
            sys.exit(255)
        print(reply)
        break
"""


class Cloud:
    """Stand-ins for a cloud's tools, on a PATH of their own."""

    def __init__(self, folder: Path, *names: str):
        self.folder = folder
        folder.mkdir()
        for name in names:
            (folder / name).write_text(STAND_IN)
            (folder / name).chmod(0o755)
        (folder / "sleep").symlink_to("/bin/true")

    def answer(self, **kinds: list[str]) -> None:
        """Sets the answers by a text that a call's words have (_ stands for a space)."""
        (self.folder / "answers").write_text(json.dumps({k.replace("_", " "): v for k, v in kinds.items()}))
        (self.folder / "calls").write_text("")

    def calls(self) -> list[str]:
        """What was called, without the looks at the state."""
        rows = [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]
        return [" ".join(row) for row in rows if not {"describe", "queue", "squeue"} & set(row)]


def launch(script, *words, path=None, environment=None, **options):
    env = {"PATH": os.environ["PATH"] if path is None else f"{path}:{os.environ['PATH']}", "HOME": "/nowhere"}
    return subprocess.run(
        [str(LAUNCH / script), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**env, **(environment or {})},
        **options,
    )


def dry(script, *words, **options):
    found = launch(script, *words, "--dry-run", **options)
    assert found.returncode == 0, found.stderr
    return found.stdout
