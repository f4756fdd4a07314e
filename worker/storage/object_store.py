"""ObjectStore: the bucket. Verbs of `lora_registry.store.Store`, transfers and presigned URLs."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from lora_registry.store import ObjectInfo, ObjectMissing, StoredObject, StoreUnavailable
from worker.storage.client import (
    FAILURES,
    Attempts,
    ReplyUnusable,
    StorageOptions,
    having,
    open_client,
    required,
    status_of,
)
from worker.storage.transfer import Download
from worker.storage.upload import Upload, content_type_for, disposition

__all__ = ["ObjectStore", "PresignedUrl", "StorageOptions", "content_type_for"]

MAX_URL_LIFETIME_S: Final = 604_800  # SigV4's limit; boto3 signs more without complaint
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class PresignedUrl:
    """A URL to fetch an object by; `expires_at` in ISO 8601 UTC, None for a public one."""

    url: str
    expires_at: str | None


class ObjectStore:
    """One bucket below one prefix; safe to share between threads.

    Writes are tried again after a lost reply: a conditional one may then be refused because of
    its own first success, so whoever gets `PreconditionFailed` looks what is there.
    """

    def __init__(self, options: StorageOptions) -> None:
        self.options = options
        prefix = options.prefix.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = open_client(options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a second call does nothing."""
        self._client.close()

    def check(self) -> None:
        """One cheap request that proves endpoint, bucket and credentials. Raises StoreError."""
        request = partial(self._page, self._prefix, MaxKeys=1)
        Attempts(self.options, self._prefix).run(request)

    def get(self, key: str) -> StoredObject:
        """Read a small object whole. Raises ObjectMissing, StoreError."""
        return self._attempts(key).run(partial(self._read, key))

    def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        """Read unless its etag is still `etag`: None then. Raises as `get` does."""

        def read() -> StoredObject | None:
            try:
                return self._read(key, IfNoneMatch=etag)
            except FAILURES as error:
                # botocore raises for 304 too; here it is the answer of every warm job.
                if status_of(error) == HTTPStatus.NOT_MODIFIED:
                    return None
                raise

        return self._attempts(key).run(read)

    def put(self, key: str, body: bytes, content_type: str = _JSON) -> str:
        """Write unconditionally; returns the new etag."""
        return self._put(key, body, content_type)

    def put_if_absent(self, key: str, body: bytes, content_type: str = _JSON) -> str:
        """Write with `If-None-Match: *`. Raises PreconditionFailed, ConditionsUnsupported."""
        return self._put(key, body, content_type, IfNoneMatch="*")

    def put_if_match(self, key: str, body: bytes, etag: str, content_type: str = _JSON) -> str:
        """Write with `If-Match`. Raises PreconditionFailed, ConditionsUnsupported."""
        return self._put(key, body, content_type, IfMatch=etag)

    def head(self, key: str) -> ObjectInfo:
        """Size, etag, metadata. Raises ObjectMissing, StoreError."""
        try:
            return self._attempts(key).run(partial(self._head, key))
        except ObjectMissing as error:
            # A HEAD has no body, so it cannot tell a missing object from a missing bucket.
            self._attempts(key).run(partial(self._probe, key))
            raise StoreUnavailable(key, "The bucket says both; try again.") from error

    def list(
        self, prefix: str, *, start_after: str = "", page_size: int = 1000
    ) -> Iterator[ObjectInfo]:
        """Every object under a prefix in key order, a page of at most 1,000 at a time."""
        after = self._prefix + start_after if start_after else ""
        for page in self._pages(prefix, StartAfter=after, MaxKeys=page_size):
            for entry in page.get("Contents", ()):
                key = entry["Key"].removeprefix(self._prefix)
                modified = entry["LastModified"].timestamp()
                yield ObjectInfo(key, entry["Size"], entry.get("ETag", ""), modified)

    def list_folders(
        self, prefix: str, *, start_after: str = "", page_size: int = 1000
    ) -> Iterator[str]:
        """The names directly below a prefix (delimiter `/`), without prefix and slash.

        In the store's order: S3 sorts keys, so `mira-2/` before `mira/`; others sort names.
        """
        below = self._prefix + prefix
        after = f"{below}{start_after}/" if start_after else ""
        for page in self._pages(prefix, Delimiter="/", StartAfter=after, MaxKeys=page_size):
            for entry in page.get("CommonPrefixes", ()):
                name = entry["Prefix"].removeprefix(below).rstrip("/")
                if name != start_after:  # S3 counts what lies in that folder as after it
                    yield name

    def delete(self, key: str) -> None:
        """Remove; an absent key is no error."""
        with contextlib.suppress(ObjectMissing):
            self._attempts(key).run(partial(self._client.delete_object, **self._at(key)))

    def download(
        self, key: str, path: Path, *, check_cancelled: Callable[[], None] | None = None
    ) -> None:
        """Fetch to a local path in parallel parts; the caller names a temporary path.

        `check_cancelled` is called ten times a second; what it raises ends it within a second.

        Raises:
            ObjectMissing: it is not there, or was deleted meanwhile.
            StoreError: anything else; nothing is left at `path` then.
        """
        download = Download(self._client, self.options, key, self._prefix + key)
        download.run(path, partial(self.head, key), check_cancelled)

    def upload(
        self,
        path: Path,
        key: str,
        content_type: str,
        *,
        metadata: Mapping[str, str] | None = None,
        check_cancelled: Callable[[], None] | None = None,
        shared: bool = False,
    ) -> ObjectInfo:
        """Send a local file, in parts when large; the store has confirmed it when this returns.

        Its sha256 is in its metadata. `check_cancelled` as in `download`; an upload ended by it
        leaves no open multipart and removes the object. A `shared` object, addressed by its
        content, stays: others may have sent the same and rely on it.
        """
        head = partial(self.head, key)
        upload = Upload(self._client, self.options, key, self._prefix + key, head, shared=shared)
        return upload.run(path, content_type, metadata or {}, check_cancelled)

    def presign(
        self, key: str, expires_s: float, *, content_type: str | None = None
    ) -> PresignedUrl:
        """A URL that a browser plays or saves.

        Args:
            key: the object's; whether it exists is not looked up.
            expires_s: life in seconds, brought into 1 to 604800 (SigV4's limit).
            content_type: answered by the store instead of the object's own.
        """
        if self.options.public_base_url is not None:
            base = self.options.public_base_url.rstrip("/")
            return PresignedUrl(f"{base}/{quote(self._prefix + key)}", None)
        kind = content_type or content_type_for(key)
        name = key.rsplit("/", 1)[-1]
        lifetime = min(max(1, int(expires_s)), MAX_URL_LIFETIME_S)
        expires_at = datetime.now(UTC) + timedelta(seconds=lifetime)
        shown = {"ResponseContentType": kind, "ResponseContentDisposition": disposition(name, kind)}
        url = self._client.generate_presigned_url(
            "get_object", Params={**self._at(key), **shown}, ExpiresIn=lifetime
        )
        return PresignedUrl(url, expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"))

    def presign_put(
        self, key: str, expires_s: float, *, content_type: str, size: int
    ) -> PresignedUrl:
        """A URL to which exactly `size` bytes of this type can be put; the store checks both."""
        lifetime = min(max(1, int(expires_s)), MAX_URL_LIFETIME_S)
        expires_at = datetime.now(UTC) + timedelta(seconds=lifetime)
        signed = {"ContentType": content_type, "ContentLength": size}
        url = self._client.generate_presigned_url(
            "put_object", Params={**self._at(key), **signed}, ExpiresIn=lifetime
        )
        return PresignedUrl(url, expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"))

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.options.bucket, "Key": self._prefix + key}

    def _attempts(self, key: str, *, conditional: bool = False) -> Attempts:
        return Attempts(self.options, key, conditional=conditional)

    def _read(self, key: str, **conditions: str) -> StoredObject:
        reply = self._client.get_object(**self._at(key), **conditions)
        with contextlib.closing(reply["Body"]) as body:
            return StoredObject(key, body.read(), required(reply, "ETag"))

    def _head(self, key: str) -> ObjectInfo:
        reply = self._client.head_object(**self._at(key))
        return ObjectInfo(
            key,
            required(reply, "ContentLength"),
            required(reply, "ETag"),
            required(reply, "LastModified").timestamp(),
            reply.get("Metadata", {}),
        )

    def _probe(self, key: str) -> None:
        self._client.get_object(**self._at(key), Range="bytes=0-0")["Body"].close()

    def _put(self, key: str, body: bytes, content_type: str, **conditions: str) -> str:
        request = partial(
            self._client.put_object,
            **self._at(key),
            Body=body,
            ContentType=content_type,
            **conditions,
        )
        attempts = self._attempts(key, conditional=bool(conditions))
        return str(attempts.run(partial(having, "ETag", request))["ETag"])

    def _pages(self, prefix: str, **options: str | int) -> Iterator[Mapping[str, Any]]:
        given = {name: value for name, value in options.items() if value}
        while True:
            request = partial(self._page, self._prefix + prefix, **given)
            page = self._attempts(prefix).run(request)
            yield page
            if not page.get("IsTruncated"):
                return
            given["ContinuationToken"] = page["NextContinuationToken"]

    def _page(self, prefix: str, **options: Any) -> Mapping[str, Any]:
        bucket = self.options.bucket
        page: Mapping[str, Any] = self._client.list_objects_v2(
            Bucket=bucket, Prefix=prefix, **options
        )
        _check_page(page, prefix)
        return page


def _check_page(page: Mapping[str, Any], prefix: str) -> None:
    """A listing is believed only where it says that it is one: emptiness deletes, or trains anew.

    botocore reads an HTML page, another document and an empty body as a listing of nothing.

    Raises:
        ReplyUnusable: it is none, or not the whole of one, or one of something else.
    """
    required(page, "Name")
    objects, folders = page.get("Contents", ()), page.get("CommonPrefixes", ())
    for entry in objects:
        required(entry, "Size")
        required(entry, "LastModified")
    keys = [required(entry, "Key") for entry in objects]
    keys += [required(entry, "Prefix") for entry in folders]
    if not all(key.startswith(prefix) for key in keys):
        raise ReplyUnusable("it lists another prefix")
    if page.get("KeyCount", 0) > len(keys):
        raise ReplyUnusable("it lists fewer keys than it counts")
    if page.get("IsTruncated"):
        required(page, "NextContinuationToken")
