"""Outputs on their way to the bucket: each file's upload starts when its node reports it.

RunPod delivers a job at least once: a worker that it took for lost may still run the same job. So
every try writes below a key of its own, and what it takes back can be nobody else's.

The manifest, all it takes to make the outputs again, goes up last.
"""

import contextlib
import datetime
import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

from lora_registry.store import ObjectInfo, StoreError
from lora_registry.tensorfile import sha256_of
from worker.comfyui.client import OutputFile
from worker.contract import Generation
from worker.errors import ExecutionFailed
from worker.generation.products import Finished
from worker.generation.used_characters import ResolvedCharacter
from worker.resources import JobContext, Resources
from worker.results import GenerationResult, OutputResult
from worker.storage.upload import content_type_for
from workflows.template import OWN_FIELDS, Output, Value

FinishOutput = Callable[[Path], Sequence[Finished]]
"""Looks into one produced file, and may re-encode it or add others; blocking, runs in the pool."""


@dataclass(frozen=True, slots=True)
class _Upload:
    """One produced file on its way: described as soon as it was read, stored a little later.

    `place` is that of its output as declared, then of the file among those of its node.
    """

    place: tuple[int, int]
    described: Future[list[OutputResult]]
    stored: Future[list[OutputResult]]


class Delivery:
    """The outputs of one try at a job; left by an error, it takes back what it has stored.

    Either way the try's folder in ComfyUI's output is removed.

    Args:
        job_folder: key below which the job's objects go, without a trailing slash.
        finish: checks and measures a produced file, and says what to upload.
        outputs: of the workflow, in the order in which the result has them.
    """

    def __init__(
        self,
        resources: Resources,
        context: JobContext,
        job_folder: str,
        finish: FinishOutput,
        outputs: Sequence[Output],
    ) -> None:
        self.run_id = uuid.uuid4().hex
        self.folder = f"{job_folder}/{self.run_id[:8]}"
        self._resources = resources
        self._context = context
        self._finish = finish
        self._uploads: list[_Upload] = []
        self._documents: list[tuple[str, Future[ObjectInfo]]] = []
        self._outputs = outputs
        self._taken: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is not None:
                self._discard()
        finally:
            self._resources.comfyui.delete_folder(self.run_id)

    def listener(self, outputs: Sequence[Output]) -> Callable[[str, tuple[OutputFile, ...]], None]:
        """Takes what the nodes of a graph report; files of other nodes are left alone."""
        wanted = {output.node: output for output in outputs}

        def on_files(node: str, files: tuple[OutputFile, ...]) -> None:
            if node in wanted:
                self.take(wanted[node], files)

        return on_files

    def take(self, output: Output, files: Sequence[OutputFile], **facts: Any) -> None:
        """Start the upload of a node's files; `facts` are known already. Returns at once."""
        for file in files:
            place = (self._outputs.index(output), self._taken[output.node])
            self._taken[output.node] += 1
            stem, described = self._stem(output, place), Future[list[OutputResult]]()
            stored = self._resources.pool.submit(
                self._deliver, output, file, stem, described, facts
            )
            self._uploads.append(_Upload(place, described, stored))

    def described(self) -> list[OutputResult]:
        """What the outputs will be once they are stored, in the order declared."""
        ordered = sorted(self._uploads, key=lambda upload: upload.place)
        return [result for upload in ordered for result in upload.described.result()]

    def add_document(self, key: str, body: bytes) -> None:
        """Store a small JSON object beside the outputs; returns at once.

        By way of a file, since only an upload ends when the job is cancelled.
        """
        path = self._context.folder / f"document-{len(self._documents)}.json"
        path.write_bytes(body)
        store = partial(self._resources.store.upload, check_cancelled=self._context.cancel.check)
        self._documents.append(
            (key, self._resources.pool.submit(store, path, key, "application/json"))
        )

    def wait(self) -> None:
        """Wait until everything is stored; raises the first failure.

        Raises:
            ExecutionFailed, StoreError, Cancelled.
        """
        for upload in self._uploads:
            upload.stored.result()
        for _, document in self._documents:
            document.result()

    def check_complete(self, outputs: Sequence[Output]) -> None:
        """All declared outputs, or none. Raises `ExecutionFailed` naming the silent nodes."""
        missing = [output.node for output in outputs if not self._taken[output.node]]
        if missing:
            raise ExecutionFailed(
                "ComfyUI finished without all of the workflow's outputs.",
                details={"nodes": missing},
            )

    def _discard(self) -> None:
        """Wait for what is under way and remove what arrived: a failed job leaves no object."""
        wait([upload.stored for upload in self._uploads])
        wait([document for _, document in self._documents])
        keys = [key for key, document in self._documents if document.exception() is None]
        for upload in self._uploads:
            if upload.stored.exception() is None:
                keys += [result.key for result in upload.stored.result()]
        for key in keys:
            with contextlib.suppress(StoreError):  # the job's own error matters more
                self._resources.store.delete(key)

    def _deliver(
        self,
        output: Output,
        file: OutputFile,
        stem: str,
        described: Future[list[OutputResult]],
        facts: Mapping[str, Any],
    ) -> list[OutputResult]:
        try:
            self._context.cancel.check()
            with self._resources.comfyui.opened(file) as path:
                return self._send(path, output, stem, described, facts)
        except BaseException as error:
            if not described.done():
                described.set_exception(error)
            raise

    def _send(
        self,
        path: Path,
        output: Output,
        stem: str,
        described: Future[list[OutputResult]],
        facts: Mapping[str, Any],
    ) -> list[OutputResult]:
        finished = self._finish(path)
        try:
            results = [self._describe(output, one, stem, facts) for one in finished]
            described.set_result(results)
            for one, result in zip(finished, results, strict=True):
                send(self._resources, self._context, one.path, result)
            return results
        finally:
            for one in finished:
                if one.path != path:
                    one.path.unlink(missing_ok=True)

    def _describe(
        self, output: Output, finished: Finished, stem: str, facts: Mapping[str, Any]
    ) -> OutputResult:
        name = f"{stem}-poster" if finished.kind == "poster" else stem
        key = f"{self.folder}/{name}{finished.path.suffix}"
        told = {"kind": finished.kind, "name": output.name, "node": output.node}
        return describe(self._resources, finished.path, key, **told, **finished.facts, **facts)

    def _stem(self, output: Output, place: tuple[int, int]) -> str:
        """The file's name in the bucket: the same for every run, whichever node ends first."""
        declared, nth = place
        if output.name is None and len(self._outputs) == 1:
            return str(nth)
        return f"{output.name or declared}" + (f"-{nth}" if nth else "")


