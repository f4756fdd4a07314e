"""Stores for tests: one in memory with S3's rules, and wrappers that fail as real ones do."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lora_registry.store import (
    ConditionsUnsupported,
    ObjectInfo,
    ObjectMissing,
    PreconditionFailed,
    Store,
    StoredObject,
)


class MemoryStore:
    """An object store in memory. `conditions` is what it does with write conditions."""

    def __init__(self, conditions: str = "enforced") -> None:
        self.conditions = conditions
        self.objects: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.RLock()

    def get(self, key: str) -> StoredObject:
        with self._lock:
            if key not in self.objects:
                raise ObjectMissing(key)
            body = self.objects[key][0]
            return StoredObject(key, body, _etag(body))

    def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        found = self.get(key)
        return None if found.etag == etag else found

    def put(self, key: str, body: bytes, content_type: str = "application/json") -> str:
        del content_type
        with self._lock:
            self.objects[key] = (body, time.time())
            return _etag(body)

    def put_if_absent(self, key: str, body: bytes, content_type: str = "application/json") -> str:
        with self._lock:
            if self._conditional(key) and key in self.objects:
                raise PreconditionFailed(key)
            return self.put(key, body, content_type)

    def put_if_match(
        self, key: str, body: bytes, etag: str, content_type: str = "application/json"
    ) -> str:
        with self._lock:
            if self._conditional(key) and (
                key not in self.objects or _etag(self.objects[key][0]) != etag
            ):
                raise PreconditionFailed(key)
            return self.put(key, body, content_type)

    def head(self, key: str) -> ObjectInfo:
        with self._lock:
            if key not in self.objects:
                raise ObjectMissing(key)
            body, modified = self.objects[key]
            return ObjectInfo(key, len(body), _etag(body), modified)

    def list(
        self, prefix: str, *, start_after: str = "", page_size: int = 1000
    ) -> Iterator[ObjectInfo]:
        del page_size
        with self._lock:
            keys = sorted(key for key in self.objects if key.startswith(prefix))
        for key in keys:
            if key > start_after and key in self.objects:
                yield self.head(key)

    def list_folders(
        self, prefix: str, *, start_after: str = "", page_size: int = 1000
    ) -> Iterator[str]:
        del page_size
        with self._lock:
            rests = [key.removeprefix(prefix) for key in self.objects if key.startswith(prefix)]
        for name in sorted({rest.split("/")[0] + "/" for rest in rests if "/" in rest}):
            if not start_after or name > f"{start_after}/":
                yield name.removesuffix("/")

    def delete(self, key: str) -> None:
        with self._lock:
            self.objects.pop(key, None)

    def download(
        self, key: str, path: Path, *, check_cancelled: Callable[[], None] | None = None
    ) -> None:
        if check_cancelled is not None:
            check_cancelled()
        path.write_bytes(self.get(key).body)

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
        del metadata, shared
        if check_cancelled is not None:
            check_cancelled()
        self.put(key, path.read_bytes(), content_type)
        return self.head(key)

    def _conditional(self, key: str) -> bool:
        if self.conditions == "unsupported":
            raise ConditionsUnsupported(key)
        return self.conditions == "enforced"


class Died(BaseException):
    """The writer's death: no handler of ours may catch it."""


class WatchedStore:
    """Counts the requests to a store; `before` and `after` may raise, or do something meanwhile.

    A listing counts as one request however much it yields.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.requests: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = _nothing
        self.after: Callable[[str, str], None] = _nothing

    def __getattr__(self, verb: str) -> Any:
        action = getattr(self._store, verb)

        def watched(*args: Any, **kwargs: Any) -> Any:
            key = args[1] if verb == "upload" else args[0]
            self.requests.append((verb, key))
            self.before(verb, key)
            answer = action(*args, **kwargs)
            if verb in {"list", "list_folders"}:
                answer = iter(list(answer))
            self.after(verb, key)
            return answer

        return watched


def _nothing(verb: str, key: str) -> None:
    del verb, key


def _etag(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
