"""Pages: whole, in order, stable while others write, and never a failure shown as emptiness."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_registry import layout
from lora_registry.errors import DocumentInvalid, InvalidRequest
from lora_registry.listing import CharacterPage, Order
from lora_registry.registry import Registry
from tests.loras import new_version
from tests.stores import MemoryStore, WatchedStore


def registered(memory: MemoryStore, lora: Path, *ids: str) -> Registry:
    for number, character_id in enumerate(ids):
        registry = Registry(memory, clock=lambda number=number: 1_700_000_000.0 + number)  # type: ignore[misc]
        registry.add_version(new_version(lora, character_id))
    return Registry(memory)


def ids_of(page: CharacterPage) -> list[str]:
    return [record.character_id for record in page.characters]


def walked(registry: Registry, limit: int, order: Order, status: str | None = None) -> list[str]:
    found: list[str] = []
    cursor = None
    for _ in range(100):
        page = registry.list(order=order, status=status, limit=limit, cursor=cursor)
        assert len(page.characters) <= limit
        found += ids_of(page)
        cursor = page.cursor
        if cursor is None:
            return found
    raise AssertionError("no end")


NAMES = ("mira", "mira-2", "mira_2", "mira2", "zoe", "a")


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 7, 100])
def test_pages_together_are_everything_once(memory: MemoryStore, lora: Path, limit: int) -> None:
    registry = registered(memory, lora, *NAMES)
    by_key = sorted(NAMES, key=lambda name: f"{name}/")
    assert walked(registry, limit, "id") == by_key
    assert walked(registry, limit, "newest") == list(reversed(NAMES))


@pytest.mark.parametrize("order", ["id", "newest"])
def test_the_last_page_has_no_cursor(memory: MemoryStore, lora: Path, order: Order) -> None:
    registry = registered(memory, lora, "a", "b")
    assert registry.list(order=order, limit=2).cursor is None
    assert Registry(MemoryStore()).list(order=order) == CharacterPage((), None)


@pytest.mark.parametrize("order", ["id", "newest"])
def test_a_page_of_n_costs_one_listing_and_n_reads(
    memory: MemoryStore, lora: Path, order: Order
) -> None:
    registered(memory, lora, *NAMES)
    watched = WatchedStore(memory)
    Registry(watched).list(order=order, limit=3)
    assert len(watched.requests) == 4


def test_a_cursor_stays_good_while_characters_come_change_and_go(
    memory: MemoryStore, lora: Path
) -> None:
    registry = registered(memory, lora, "a", "b", "c", "d")
    first = registry.list(order="newest", limit=2)
    assert ids_of(first) == ["d", "c"]
    registry.add_version(new_version(lora, "new", "job-new"))
    registry.add_version(new_version(lora, "a", "job-again"))  # a change moves nobody
    memory.delete(layout.record_key("c"))
    assert ids_of(registry.list(order="newest", limit=2, cursor=first.cursor)) == ["b", "a"]


def test_a_status_picks(memory: MemoryStore, lora: Path) -> None:
    registry = registered(memory, lora, *(f"c{number:02}" for number in range(40)))
    for number in (3, 17, 38):
        registry.delete(f"c{number:02}")
    assert walked(registry, 2, "id", "deleted") == ["c03", "c17", "c38"]
    assert len(walked(registry, 7, "newest", "active")) == 37


def test_a_marker_without_its_head_is_passed_over(memory: MemoryStore, lora: Path) -> None:
    registry = registered(memory, lora, "a", "b")
    record = registry.get("b")
    memory.put(layout.newest_key("ghost", record.created_at), b"")
    memory.put(layout.newest_key("a", record.created_at), b"")  # of a creation that lost a race
    assert walked(registry, 1, "newest") == ["b", "a"]


def test_folders_without_a_head_are_passed_over(memory: MemoryStore, lora: Path) -> None:
    registry = registered(memory, lora, "b")
    memory.put("characters/a/versions/v1.json", b"")
    memory.put("characters/Not-An-Id/character.json", b"")
    assert walked(registry, 1, "id") == ["b"]


def test_a_damaged_head_is_named_not_hidden(memory: MemoryStore, lora: Path) -> None:
    registry = registered(memory, lora, "a", "b")
    memory.put(layout.record_key("a"), b"{")
    with pytest.raises(DocumentInvalid, match=r"characters/a/character\.json"):
        registry.list()


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_limit_out_of_range_is_refused(registry: Registry, limit: int) -> None:
    with pytest.raises(InvalidRequest, match="between 1 and 1000"):
        registry.list(limit=limit)


def test_a_cursor_of_another_listing_is_refused(memory: MemoryStore, lora: Path) -> None:
    registry = registered(memory, lora, "a", "b")
    cursor = registry.list(limit=1).cursor
    with pytest.raises(InvalidRequest, match="another order or status"):
        registry.list(order="newest", cursor=cursor)
    with pytest.raises(InvalidRequest, match="another order or status"):
        registry.list(status="active", cursor=cursor)


@settings(deadline=None)
@given(st.text(max_size=50))
def test_no_cursor_raises_anything_else(cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        Registry(MemoryStore()).list(cursor=cursor)
