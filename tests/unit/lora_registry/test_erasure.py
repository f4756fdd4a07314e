"""What an erasure removes, what it leaves, and that it can be run again after a crash."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lora_registry import layout
from lora_registry.errors import CharacterInUse, CharacterNotFound
from lora_registry.job_records import JobRecord, JobRecords
from lora_registry.registry import Registry
from lora_registry.store import StoreError
from tests.loras import new_version
from tests.stores import Died, MemoryStore, WatchedStore

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def job(
    records: JobRecords, job_id: str, job_input: dict[str, Any], outputs: list[str] | None
) -> None:
    """A job's record with its markers; without outputs it runs still."""
    record, _ = records.create(
        JobRecord(id=job_id, task="image", input=job_input, created_at=NOW, updated_at=NOW)
    )
    records.list_newest(record)
    if outputs is not None:
        records.finish(job_id, {"outputs": [{"key": key} for key in outputs]})


@pytest.fixture
def records(memory: MemoryStore) -> JobRecords:
    return JobRecords(memory)


@pytest.fixture
def filled(memory: MemoryStore, registry: Registry, records: JobRecords, lora: Path) -> MemoryStore:
    """Two characters, with uploads, pictures, a clip of a picture and one of that clip's frame."""
    for name in ("mira", "kept"):
        version = registry.add_version(new_version(lora, name, f"job-{name}"))
        memory.put(f"{layout.training_prefix(name, version.id)}identity.json", b"{}")
        photo, picture = (
            f"inputs/up-{name}/000.jpg",
            f"characters/{name}/outputs/2026/01/02/j/0.png",
        )
        clip, second = f"base/outputs/clip-{name}/0.mp4", f"base/outputs/second-{name}/0.mp4"
        for key in (photo, picture, clip, second):
            memory.put(key, b"bytes")
        job(records, f"train-{name}", {"character_id": name, "images": [{"key": photo}]}, [])
        uses = {"characters": [{"character_id": name, "strength": 1}]}
        job(records, f"image-{name}", uses, [picture])
        job(records, f"clip-{name}", {"image": {"key": picture}}, [clip])
        job(records, f"second-{name}", {"image": {"key": clip}}, [second])
    memory.put("base/outputs/nobody/0.png", b"bytes")
    job(records, "nobody", {"prompt": "a harbour"}, ["base/outputs/nobody/0.png"])
    return memory


def test_nothing_of_it_is_left_and_all_else_stays(
    filled: MemoryStore, registry: Registry, records: JobRecords
) -> None:
    theirs = {key for key in filled.objects if "mira" in key}
    before = set(filled.objects)
    gone = registry.erase("mira", records)
    assert before - set(filled.objects) == theirs
    assert set(filled.objects) <= before
    assert gone.jobs == 4
    assert not any(b"mira" in body for body, _ in filled.objects.values())
    with pytest.raises(CharacterNotFound):
        registry.get("mira", tombstone=True)
    with pytest.raises(CharacterNotFound):
        registry.erase("mira", records)
    assert registry.get("kept").active is not None


@pytest.mark.usefixtures("filled")
def test_a_job_under_way_keeps_it_and_nothing_new_begins(
    registry: Registry, records: JobRecords
) -> None:
    job(records, "running", {"character_id": "mira"}, None)
    with pytest.raises(CharacterInUse, match="running"):
        registry.erase("mira", records)
    assert registry.get("mira", tombstone=True).deleted
    records.finish("running", {"outputs": []})
    assert registry.erase("mira", records).jobs == 5


@pytest.mark.usefixtures("filled")
def test_the_record_of_the_erasing_job_stays(registry: Registry, records: JobRecords) -> None:
    job(records, "erasing", {"action": "erase", "character_id": "mira"}, None)
    registry.erase("mira", records)
    assert records.finish("erasing", {"objects": 1}).state == "completed"


@pytest.mark.parametrize("number", [1, 3, 8, 15])
def test_after_a_crash_another_run_ends_it(
    filled: MemoryStore, records: JobRecords, number: int
) -> None:
    left = number

    def die(verb: str, _key: str) -> None:
        nonlocal left
        if verb == "delete":
            left -= 1
            if left == 0:
                raise Died

    watched = WatchedStore(filled)
    watched.before = die
    with pytest.raises((Died, StoreError)):
        Registry(watched).erase("mira", JobRecords(watched))
    Registry(filled).erase("mira", records)
    assert not any("mira" in key for key in filled.objects)
