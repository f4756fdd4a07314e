"""Which write conditions the store enforces: probed, never assumed, and remembered in the bucket.

Some stores ignore `If-Match` and `If-None-Match` without a word (Supabase's S3), some answer 501
(Backblaze B2). The first writer of a bucket finds out with about 20 small requests and leaves the
verdict in `registry/conditions.json`; every later process reads it with one. Reading characters
needs no verdict, so generation workers never come here.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from lora_registry.errors import DocumentInvalid
from lora_registry.layout import CONDITIONS, PROBES
from lora_registry.store import (
    ConditionsUnsupported,
    ObjectMissing,
    PreconditionFailed,
    Store,
    StoreError,
)

log = logging.getLogger(__name__)

_RACERS: Final = 8


class ConditionSupport(StrEnum):
    """What a store does with a write's condition."""

    ENFORCED = "enforced"  # compare-and-swap holds
    IGNORED = "ignored"  # the write goes through, last writer wins
    UNSUPPORTED = "unsupported"  # 501; we write without conditions, last writer wins


class ConditionsDocument(BaseModel):
    """The verdict as it lies in the bucket; delete the object to have it probed again."""

    model_config = ConfigDict(extra="allow", frozen=True)

    schema_version: Literal[1] = 1
    verdict: ConditionSupport
    reason: str
    probed_at: AwareDatetime


class Conditions:
    """The verdict for one bucket, fetched or probed once a process, when the first write asks."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._verdict: ConditionSupport | None = None

    @property
    def enforced(self) -> bool:
        """Whether compare-and-swap holds. Raises StoreError, DocumentInvalid."""
        with self._lock:
            if self._verdict is None:
                self._verdict = self._recall() or self._probe()
            return self._verdict is ConditionSupport.ENFORCED

    def create(self, key: str, body: bytes) -> str:
        """Write an object that is not there, as far as the store can tell; returns its etag.

        Raises:
            PreconditionFailed: it is there; look whether it is one's own, and try again.
        """
        if not self.enforced:
            return self._store.put(key, body)
        try:
            return self._store.put_if_absent(key, body)
        except ConditionsUnsupported as error:
            raise self._doubted(key) from error

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write an object that is as it was read, as far as the store can tell; its new etag.

        Raises:
            PreconditionFailed: it is another, or gone; read it and try again.
        """
        if not self.enforced:
            return self._store.put(key, body)
        try:
            return self._store.put_if_match(key, body, etag)
        except ObjectMissing as error:  # AWS's answer to If-Match on an object that is gone
            raise PreconditionFailed(key) from error
        except ConditionsUnsupported as error:
            raise self._doubted(key) from error

    def _doubted(self, key: str) -> PreconditionFailed:
        """The store answered 501 after all: forget the verdict, so that the next try probes."""
        with self._lock:
            self._verdict = None
            self._store.delete(CONDITIONS)
        return PreconditionFailed(key)

    def _recall(self) -> ConditionSupport | None:
        try:
            body = self._store.get(CONDITIONS).body
            return ConditionsDocument.model_validate_json(body).verdict
        except ObjectMissing:
            return None
        except ValidationError as error:
            raise DocumentInvalid(CONDITIONS, "it is damaged, delete it") from error

    def _probe(self) -> ConditionSupport:
        verdict, reason = probe(self._store)
        document = ConditionsDocument(verdict=verdict, reason=reason, probed_at=datetime.now(UTC))
        self._store.put(CONDITIONS, document.model_dump_json(indent=1).encode())
        log.info("write conditions probed", extra={"verdict": verdict.value, "reason": reason})
        return verdict


def probe(store: Store) -> tuple[ConditionSupport, str]:
    """Try every condition that the registry relies on, on objects of the probe's own.

    Returns:
        The verdict and, in words, what decided it.

    Raises:
        StoreError: the store failed otherwise; that is no verdict.
    """
    folder = f"{PROBES}{uuid.uuid4().hex}/"
    try:
        for name, trial in _TRIALS.items():
            if not trial(store, f"{folder}{name}"):
                return (
                    ConditionSupport.IGNORED,
                    f"the store does not hold to conditions in trial {name!r}",
                )
    except ConditionsUnsupported:
        return ConditionSupport.UNSUPPORTED, "the store answers 501 to a conditional write"
    finally:
        with suppress(StoreError):  # what stays is swept; the verdict does not depend on it
            for info in list(store.list(folder)):
                store.delete(info.key)
    return (
        ConditionSupport.ENFORCED,
        "every condition held, and at most one of eight racing creates won",
    )


# A trial must not take a lost reply for a refusal: what a write did is looked up, not believed.


def _create_twice(store: Store, key: str) -> bool:
    _refused(lambda: store.put_if_absent(key, b"1"))
    return _refused(lambda: store.put_if_absent(key, b"2")) and store.get(key).body == b"1"


def _match(store: Store, key: str) -> bool:
    etag = store.put(key, b"1")
    newer = store.put(key, b"2")
    if not _refused(lambda: store.put_if_match(key, b"3", etag)) or store.get(key).body != b"2":
        return False
    _refused(lambda: store.put_if_match(key, b"4", newer))
    return store.get(key).body == b"4"


def _match_absent(store: Store, key: str) -> bool:
    etag = store.put(f"{key}-other", b"1")
    if not _refused(lambda: store.put_if_match(key, b"2", etag)):
        return False
    try:
        store.get(key)
    except ObjectMissing:
        return True
    return False


def _race(store: Store, key: str) -> bool:
    def create(racer: int) -> bool:
        return not _refused(lambda: store.put_if_absent(key, str(racer).encode()))

    with ThreadPoolExecutor(_RACERS) as pool:
        return sum(pool.map(create, range(_RACERS))) <= 1


def _refused(write: Callable[[], object]) -> bool:
    try:
        write()
    except (PreconditionFailed, ObjectMissing):
        return True
    return False


_TRIALS: Final[Mapping[str, Callable[[Store, str], bool]]] = {
    "create-twice": _create_twice,
    "match": _match,
    "match-absent": _match_absent,
    "race": _race,
}
