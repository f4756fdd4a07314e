"""Character records in the bucket: read with a memory of the last one, changed by compare-and-swap.

A warm read is one request answered 304. A change is a function `record → record`, replayed on what
another writer left behind. Where the store enforces write conditions no change is lost; where it
does not, the last writer wins, which may undo an activation but never loses a version: versions
are objects of their own.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lora_registry.changes import (
    stamped,
)
from lora_registry.character import (
    CharacterRecord,
    milliseconds,
    parse_record,
)
from lora_registry.conditions import Conditions
from lora_registry.errors import WriteConflict
from lora_registry.layout import newest_key, record_key
from lora_registry.replay import Replay, unless_torn
from lora_registry.store import ObjectMissing, PreconditionFailed, Store

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
        self._lock = threading.Lock()
        self._memory: OrderedDict[str, _Stored] = OrderedDict()

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
            return unless_torn(lambda: parse_record(self._store.get(key).body, key))
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
        with self._lock:
            self._memory.pop(character_id, None)

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
        with self._lock:
            known = self._memory.get(character_id)
        if known is None:
            found = self._store.get(key)
        else:
            changed = self._store.get_if_changed(key, known.etag)
            if changed is None:
                return known
            found = changed
        return self._remember(parse_record(found.body, key), found.etag)

    def _remember(self, record: CharacterRecord, etag: str) -> _Stored:
        stored = _Stored(record, etag)
        with self._lock:
            self._memory[record.character_id] = stored
            self._memory.move_to_end(record.character_id)
            while len(self._memory) > _REMEMBERED:
                self._memory.popitem(last=False)
        return stored
