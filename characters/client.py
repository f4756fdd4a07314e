"""A typed client of the gateway; `Client(url, key)` and one method for each thing to do."""

import json
import mimetypes
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import httpx

FINAL: Final = frozenset({"completed", "failed", "cancelled"})
_TIMEOUT_S: Final = 60.0
_SILENCE_S: Final = 45.0  # the gateway says something every 15 s
_RECONNECTS: Final = 5  # lost streams in a row without news between them
_TYPES: Final = {".heic": "image/heic", ".heif": "image/heif", ".webp": "image/webp"}


class ApiError(Exception):
    """The gateway, or a job, said no; the message is a sentence to act on."""

    def __init__(self, message: str, code: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands; `result` when it completed, `error` when it did not."""

    id: str
    task: str
    state: str
    progress: Mapping[str, Any]
    result: Mapping[str, Any]
    error: Mapping[str, Any]
    created_at: str
    note: str | None = None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read what the API says of a job."""
        return cls(
            id=str(document["id"]),
            task=str(document.get("task", "")),
            state=str(document["state"]),
            progress=document.get("progress") or {},
            result=document.get("result") or {},
            error=document.get("error") or {},
            created_at=str(document.get("created_at", "")),
            note=document.get("note"),
        )

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return self.state in FINAL

    @property
    def outputs(self) -> Sequence[Mapping[str, Any]]:
        """What it delivered, each with `url`, `key`, `kind`, `bytes`."""
        found: Sequence[Mapping[str, Any]] = self.result.get("outputs", ())
        return found

    def checked(self) -> Self:
        """The job, if it completed. Raises ApiError with its own reason."""
        if self.state in {"failed", "cancelled"}:
            code = str(self.error.get("code", "internal"))
            words = str(self.error.get("error", self.state))
            raise ApiError(words, code, retryable=bool(self.error.get("retryable")))
        return self


class Client:
    """One gateway.

    Every submission carries an Idempotency-Key, so that one whose reply was lost is sent again
    without being made twice.

    Args:
        url: the gateway's.
        api_key: one of its GATEWAY_API_KEYS; none on the gateway's own machine.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S)
        self._bucket = httpx.Client(timeout=_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()
        self._bucket.close()

    # Characters

    def characters(self) -> Iterator[Mapping[str, Any]]:
        """Every character, newest first."""
        cursor = None
        while True:
            page = self._get("/characters", {"cursor": cursor} if cursor else {})
            yield from page["characters"]
            if (cursor := page["cursor"]) is None:
                return

    def character(self, character_id: str) -> Mapping[str, Any]:
        """A character and its versions. Raises ApiError."""
        document: Mapping[str, Any] = self._get(f"/characters/{character_id}")
        return document

    def create(self, character_id: str, photos: Sequence[Mapping[str, Any]], **fields: Any) -> Job:
        """Train a character from sources, such as `upload` returns."""
        return self.submit(
            "/characters", {"character_id": character_id, "images": list(photos), **fields}
        )

    def erase(self, character_id: str) -> Job:
        """Remove everything of a character for good."""
        return self.submit(f"/characters/{character_id}/erase", {})

    # Jobs

    def image(self, prompt: str, **fields: Any) -> Job:
        """Ask for pictures; the fields are the contract's."""
        return self.submit("/generate-image", {"prompt": prompt, **fields})

    def video(self, **fields: Any) -> Job:
        """Ask for a clip, of an `image` source or of a `prompt`."""
        return self.submit("/generate-video", fields)

    def submit(self, path: str, body: Mapping[str, Any]) -> Job:
        """POST a job; sent again once if the connection broke. Raises ApiError."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        try:
            return Job.of(self._read(self._http.post(path, json=body, headers=headers)))
        except httpx.TransportError:
            return Job.of(self._send("POST", path, json=body, headers=headers))

    def job(self, job_id: str) -> Job:
        """A job as it stands. Raises ApiError."""
        return Job.of(self._get(f"/jobs/{job_id}"))

    def jobs(self, limit: int = 20) -> list[Job]:
        """The newest jobs."""
        return [Job.of(line) for line in self._get("/jobs", {"limit": limit})["jobs"]]

    def cancel(self, job_id: str) -> Job:
        """End a job. Raises ApiError."""
        return Job.of(self._send("POST", f"/jobs/{job_id}/cancel"))

    def follow(self, job_id: str) -> Iterator[Job]:
        """The job at each change until it has ended, across lost connections. Raises ApiError."""
        last_id, lost = "", 0
        while True:
            headers = {"Last-Event-ID": last_id} if last_id else {}
            try:
                for event_id, job in self._events(job_id, headers):
                    last_id, lost = event_id, 0
                    yield job
                    if job.final:
                        return
            except httpx.TransportError as error:
                lost += 1
                if lost > _RECONNECTS:
                    raise ApiError("The gateway does not answer.", "unreachable") from error

    def _events(self, job_id: str, headers: Mapping[str, str]) -> Iterator[tuple[str, Job]]:
        path = f"/jobs/{job_id}/events"
        with self._http.stream("GET", path, headers=headers, timeout=_SILENCE_S) as reply:
            if not reply.is_success:
                reply.read()
                self._read(reply)
            event_id = ""
            for line in reply.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    event_id = value
                elif name == "data":
                    yield event_id, Job.of(json.loads(value))

    # Files

    def upload(
        self, paths: Sequence[Path], on_sent: Callable[[Path], None] = lambda _path: None
    ) -> list[dict[str, str]]:
        """Send files straight to the bucket; the sources to name them by.

        Args:
            paths: up to a hundred pictures, or a zip.
            on_sent: called as each file has arrived.

        Raises:
            ApiError: a file of another type, too large, or refused by the bucket.
            OSError: a file that cannot be read.
        """
        files = [
            {"name": path.name, "content_type": type_of(path), "bytes": path.stat().st_size}
            for path in paths
        ]
        granted = self._send("POST", "/uploads", json={"files": files})["files"]
        for path, file in zip(paths, granted, strict=True):
            reply = self._bucket.put(
                file["url"], content=path.read_bytes(), headers=file["headers"]
            )
            if not reply.is_success:
                raise ApiError(f"The bucket refused {path.name}.", "storage_unavailable")
            on_sent(path)
        return [{"key": file["key"]} for file in granted]

    def download(self, url: str, path: Path) -> None:
        """Fetch an output; the file appears whole. Raises ApiError."""
        part = path.with_name(f".{path.name}.part")
        with self._bucket.stream("GET", url) as reply, part.open("wb") as file:
            if not reply.is_success:
                raise ApiError(f"{path.name} cannot be fetched.", "storage_unavailable")
            for chunk in reply.iter_bytes():
                file.write(chunk)
        part.replace(path)

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        return self._send("GET", path, params=query)

    def _send(self, method: str, path: str, **given: Any) -> Any:
        try:
            return self._read(self._http.request(method, path, **given))
        except httpx.TransportError as error:
            raise ApiError("The gateway does not answer.", "unreachable", retryable=True) from error

    @staticmethod
    def _read(reply: httpx.Response) -> Any:
        try:
            document = reply.json()
        except json.JSONDecodeError as error:
            raise ApiError("The answer was not a gateway's.", "unreachable") from error
        if not reply.is_success:
            words = str(document.get("detail", f"The gateway answered {reply.status_code}."))
            code = str(document.get("code", "internal"))
            raise ApiError(words, code, retryable=bool(document.get("retryable")))
        return document


def type_of(path: Path) -> str:
    """The content type of a file to upload, by its name."""
    suffix = path.suffix.lower()
    return _TYPES.get(suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
