"""Outputs on their way to the bucket: each file's upload starts when its node reports it."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from lora_registry.store import StoreError
from worker.comfyui.client import OutputFile
from worker.errors import ExecutionFailed
from worker.generation.pictures import Finished
from worker.results import OutputResult
from worker.rooms import JobContext, Rooms
from worker.storage.content_type import content_type_for
from workflows.template import Output

_READ_BYTES = 1024 * 1024

Prepare = Callable[[Path, Output], Sequence[Finished]]
"""Looks into one produced file, and may re-encode it or add others; blocking, runs in the pool."""


class Delivery:
    """The outputs of one attempt at a job.

    Args:
        folder: key below which the objects go, without a trailing slash.
        prepare: checks and measures a produced file, and says what to upload.
    """

    def __init__(self, rooms: Rooms, context: JobContext, *, folder: str, prepare: Prepare) -> None:
        self._rooms = rooms
        self._context = context
        self._folder = folder
        self._prepare = prepare
        self._uploads: list[Future[list[OutputResult]]] = []
        self._delivered_nodes: set[str] = set()

    def take(self, output: Output, files: Sequence[OutputFile]) -> None:
        """Start the upload of a node's files; returns at once."""
        for file in files:
            self._delivered_nodes.add(output.node)
            number = len(self._uploads)
            future = self._rooms.pool.submit(self._deliver, output, file, number)
            self._uploads.append(future)

    def results(self) -> list[OutputResult]:
        """Wait for every upload, in the order reported. Raises the first failure."""
        return [result for upload in self._uploads for result in upload.result()]

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
        wait(self._uploads)
        for upload in self._uploads:
            if upload.exception() is None:
                for result in upload.result():
                    with contextlib.suppress(StoreError):  # the job's own error matters more
                        self._rooms.store.delete(result.key)

    def _deliver(self, output: Output, file: OutputFile, number: int) -> list[OutputResult]:
        self._context.cancel.check()
        with self._rooms.comfyui.opened(file) as path:
            finished = self._prepare(path, output)
            try:
                return [self._upload(output, one, number) for one in finished]
            finally:
                for one in finished:
                    if one.path != path:
                        one.path.unlink(missing_ok=True)

    def _upload(self, output: Output, finished: Finished, number: int) -> OutputResult:
        name = str(number) if finished.kind is None else f"{number}-{finished.kind}"
        return upload_file(
            self._rooms,
            self._context,
            finished.path,
            f"{self._folder}/{name}{finished.path.suffix}",
            kind=finished.kind or output.kind,
            **finished.facts,
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
