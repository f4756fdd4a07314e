"""An S3 server that ignores write conditions without a word, as Supabase's does: PyPI's nanio."""

import contextlib
import os
import secrets
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final, Self

from local.ports import free_ports
from worker.child import ChildProcess
from worker.storage import StorageOptions

_START_TIMEOUT_S: Final = 30.0


class UnconditionalS3Failed(Exception):
    """The server ended or did not answer in time; the message carries the end of its log."""


class UnconditionalS3Server:
    """One server with one bucket on a free loopback port, its objects in a temporary folder.

    Raises:
        UnconditionalS3Failed: on entering.
    """

    def __init__(self, *, bucket: str = "characters") -> None:
        self.bucket = bucket
        self._access_key_id = "local-" + secrets.token_hex(6)
        self._secret_access_key = secrets.token_urlsafe(24)
        self._resources = contextlib.ExitStack()
        self._endpoint_url = ""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            folder = Path(
                opening.enter_context(tempfile.TemporaryDirectory(prefix="unconditional-s3-"))
            )
            (folder / self.bucket).mkdir()
            [port] = free_ports(1)
            self._endpoint_url = f"http://127.0.0.1:{port}"
            server = ChildProcess(
                [
                    *(sys.executable, "-m", "nanio", "serve", "--data-dir", str(folder)),
                    *("--host", "127.0.0.1", "--port", str(port), "--no-access-log"),
                ],
                name="unconditional s3",
                env={
                    **os.environ,
                    "NANIO_ACCESS_KEY": self._access_key_id,
                    "NANIO_SECRET_KEY": self._secret_access_key,
                },
            )
            opening.callback(server.stop)
            server.start()
            self._wait_ready(server)
            self._resources = opening.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._resources.close()

    def options(self, *, prefix: str = "", endpoint_url: str | None = None) -> StorageOptions:
        """How an `ObjectStore` reaches this server, or reaches it through `endpoint_url`."""
        return StorageOptions(
            bucket=self.bucket,
            access_key_id=self._access_key_id,
            secret_access_key=self._secret_access_key,
            endpoint_url=endpoint_url or self._endpoint_url,
            addressing_style="path",
            prefix=prefix,
        )

    def _wait_ready(self, server: ChildProcess) -> None:
        ends = time.monotonic() + _START_TIMEOUT_S
        while server.alive and time.monotonic() < ends:
            try:
                urllib.request.urlopen(self._endpoint_url, timeout=2).close()  # noqa: S310 - our own
            except urllib.error.HTTPError as answer:
                answer.close()  # it refuses the unsigned request: it is there
                return
            except OSError:
                time.sleep(0.05)
                continue
            return
        raise UnconditionalS3Failed(f"The unconditional S3 server did not start: {server.tail()}")
