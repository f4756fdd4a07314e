"""Pages of characters, read straight from the bucket: there is no index that could be wrong.

By id, a page is one listing of folder names and one read of each record. Newest first, it is one
listing of markers: before `CharacterRecords.change` writes the first record of a
character it leaves an empty object whose key sorts by creation time. A marker only says
where to look. A page shows the record, and passes over a marker whose record is missing or was
created at another time (a creation that died or lost a race): so the order cannot lie, and no
character can be missing from it.

The cost: a page of n characters is one LIST and n GETs, sixteen at a time, however many there are
in the bucket. A status filter reads the records that it leaves out, too: at most 1,000 for a page,
which may then be shorter than asked for although more follow. The end is where the cursor is None.
"""

import base64
import binascii
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

from lora_registry import layout
from lora_registry.character import CharacterRecord
from lora_registry.errors import InvalidRequest
from lora_registry.records import CharacterRecords
from lora_registry.store import Store

Order = Literal["id", "newest"]

MAX_LIMIT: Final = 1000
_MAX_READ: Final = 1000
_READERS: Final = 16
_SPARE: Final = 16  # names listed beyond a page: one tells that more follow, some have no record


@dataclass(frozen=True, slots=True)
class CharacterPage:
    """Some characters, and the cursor of the next page; None after the last."""

    characters: tuple[CharacterRecord, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class _Place:
    """A character in one of the two orders; `after` is where a listing goes on behind it."""

    character_id: str
    after: str


def list_page(
    store: Store,
    records: CharacterRecords,
    *,
    order: Order = "id",
    status: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> CharacterPage:
    """Read one page.

    A cursor says behind which character to go on, so it stays good while characters come and go,
    and neither order moves a character that is changed.

    Args:
        store: the bucket.
        records: reads the records.
        order: "id" is the store's own order of folders (S3 sorts keys, so `mira-2/` comes before
            `mira/`; some stores sort names); "newest" is by creation, latest first.
        status: only characters with this status.
        limit: 1 to 1,000 characters.
        cursor: of the page before, for the same order and status.

    Raises:
        InvalidRequest: a limit out of range, or a cursor that is not one of this listing's.
        StoreError: the store failed; never answered as an empty page.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(f"limit must be between 1 and {MAX_LIMIT}.", field="limit")
    places = _places(store, order, _opened(cursor, order, status), limit)
    found: list[CharacterRecord] = []
    after, read, wanted = "", 0, limit
    with ThreadPoolExecutor(_READERS) as readers:
        while len(found) < limit and (batch := list(islice(places, min(wanted, _MAX_READ - read)))):
            heads_read = readers.map(records.peek, (place.character_id for place in batch))
            for place, record in zip(batch, heads_read, strict=True):
                if len(found) == limit:
                    return CharacterPage(tuple(found), _sealed(after, order, status))
                after = place.after
                if record is not None and _belongs(record, place, order, status):
                    found.append(record)
            read += len(batch)
            wanted = max(limit - len(found), _READERS)
    more = next(places, None) is not None
    return CharacterPage(tuple(found), _sealed(after, order, status) if more else None)


def all_character_ids(store: Store) -> Iterator[str]:
    """Every folder that can be a character's, by id, a page of names at a time."""
    return (name for name in store.list_folders(layout.CHARACTERS) if layout.is_character_id(name))


def _places(store: Store, order: Order, after: str, limit: int) -> Iterator[_Place]:
    page_size = min(limit + _SPARE, MAX_LIMIT)
    if order == "id":
        names = store.list_folders(layout.CHARACTERS, start_after=after, page_size=page_size)
        return (_Place(name, name) for name in names if layout.is_character_id(name))
    markers = store.list(layout.NEWEST, start_after=after, page_size=page_size)
    return (_Place(layout.newest_of(info.key), info.key) for info in markers)


def _belongs(record: CharacterRecord, place: _Place, order: Order, status: str | None) -> bool:
    if (
        order == "newest"
        and layout.newest_key(record.character_id, record.created_at) != place.after
    ):
        return False
    return status is None or record.status == status


def _sealed(after: str, order: Order, status: str | None) -> str:
    text = json.dumps([order, status, after], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _opened(cursor: str | None, order: Order, status: str | None) -> str:
    """Where a listing goes on; the start without a cursor. Raises InvalidRequest."""
    if cursor is None:
        return ""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        found_order, found_status, after = json.loads(text)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidRequest("cursor is not one that a listing gave.", field="cursor") from error
    if (found_order, found_status) != (order, status) or not isinstance(after, str):
        raise InvalidRequest("cursor is of a listing with another order or status.", field="cursor")
    return after
