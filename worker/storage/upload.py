"""One local file to an object, whole or not at all, confirmed by what the store says it has."""

import base64
import contextlib
import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Final

from lora_registry.store import ObjectInfo, StoreError, StoreUnavailable
from lora_registry.tensorfile import sha256_of
from worker.storage.client import Attempts, StorageOptions, code_of, having
from worker.storage.transfer import CheckCancelled, FileSlice, TransferPool

DEFAULT: Final = "application/octet-stream"
_BY_SUFFIX: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".opus": "audio/ogg",
    ".ogg": "audio/ogg",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".toml": "application/toml",
    ".zip": "application/zip",
    ".safetensors": DEFAULT,
}
_PLAYS_IN_PLACE: Final = ("image/", "video/", "audio/", "text/plain", "application/json")


def content_type_for(path: PurePath | str) -> str:
    """The content type of a file or key by its suffix, in either case."""
    return _BY_SUFFIX.get(PurePath(path).suffix.lower(), DEFAULT)


def disposition(name: str, content_type: str) -> str:
    """A Content-Disposition: what a browser can show plays in place, the rest is saved.

    Args:
        name: suggested file name; characters that would end the quoted string become `_`.
        content_type: decides between inline and attachment.
    """
    kind = "inline" if content_type.startswith(_PLAYS_IN_PLACE) else "attachment"
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in name)
    return f'{kind}; filename="{plain}"'


log = logging.getLogger(__name__)

SINGLE_BYTES: Final = 8 * 1024 * 1024
"""Up to here a file goes in one request, from memory: that saves a 100-continue's round trip."""
PART_BYTES: Final = 8 * 1024 * 1024
THREADS: Final = 8
_MAX_PARTS: Final = 10_000  # S3's limit


@dataclass(frozen=True, slots=True)
class _Sent:
    number: int
    etag: str
    md5: bytes


