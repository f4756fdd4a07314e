"""Outputs on their way to the bucket: each file's upload starts when its node reports it."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_registry.store import StoreError
from worker.comfyui.client import OutputFile
from worker.content_type import content_type_for
from worker.errors import ExecutionFailed
from worker.pictures import Inspected
from worker.results import OutputResult
from worker.rooms import JobContext, Rooms
from workflows.template import Output

_READ_BYTES = 1024 * 1024

Prepare = Callable[[Path, Output], Inspected]
"""Looks into one produced file and may re-encode it; blocking, runs in the pool."""


@dataclass(frozen=True, slots=True)
class _Upload:
    key: str
    future: "Future[OutputResult]"


class Delivery:
    """The outputs of one attempt at a job.

    Args:
        folder: key below which the objects go, without a trailing slash.
        prepare: reads kind, size and the like from a file, and gives the file to upload.
    """

    def __init__(self, rooms: Rooms, context: JobContext, *, folder: str, prepare: Prepare) -> None:
        self._rooms = rooms
        self._context = context
        self._folder = folder
        self._prepare = prepare
        self._uploads: list[_Upload] = []
        self._delivered_nodes: set[str] = set()

    def take(self, output: Output, files: Sequence[OutputFile]) -> None:
        """Start the upload of a node's files; returns at once."""
        for file in files:
            self._delivered_nodes.add(output.node)
            number = len(self._uploads)
            future = self._rooms.pool.submit(self._deliver, output, file, number)
            self._uploads.append(_Upload(f"{self._folder}/{number}", future))

    def results(self) -> list[OutputResult]:
        """Wait for every upload, in the order reported. Raises the first failure."""
        return [upload.future.result() for upload in self._uploads]

    def check_complete(self, outputs: Sequence[Output]) -> None:
        """All declared outputs, or none. Raises `ExecutionFailed` naming the silent nodes."""
        missing = [output.node for output in outputs if output.node not in self._delivered_nodes]
        if missing:
            raise ExecutionFailed(
                "ComfyUI finished without all of the workflow's outputs.",
                details={"nodes": missing},
            )

    def discard(self) -> None:
        """Wait for what is under way and remove what arrived: a failed job leaves no object."""
        wait([upload.future for upload in self._uploads])
        for upload in self._uploads:
            if upload.future.exception() is None:
                with contextlib.suppress(StoreError):  # best effort: the job's own error matters
                    self._rooms.store.delete(upload.future.result().key)

    def _deliver(self, output: Output, file: OutputFile, number: int) -> OutputResult:
        self._context.cancel.check()
        with self._rooms.comfyui.opened(file) as path:
            inspected = self._prepare(path, output)
            try:
                return self._upload(output, inspected, number)
            finally:
                if inspected.path != path:
                    inspected.path.unlink(missing_ok=True)

    def _upload(self, output: Output, inspected: Inspected, number: int) -> OutputResult:
        key = f"{self._folder}/{number}{inspected.path.suffix}"
        return upload_file(
            self._rooms,
            self._context,
            inspected.path,
            key,
            kind=output.kind,
            **inspected.facts,
        )


def upload_file(
    rooms: Rooms, context: JobContext, path: Path, key: str, **facts: Any
) -> OutputResult:
    """Send one local file and describe it: size and sha256 as confirmed, a URL to fetch it by."""
    digest = sha256_of(path)
    content_type = content_type_for(path)
    info = rooms.store.upload(
        path,
        key,
        content_type,
        metadata={"sha256": digest, "job-id": context.job_id},
        check=context.cancel.check,
    )
    url = rooms.store.presign(key, rooms.settings.url_lifetime_s, content_type=content_type)
    return OutputResult(
        url=url.url,
        expires_at=url.expires_at,
        key=key,
        content_type=content_type,
        bytes=info.size,
        sha256=digest,
        **facts,
    )


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file; memory stays flat."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in _chunks(file.read):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while chunk := read(_READ_BYTES):
        yield chunk