def output_folder(characters: Sequence[ResolvedCharacter], context: JobContext) -> str:
    """`characters/{id}/outputs/{yyyy}/{mm}/{dd}/{job_id}`, or `base/…` without a character."""
    owner = f"characters/{characters[0].character_id}" if characters else "base"
    day = datetime.datetime.fromtimestamp(context.started_at, datetime.UTC)
    return f"{owner}/outputs/{day:%Y/%m/%d}/{context.job_id}"


def upload_file(
    resources: Resources, context: JobContext, path: Path, key: str, **facts: Any
) -> OutputResult:
    """Send one local file and describe it: size and sha256 as confirmed, a URL to fetch it by.

    The key is the same for every run of a job, so a run that is ended leaves the object where it
    is: another run may have sent it, and returned it, already.
    """
    result = describe(resources, path, key, **facts)
    send(resources, context, path, result, shared=True)
    return result


def describe(resources: Resources, path: Path, key: str, **facts: Any) -> OutputResult:
    """What a local file will be as an object: size in bytes, sha256, a URL to fetch it by."""
    content_type = content_type_for(path)
    url = resources.store.presign(key, resources.settings.url_expires_s, content_type=content_type)
    return OutputResult(
        url=url.url,
        expires_at=url.expires_at,
        key=key,
        content_type=content_type,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        **facts,
    )


def send(
    resources: Resources,
    context: JobContext,
    path: Path,
    result: OutputResult,
    *,
    shared: bool = False,
) -> None:
    """Store a described file. Raises StoreError when the store has something else than it."""
    resources.store.upload(
        path,
        result.key,
        result.content_type,
        metadata={"sha256": result.sha256, "job-id": context.job_id},
        check_cancelled=context.cancel.check,
        shared=shared,
    )


MANIFEST_VERSION: Final = 1


def manifest_of(
    result: GenerationResult,
    job: Generation,
    *,
    characters: Sequence[ResolvedCharacter],
    values: Mapping[str, Value | None],
    versions: Mapping[str, str],
) -> bytes:
    """The manifest as JSON: input, seed, workflow digest, LoRA sha256, versions, outputs, timings.

    It has no URL of an object of ours, since those expire, no base64, since the input picture is
    the caller's, and of a source's URL only where it leads: its query may hold a signature.
    """
    document = result.to_json()
    del document["manifest"]
    for output in document["outputs"]:
        del output["url"]
        output.pop("expires_at", None)
    document |= {
        "manifest_version": MANIFEST_VERSION,
        "input": described_input(job),
        "values": {name: value for name, value in values.items() if value is not None},
        "loras": [
            {
                "character_id": character.character_id,
                "version": character.version.version,
                "sha256": character.version.sha256,
                "key": character.version.key,
                "strength": character.strength,
            }
            for character in characters
            if character.version
        ],
        "references": [
            {"character_id": character.character_id, "input": name, "key": photo.key}
            for character in characters
            for name, photo in character.references.items()
        ],
        "versions": dict(versions),
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode()


def described_input(job: Generation) -> dict[str, Any]:
    """The job's input as the manifest keeps it.

    A base64 source is kept by its digest; of a URL, neither query nor user name are kept.
    """
    described = job.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    own = [described[name] for name in OWN_FIELDS if name in described]
    for source in (*own, *described.get("inputs", {}).values()):
        if "base64" in source:
            digest = hashlib.sha256(source.pop("base64").encode()).hexdigest()
            source["base64_sha256"] = digest
        if "url" in source:
            parts = urlsplit(source["url"])
            place = parts.netloc.rpartition("@")[2]
            source["url"] = urlunsplit((parts.scheme, place, parts.path, "", ""))
    return {"task": job.model_dump()["task"], **described}
