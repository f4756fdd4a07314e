"""Characters that are photos: registered, replaced, trained, moved, swept."""

from pathlib import Path

import pytest

from lora_registry import layout
from lora_registry.errors import CharacterDeleted, InvalidRequest, OnlyReferences
from lora_registry.migration import export_characters, import_characters
from lora_registry.references import MAX_REFERENCES, NewCharacter, NewReference
from lora_registry.registry import Registry
from lora_registry.sweep import Sweep
from lora_registry.verification import Verification
from tests.loras import new_version
from tests.stores import MemoryStore, WatchedStore
from tests.unit.lora_registry.test_sweep import LATER


def new(tmp_path: Path, *bodies: bytes, job_id: str = "job-1", **words: str) -> NewCharacter:
    photos = []
    for number, body in enumerate(bodies):
        path = tmp_path / f"{job_id}-{number}.jpg"
        path.write_bytes(body)
        photos.append(NewReference(path, 640, 480))
    return NewCharacter("mira", job_id, photos, **words)


def problems(memory: MemoryStore) -> list[str]:
    checked = Verification(memory).run()
    return [each.message for one in checked for each in one.findings if each.problem]


def test_photos_make_a_character(registry: Registry, memory: MemoryStore, tmp_path: Path) -> None:
    words = {"trigger": "zkv", "class_noun": "woman", "name": "Mira"}
    record = registry.create(new(tmp_path, b"one", b"two", b"one", **words))
    assert (record.trigger, record.class_noun, record.name) == ("zkv", "woman", "Mira")
    assert (record.base_model, record.active) == ("", None)
    kept = [memory.get(reference.key).body for reference in record.references]
    assert kept == [b"one", b"two"]
    assert registry.list(order="newest").characters[0].character_id == "mira"
    assert problems(memory) == []
    with pytest.raises(OnlyReferences, match="takes references, or train it"):
        registry.resolve("mira")


def test_a_job_run_again_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    first = registry.create(new(tmp_path, b"one"))
    other = registry.create(new(tmp_path, b"two", job_id="job-2"))
    assert (first.revision, other.revision) == (1, 2)
    assert registry.create(new(tmp_path, b"one")) == other


def test_a_lora_comes_and_the_photos_stay(registry: Registry, lora: Path, tmp_path: Path) -> None:
    registry.create(new(tmp_path, b"one", trigger="zkv", class_noun="woman"))
    version = registry.add_version(new_version(lora, "mira", "job-2"))
    record = registry.get("mira")
    assert (record.trigger, record.base_model) == ("ohwx", "sdxl")
    assert [reference.size for reference in record.references] == [3]
    assert registry.resolve("mira").version == version.id
    later = registry.create(new(tmp_path, b"two", job_id="job-3", trigger="other"))
    assert (later.trigger, later.active) == ("ohwx", version.active)
    assert later.references != record.references


@pytest.mark.parametrize("count", [0, MAX_REFERENCES + 1])
def test_too_few_or_too_many_are_refused_before_anything_is_sent(
    registry: Registry, watched: WatchedStore, tmp_path: Path, count: int
) -> None:
    with pytest.raises(InvalidRequest, match="references must be 1 to 5 photos"):
        registry.create(new(tmp_path, *(b"%d" % number for number in range(count))))
    assert watched.requests == []


def test_a_deleted_character_gets_no_photos(
    registry: Registry, memory: MemoryStore, tmp_path: Path
) -> None:
    registry.create(new(tmp_path, b"one"))
    registry.delete("mira")
    before = dict(memory.objects)
    with pytest.raises(CharacterDeleted):
        registry.create(new(tmp_path, b"two", job_id="job-2"))
    assert memory.objects == before


def test_a_sweep_takes_photos_that_nobody_names(
    registry: Registry, memory: MemoryStore, tmp_path: Path
) -> None:
    old = registry.create(new(tmp_path, b"one", b"two"))
    now = registry.create(new(tmp_path, b"two", b"three", job_id="job-2"))
    gone = {each.key for each in old.references} - {each.key for each in now.references}
    removed = list(Sweep(memory, dry_run=False, clock=lambda: LATER).run())
    assert {each.key for each in removed if each.reason == "orphan reference"} == gone
    assert len(gone) == 1
    assert problems(memory) == []
    registry.delete("mira")
    list(Sweep(memory, dry_run=False, clock=lambda: LATER).run())
    assert list(memory.list(layout.folder("mira"))) == []


def test_verify_finds_a_photo_that_is_gone_or_cut(
    registry: Registry, memory: MemoryStore, tmp_path: Path
) -> None:
    first, second = registry.create(new(tmp_path, b"one", b"two")).references
    memory.delete(first.key)
    memory.put(second.key, b"t")
    told = ["is a reference photo that is not there", "has 1 bytes, its record says 3"]
    assert problems(memory) == told


def test_photos_move_with_their_character(
    registry: Registry, memory: MemoryStore, tmp_path: Path
) -> None:
    record = registry.create(new(tmp_path, b"one", b"two"))
    archive = tmp_path / "characters.tar"
    assert list(export_characters(memory, archive, ["mira"])) == ["mira"]
    other = MemoryStore()
    assert [each.head for each in import_characters(other, archive)] == [True]
    assert Registry(other).get("mira") == record
    assert problems(other) == []
