"""What the registry needs of an object store, and how that store says no.

`worker.storage.ObjectStore` is the real one (boto3); tests put a fault-injecting one around it.
"Not there" is only what the store says is not there: a throttled read raises `StoreThrottled`, a
failed one `StoreUnavailable`, never `ObjectMissing`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from errors import CodedError, ErrorCode


class StoreError(CodedError):
    """Base of what a store raises; `key` is the object's, without the configured prefix."""

    code = ErrorCode.STORAGE_UNAVAILABLE

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message, details={"key": key})
        self.key = key


class ObjectMissing(StoreError):
    """The store says that there is no such object."""

    def __init__(self, key: str) -> None:
        super().__init__(key, f"The bucket has no object {key!r}.")


class PreconditionFailed(StoreError):
    """A conditional write was refused (409, 412): another writer, or our own lost reply."""

    code = ErrorCode.CONFLICT

    def __init__(self, key: str) -> None:
        super().__init__(key, f"Object {key!r} was changed by another writer.")


class ConditionsUnsupported(StoreError):
    """The store answered 501 to a conditional write."""

    def __init__(self, key: str) -> None:
        super().__init__(key, "The store does not implement conditional writes.")


class StoreThrottled(StoreError):
    """429 or 503 SlowDown, retries included."""

    def __init__(self, key: str) -> None:
        super().__init__(key, "The bucket asks for fewer requests; try again in a moment.")


class StoreRefused(StoreError):
    """Refused for good: a wrong bucket, key, region or clock, which only an operator can mend."""

    code = ErrorCode.STORAGE_REFUSED


class StoreUnavailable(StoreError):
    """Any other failure: 5xx, timeout, reset, an answer that is none of a store's."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object as a listing or a HEAD shows it; `size` in bytes, `modified` in epoch seconds."""

    key: str
    size: int
    etag: str
    modified: float
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A small object's bytes and the etag they were read with."""

    key: str
    body: bytes
    etag: str


class Store(Protocol):
    """The verbs. Keys never start with a slash; the store adds its configured prefix."""

    def get(self, key: str) -> StoredObject:
        """Read a small object whole. Raises ObjectMissing, StoreError."""
        ...

    def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        """Read unless its etag is still `etag`: None then (304). Raises as `get` does."""
        ...

    def put(self, key: str, body: bytes, content_type: str = "application/json") -> str:
        """Write unconditionally; returns the new etag."""
        ...

    def put_if_absent(self, key: str, body: bytes, content_type: str = "application/json") -> str:
        """Write with `If-None-Match: *`. Raises PreconditionFailed, ConditionsUnsupported."""
        ...

    def put_if_match(
        self, key: str, body: bytes, etag: str, content_type: str = "application/json"
    ) -> str:
        """Write with `If-Match`.

        Raises:
            PreconditionFailed: another etag, or no such object (404 at AWS, 412 elsewhere).
            ConditionsUnsupported: 501.
        """
        ...

    def head(self, key: str) -> ObjectInfo:
        """Size, etag, metadata. Raises ObjectMissing, StoreError."""
        ...

    def list(
        self, prefix: str, *, start_after: str = "", page_size: int = 1000
    ) -> Iterator[ObjectInfo]:
        """Every object under a prefix in key order, a page of at most 1,000 at a time."""
        ...

    def list_folders(
        self, prefix: str, *, start_after: str = "", page_size: int = 1000
    ) -> Iterator[str]:
        """The names directly below a prefix (delimiter `/`), in order, without prefix and slash."""
        ...

    def delete(self, key: str) -> None:
        """Remove; an absent key is no error."""
        ...

    def download(
        self, key: str, path: Path, *, check_cancelled: Callable[[], None] | None = None
    ) -> None:
        """Fetch to a local path in parallel parts; the caller names a temporary path.

        `check_cancelled` is called between parts, at least twice a second; what it raises ends it.
        """
        ...

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
        """Send a local file, in parts when large; confirm its size at the store.

        As in `download`; an upload it ends leaves no open multipart and no object,
        unless the object is `shared`: addressed by its content, others may rely on it.
        """
        ...
