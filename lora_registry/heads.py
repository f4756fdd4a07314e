"""Heads in the bucket: read with a memory of the last one, changed by compare-and-swap.

A warm read is one request answered 304. A change is a function `head → head`, replayed on whatever
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
    CharacterHead,
    milliseconds,
    parse_head,
)
from lora_registry.conditions import Conditions
from lora_registry.errors import WriteConflict
from lora_registry.layout import head_key, newest_key
from lora_registry.replay import Replay, unless_torn
from lora_registry.store import ObjectMissing, PreconditionFailed, Store

_REMEMBERED: Final = 4096  # heads of about 1 KB each

Change = Callable[[CharacterHead | None], CharacterHead]


@dataclass(frozen=True, slots=True)
class _Stored:
    head: CharacterHead
    etag: str


class Heads:
    """The heads of one bucket; safe to share between threads.

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

    def get(self, character_id: str) -> CharacterHead | None:
        """The head as it is in the bucket now, tombstones too; None if the store has none.

        One request: conditional if this process has read the head before.
        """
        stored = self._read(character_id)
        return None if stored is None else stored.head

    def peek(self, character_id: str) -> CharacterHead | None:
        """`get` for listings: leaves the memory to the characters that are in use."""
        key = head_key(character_id)
        try:
            return unless_torn(lambda: parse_head(self._store.get(key).body, key))
        except ObjectMissing:
            return None

    def change(
        self, character_id: str, change: Change, *, write_id: str, fresh: bool = False
    ) -> CharacterHead:
        """Replace a head by what a function makes of it; returns the head as it stands after.

        A change whose write id is among the head's last 32 was made already, behind a lost reply
        or by an earlier run of the same job, and is not made again.

        Args:
            character_id: whose head.
            change: gets None where there is no head; what it answers unchanged is not written.
            write_id: names this change, in every try of it.
            fresh: there is reason to believe that there is no head yet; saves a request.

        Raises:
            WriteConflict: others won every try until the deadline.
            StoreError: the store failed; the change may have been made, doing it again is safe.
        """
        assume_absent = fresh and self._conditions.enforced

        def attempt() -> CharacterHead:
            nonlocal assume_absent
            stored = None if assume_absent else self._read(character_id)
            assume_absent = False
            return self._attempt(stored, change, write_id)

        try:
            return self._replay.run(attempt)
        except PreconditionFailed as error:
            raise WriteConflict(character_id, self._replay.deadline_s) from error

    def place(self, head: CharacterHead) -> bool:
        """Write a head as it is where there is none; False where there is one, which stays.

        Raises:
            StoreError: the store failed; doing it again is safe.
        """

        def attempt() -> bool:
            if self._read(head.character_id) is not None:
                return False
            self._store.put(newest_key(head.character_id, head.created_at), b"")
            self._write(head, None)
            return True

        return self._replay.run(attempt)

    def forget(self, character_id: str) -> None:
        """Drop the memory of a head that was removed."""
        with self._lock:
            self._memory.pop(character_id, None)

    def _attempt(self, stored: _Stored | None, change: Change, write_id: str) -> CharacterHead:
        head = None if stored is None else stored.head
        if head is not None and write_id in head.writes:
            return head
        changed = change(head)
        if changed is head:
            return changed
        changed = stamped(changed, write_id, milliseconds(self._clock()))
        if stored is None:
            # Before the head: so every head has its marker, and one without a head is passed over.
            self._store.put(newest_key(changed.character_id, changed.created_at), b"")
        return self._write(changed, stored)

    def _write(self, head: CharacterHead, stored: _Stored | None) -> CharacterHead:
        key, body = head_key(head.character_id), head.to_json()
        if stored is None:
            etag = self._conditions.create(key, body)
        else:
            etag = self._conditions.replace(key, body, stored.etag)
        self._remember(head, etag)
        return head

    def _read(self, character_id: str) -> _Stored | None:
        try:
            return unless_torn(lambda: self._read_once(character_id))
        except ObjectMissing:
            self.forget(character_id)
            return None

    def _read_once(self, character_id: str) -> _Stored:
        key = head_key(character_id)
        with self._lock:
            known = self._memory.get(character_id)
        if known is None:
            found = self._store.get(key)
        else:
            changed = self._store.get_if_changed(key, known.etag)
            if changed is None:
                return known
            found = changed
        return self._remember(parse_head(found.body, key), found.etag)

    def _remember(self, head: CharacterHead, etag: str) -> _Stored:
        stored = _Stored(head, etag)
        with self._lock:
            self._memory[head.character_id] = stored
            self._memory.move_to_end(head.character_id)
            while len(self._memory) > _REMEMBERED:
                self._memory.popitem(last=False)
        return stored
