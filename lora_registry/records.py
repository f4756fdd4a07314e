"""Character records in the bucket: read with a memory of the last one, changed by compare-and-swap.

A warm read is one request answered 304. A change is a function `record → record`, replayed on what
another writer left behind. Where the store enforces write conditions no change is lost; where it
does not, the last writer wins, which may undo an activation but never loses a version: versions
are objects of their own.
"""

import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from lora_registry.changes import stamped
from lora_registry.character import CharacterRecord, milliseconds, parse_record
from lora_registry.conditions import Conditions
from lora_registry.errors import DocumentInvalid, WriteConflict
from lora_registry.layout import newest_key, record_key
from lora_registry.store import (
    ConditionsUnsupported,
    ObjectMissing,
    PreconditionFailed,
    Store,
    StoreError,
    StoreThrottled,
)

log = logging.getLogger(__name__)

_TORN_PAUSES_S: Final = (0.02, 0.1)
_MAX_FAILURES: Final = 3  # of the kind that the store's client has retried already
T = TypeVar("T")


class Memory(Generic[T]):
    """The documents that were read or written last, by key; safe to share between threads.

    Args:
        size: so many are remembered.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._documents: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str) -> T | None:
        """What is remembered under a key, or None."""
        with self._lock:
            return self._documents.get(key)

    def put(self, key: str, document: T) -> T:
        """Remember a document, and forget the oldest beyond the size; returns it."""
        with self._lock:
            self._documents[key] = document
            self._documents.move_to_end(key)
            while len(self._documents) > self._size:
                self._documents.popitem(last=False)
        return document

    def forget(self, key: str) -> None:
        """Forget one; nothing to do where none is remembered."""
        with self._lock:
            self._documents.pop(key, None)


@dataclass(frozen=True, slots=True)
class Replay:
    """How long and how often; the pauses are drawn between 0 and a doubling bound (full jitter).

    Attributes:
        deadline_s: conflicts and throttling are replayed for so long, counted from the first try.
        first_pause_s: the first pause's upper bound.
        longest_pause_s: no pause is longer.
        sleep: waits; tests give their own.
    """

    deadline_s: float = 30.0
    first_pause_s: float = 0.05
    longest_pause_s: float = 2.0
    sleep: Callable[[float], None] = time.sleep

    def run(self, action: Callable[[], T]) -> T:
        """Do it until it works.

        An action must be safe to do again: a failure may be a lost reply. Conflicts (404, 409, 412
        of a write) and throttling are replayed until the deadline, other failures of the store
        three times.

        Raises:
            StoreError: the last one.
        """
        ends = time.monotonic() + self.deadline_s
        bound, failures = self.first_pause_s, 0
        while True:
            try:
                return action()
            except StoreError as error:
                failures += not isinstance(error, (PreconditionFailed, StoreThrottled))
                last = failures > _MAX_FAILURES or time.monotonic() + bound > ends
                if last or isinstance(error, (ObjectMissing, ConditionsUnsupported)):
                    raise
                log.info("registry request replayed", extra={"reason": type(error).__name__})
            self.sleep(random.uniform(0.0, bound))  # noqa: S311 - spreads writers, keeps no secret
            bound = min(bound * 2, self.longest_pause_s)


def unless_torn(read: Callable[[], T]) -> T:
    """Read a document, again after a moment if it does not parse.

    S3 shows an object either before or after a write; some servers show it meanwhile (nanio sends
    the new bytes cut to the old length).

    Raises:
        DocumentInvalid: it still does not parse after 0.12 s.
    """
    for pause in _TORN_PAUSES_S:
        try:
            return read()
        except DocumentInvalid as error:
            log.info("registry document read again", extra={"key": error.key})
        time.sleep(pause)
    return read()


_REMEMBERED: Final = 4096  # records of about 1 KB each

RecordChange = Callable[[CharacterRecord | None], CharacterRecord]


@dataclass(frozen=True, slots=True)
class _Stored:
    record: CharacterRecord
    etag: str


class CharacterRecords:
    """The records of one bucket; safe to share between threads.

    Args:
        store: the bucket.
        conditions: asked on the write path only.
        replay: for how long a change is replayed.
        clock: epoch seconds, for the times in documents.
    """

    def __init__(
        self,
        store: Store,
        conditions: Conditions,
        replay: Replay,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._conditions = conditions
        self._replay = replay
        self._clock = clock
        self._memory: Memory[_Stored] = Memory(_REMEMBERED)

    def get(self, character_id: str) -> CharacterRecord | None:
        """The record as it is in the bucket now, tombstones too; None if the store has none.

        One request: conditional if this process has read the record before.
        """
        stored = self._read(character_id)
        return None if stored is None else stored.record

    def peek(self, character_id: str) -> CharacterRecord | None:
        """`get` for listings: leaves the memory to the characters that are in use."""
        key = record_key(character_id)
        try:
            return unless_torn(lambda: _own_record(self._store.get(key).body, character_id))
        except ObjectMissing:
            return None

    def change(
        self, character_id: str, change: RecordChange, *, write_id: str, fresh: bool = False
    ) -> CharacterRecord:
        """Replace a record by what a function makes of it; returns the record as it stands after.

        A change whose write id is among the record's last 32 was made already, behind a lost reply
        or by an earlier run of the same job, and is not made again.

        Args:
            character_id: whose record.
            change: gets None where there is no record; what it answers unchanged is not written.
            write_id: names this change, in every try of it.
            fresh: there is reason to believe that there is no record yet; saves a request.

        Raises:
            WriteConflict: others won every try until the deadline.
            StoreError: the store failed; the change may have been made, doing it again is safe.
        """
        assume_absent = fresh and self._conditions.enforced

        def attempt() -> CharacterRecord:
            nonlocal assume_absent
            stored = None if assume_absent else self._read(character_id)
            assume_absent = False
            return self._attempt(stored, change, write_id)

        try:
            return self._replay.run(attempt)
        except PreconditionFailed as error:
            raise WriteConflict(character_id, self._replay.deadline_s) from error

    def place(self, record: CharacterRecord) -> bool:
        """Write a record as it is where there is none; False where there is one, which stays.

        Raises:
            StoreError: the store failed; doing it again is safe.
        """

        def attempt() -> bool:
            if self._read(record.character_id) is not None:
                return False
            self._store.put(newest_key(record.character_id, record.created_at), b"")
            self._write(record, None)
            return True

        return self._replay.run(attempt)

    def forget(self, character_id: str) -> None:
        """Drop the memory of a record that was removed."""
        self._memory.forget(character_id)

    def _attempt(
        self, stored: _Stored | None, change: RecordChange, write_id: str
    ) -> CharacterRecord:
        record = None if stored is None else stored.record
        if record is not None and write_id in record.writes:
            return record
        changed = change(record)
        if changed is record:
            return changed
        changed = stamped(changed, write_id, milliseconds(self._clock()))
        if stored is None:
            # Before the record, so that every record has its marker; a marker alone is passed over.
            self._store.put(newest_key(changed.character_id, changed.created_at), b"")
        return self._write(changed, stored)

    def _write(self, record: CharacterRecord, stored: _Stored | None) -> CharacterRecord:
        key, body = record_key(record.character_id), record.to_json()
        if stored is None:
            etag = self._conditions.create(key, body)
        else:
            etag = self._conditions.replace(key, body, stored.etag)
        self._remember(record, etag)
        return record

    def _read(self, character_id: str) -> _Stored | None:
        try:
            return unless_torn(lambda: self._read_once(character_id))
        except ObjectMissing:
            self.forget(character_id)
            return None

    def _read_once(self, character_id: str) -> _Stored:
        key = record_key(character_id)
        known = self._memory.get(character_id)
        if known is None:
            found = self._store.get(key)
        else:
            changed = self._store.get_if_changed(key, known.etag)
            if changed is None:
                return known
            found = changed
        return self._remember(_own_record(found.body, character_id), found.etag)

    def _remember(self, record: CharacterRecord, etag: str) -> _Stored:
        return self._memory.put(record.character_id, _Stored(record, etag))


def _own_record(body: bytes, character_id: str) -> CharacterRecord:
    """The record in a body, which must be this character's: a cache may give another's."""
    key = record_key(character_id)
    record = parse_record(body, key)
    if record.character_id != character_id:
        raise DocumentInvalid(key, "what the bucket gives for it is another character's")
    return record