@dataclass(slots=True)
class Upload:
    """One transfer; an instance serves once.

    Args:
        client: from `worker.storage.client.open_client`.
        object_key: with the configured prefix; `key` is without it.
        head: looks the object up; the fallback where the store's etag proves nothing.
        shared: others may rely on the object, so an upload that is ended does not remove it.
    """

    client: Any
    options: StorageOptions
    key: str
    object_key: str
    head: Callable[[], ObjectInfo]
    shared: bool = False
    _upload_id: str | None = field(default=None, init=False)
    _may_exist: bool = field(default=False, init=False)

    def run(
        self,
        path: Path,
        content_type: str,
        metadata: Mapping[str, str],
        check_cancelled: CheckCancelled | None,
    ) -> ObjectInfo:
        """Send the file; its sha256 goes into the metadata where the caller gave none.

        Raises:
            StoreUnavailable: not sent, or the store has something else than what was sent.
        """
        with TransferPool(THREADS, check_cancelled) as pool:
            try:
                return self._send(path, content_type, metadata, pool)
            except StoreError:
                # After a lost reply the object may be there, whole: that does no harm.
                pool.clean_up(self._abort)
                raise
            except BaseException:
                pool.clean_up(self._undo)
                raise

    def _send(
        self, path: Path, content_type: str, metadata: Mapping[str, str], pool: TransferPool
    ) -> ObjectInfo:
        size = path.stat().st_size
        if "sha256" not in metadata:
            [sha256] = pool.run([partial(sha256_of, path)])
            metadata = {**metadata, "sha256": sha256}
        target = {
            "Bucket": self.options.bucket,
            "Key": self.object_key,
            "ContentType": content_type,
            "ContentDisposition": disposition(self.key.rsplit("/")[-1], content_type),
            "Metadata": dict(metadata),
        }
        sent = ObjectInfo(self.key, size, "", time.time(), metadata)
        if size <= SINGLE_BYTES:
            return self._single(path, sent, target, pool)
        return self._multipart(path, sent, target, pool)

    def _single(
        self, path: Path, sent: ObjectInfo, target: Mapping[str, Any], pool: TransferPool
    ) -> ObjectInfo:
        body = path.read_bytes()
        md5 = _md5(body)
        request = partial(self.client.put_object, Body=body, ContentMD5=_base64(md5), **target)
        self._may_exist = True
        [reply] = pool.run([partial(self._attempts(pool).run, partial(having, "ETag", request))])
        return self._confirmed(replace(sent, etag=reply["ETag"]), md5.hex(), pool)

    def _multipart(
        self, path: Path, sent: ObjectInfo, target: Mapping[str, Any], pool: TransferPool
    ) -> ObjectInfo:
        length = max(PART_BYTES, math.ceil(sent.size / _MAX_PARTS))
        starts = range(0, sent.size, length)
        pool.run([partial(self._open, target, pool)])
        done = pool.run(
            [
                partial(self._part, path, number, start, min(length, sent.size - start), pool)
                for number, start in enumerate(starts, 1)
            ]
        )
        expected = f"{_md5(b''.join(part.md5 for part in done)).hex()}-{len(done)}"
        info = self._completed(done, sent, expected, pool)
        self._upload_id = None
        return self._confirmed(info, expected, pool)

    def _open(self, target: Mapping[str, Any], pool: TransferPool) -> None:
        request = partial(self.client.create_multipart_upload, **target)
        # Kept at once: should the caller be gone by now, the upload is aborted by this id.
        opened = partial(having, "UploadId", request)
        self._upload_id = self._attempts(pool).run(opened)["UploadId"]

    def _part(self, path: Path, number: int, start: int, length: int, pool: TransferPool) -> _Sent:
        with FileSlice(path, start, length, pool.stop) as body:
            md5 = body.md5()

            def send() -> Any:
                body.seek(0)
                return self.client.upload_part(
                    **self._target, PartNumber=number, Body=body, ContentMD5=_base64(md5)
                )

            reply = self._attempts(pool).run(partial(having, "ETag", send))
            return _Sent(number, reply["ETag"], md5)

    def _completed(
        self, done: list[_Sent], sent: ObjectInfo, expected: str, pool: TransferPool
    ) -> ObjectInfo:
        listed = [{"PartNumber": part.number, "ETag": part.etag} for part in done]
        request = partial(
            self.client.complete_multipart_upload, **self._target, MultipartUpload={"Parts": listed}
        )
        self._may_exist = True
        try:
            completed = partial(having, "ETag", request)
            [reply] = pool.run([partial(self._attempts(pool).run, completed)])
        except StoreError:
            # Repeated after a lost reply, a completion finds no upload: then the object is there.
            with contextlib.suppress(StoreError):
                return self._confirmed(sent, expected, pool)
            raise
        return replace(sent, etag=reply["ETag"])

    def _confirmed(self, sent: ObjectInfo, expected: str, pool: TransferPool) -> ObjectInfo:
        """The object as the store has it; `expected` is the etag of most stores, an MD5."""
        if sent.etag.strip('"') == expected:
            return sent
        [found] = pool.run([self.head])
        sha256 = found.metadata.get("sha256")
        if found.size == sent.size and sha256 == sent.metadata["sha256"]:
            return found
        raise StoreUnavailable(self.key, "The store has something else than was sent; try again.")

    @property
    def _target(self) -> dict[str, Any]:
        place = {"Bucket": self.options.bucket, "Key": self.object_key}
        return {**place, "UploadId": self._upload_id}

    def _attempts(self, pool: TransferPool) -> Attempts:
        return Attempts(self.options, self.key, stop=pool.stop)

    def _undo(self) -> None:
        self._abort()
        if self._may_exist and not self.shared:
            place = {"Bucket": self.options.bucket, "Key": self.object_key}
            self._try(partial(self.client.delete_object, **place))

    def _abort(self) -> None:
        if self._upload_id is not None:
            self._try(partial(self.client.abort_multipart_upload, **self._target))

    def _try(self, request: Callable[[], Any]) -> None:
        try:
            Attempts(self.options, self.key).run(request)
        except StoreError as error:
            if code_of(error.__cause__) != "NoSuchUpload":
                log.warning("upload not undone", extra={"key": self.key, "reason": str(error)})


def _md5(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
