"""A real S3 server for tests: Ceph's gateway on loopback, with a user and a bucket of its own for each node."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import botocore.config
import botocore.session
import pytest

SCRIPT = Path(__file__).parents[1] / "launch" / "s3_server.sh"
PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")


class Account(NamedTuple):
    """A user of the server, who owns one bucket that everybody may read."""

    name: str
    access_key: str
    secret_key: str
    bucket: str


class S3Server:
    """The server while it runs."""

    def __init__(self, folder: Path, port: int):
        self.folder = folder
        self.port = port
        self.endpoint = f"http://127.0.0.1:{port}"

    def account(self, name: str, *, bucket: bool = True, public: bool = True) -> Account:
        """Makes a user and, if wanted, its bucket, which by its policy everybody may read."""
        lower = name.lower()
        account = Account(lower, f"AK{lower.upper()}", f"secret-of-{lower}-0123456789", f"bucket-{lower}")
        self._script("user", str(self.folder), account.name, account.access_key, account.secret_key)
        if bucket:
            client = self.client(account)
            client.create_bucket(Bucket=account.bucket)
            if public:
                statement = {
                    "Effect": "Allow",
                    "Principal": "*",
                    # Who may not list is told 403 instead of 404 of what is not there.
                    "Action": ["s3:GetObject", "s3:ListBucket"],
                    "Resource": [f"arn:aws:s3:::{account.bucket}", f"arn:aws:s3:::{account.bucket}/*"],
                }
                policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
                client.put_bucket_policy(Bucket=account.bucket, Policy=policy)
        return account

    def make_bucket(self, account: Account) -> None:
        """The account's bucket as the script makes it."""
        self._script("bucket", str(self.folder), account.bucket, account.access_key, account.secret_key)

    def stop(self) -> None:
        """Stops the server before its time."""
        self._script("stop", str(self.folder))

    def client(self, account: Account):
        """The account's own client, with all its rights."""
        return botocore.session.Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=account.access_key,
            aws_secret_access_key=account.secret_key,
            config=botocore.config.Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )

    def url(self, account: Account, *, endpoint: str | None = None) -> str:
        """The URL of an account's bucket, as its owner gives it to a node."""
        return f"s3://{account.bucket}/run?endpoint={endpoint or self.endpoint}&region=us-east-1"

    def _script(self, *words: str) -> None:
        subprocess.run([str(SCRIPT), *words], check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """Starts a server and stops it; skips where its packages are missing, and fails there in continuous integration."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        why = f"no S3 server: {', '.join(missing)} is missing (apt-get install ceph-mon ceph-osd radosgw ceph-common)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="gauntlet-s3-", dir=memory if memory.is_dir() else None))
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The monitor's port is looked for from here on; both must be ports that exist.
    port = port if port < 50_000 else port - 20_000
    server = S3Server(folder, port)
    try:
        # Its children keep running and must not hold the pipe that is read here.
        with (folder / "start.out").open("w") as out:
            started = subprocess.run(
                [str(SCRIPT), "start", str(folder), str(port)],
                stdout=out,
                stderr=out,
                check=False,
                timeout=60,
            )
        assert started.returncode == 0, (folder / "start.out").read_text()
        yield server
    finally:
        subprocess.run([str(SCRIPT), "stop", str(folder)], check=False, capture_output=True, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)
