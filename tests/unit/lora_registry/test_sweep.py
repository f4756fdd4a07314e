"""What a sweep removes, what it leaves, and what verify says before and after."""

import re
import time
from pathlib import Path

import pytest

from lora_registry import layout
from lora_registry.errors import CharacterNotFound
from lora_registry.registry import Registry
from lora_registry.sweep import Sweep
from lora_registry.verification import Verification
from tests.loras import new_version, write_lora
from tests.stores import Died, MemoryStore, WatchedStore

DAY = 86_400.0
LATER = time.time() + 30 * DAY


def swept(memory: MemoryStore, *, dry_run: bool = False, at: float = LATER) -> set[str]:
    return {removal.key for removal in Sweep(memory, dry_run=dry_run, clock=lambda: at).run()}


def findings(memory: MemoryStore, *, contents: bool = False, repair: bool = False) -> list[str]:
    verification = Verification(memory, contents=contents, repair=repair)
    return [
        f"{'problem' if finding.problem else 'note'}: {finding.message}"
        for checked in verification.run()
        for finding in checked.findings
    ]


@pytest.fixture
def filled(memory: MemoryStore, registry: Registry, lora: Path) -> MemoryStore:
    registry.add_version(new_version(lora, "kept", "job-1"))
    version = registry.add_version(new_version(lora, "gone", "job-2"))
    memory.put(f"{layout.training_prefix('gone', version.id)}captions.json", b"{}")
    memory.put("characters/gone/outputs/2026/01/02/job/0.png", b"png")
    registry.delete("gone")
    return memory


def test_a_dry_run_says_all_and_removes_nothing(filled: MemoryStore) -> None:
    before = dict(filled.objects)
    named = swept(filled, dry_run=True)
    assert filled.objects == before
    assert named == swept(filled)


def test_a_tombstone_goes_with_everything_it_had(filled: MemoryStore) -> None:
    of_kept = {key for key in filled.objects if "gone" not in key}
    of_gone = set(filled.objects) - of_kept
    assert swept(filled) == of_gone
    assert set(filled.objects) == of_kept
    assert not findings(filled)
    with pytest.raises(CharacterNotFound):
        Registry(filled).restore("gone")


def test_within_the_grace_period_everything_stays(filled: MemoryStore) -> None:
    before = dict(filled.objects)
    assert not swept(filled, at=time.time() + 6 * DAY)
    assert filled.objects == before
    assert Registry(filled).restore("gone").active is not None


def test_a_young_file_keeps_its_tombstone(filled: MemoryStore, tmp_path: Path) -> None:
    """A training that is under way must meet a tombstone, not a character that never was."""
    young = layout.weights_key("gone", "a" * 64)
    filled.put(young, b"young")
    body, _ = filled.objects[young]
    filled.objects[young] = (body, LATER)
    swept(filled)
    left = {key for key in filled.objects if key.startswith("characters/gone/")}
    assert left == {layout.record_key("gone"), young}
    assert Registry(filled).get("gone", tombstone=True).swept
    with pytest.raises(CharacterNotFound, match="was deleted"):
        Registry(filled).add_version(new_version(write_lora(tmp_path / "x", seed=5), "gone"))
    assert swept(filled, at=LATER + 30 * DAY) >= left


def test_a_restore_that_comes_first_wins(filled: MemoryStore) -> None:
    watched = WatchedStore(filled)
    times = {"heads": 0}

    def restore(verb: str, key: str) -> None:
        if (verb, key) == ("get", layout.record_key("gone")):
            times["heads"] += 1
            if times["heads"] == 1:
                Registry(filled).restore("gone")

    watched.after = restore
    removed = {r.key for r in Sweep(watched, dry_run=False, clock=lambda: LATER).run()}
    assert not removed
    assert not findings(filled)


def test_orphans_go_and_what_can_be_activated_stays(
    memory: MemoryStore, registry: Registry, lora: Path, tmp_path: Path
) -> None:
    registry.add_version(new_version(lora, "mira", "job-1"))
    orphan = layout.weights_key("mira", "b" * 64)
    training = f"{layout.training_prefix('mira', 'never-written')}loss.json"
    marker = layout.newest_key("ghost", registry.get("mira").created_at)
    for key in (orphan, training, marker, f"{layout.PROBES}x/y"):
        memory.put(key, b"x")
    watched = WatchedStore(memory)

    def die(verb: str, key: str) -> None:
        if key.startswith(layout.NEWEST):
            raise Died(verb)

    watched.before = die
    with pytest.raises(Died):
        Registry(watched).add_version(new_version(write_lora(tmp_path / "z", seed=3), "zoe"))
    assert swept(memory) == {orphan, training, marker, f"{layout.PROBES}x/y"}
    [left] = registry.versions("zoe")
    registry.activate("zoe", left.id)
    assert not findings(memory)


def test_a_character_with_a_damaged_document_is_left_alone(
    memory: MemoryStore, registry: Registry, lora: Path
) -> None:
    version = registry.add_version(new_version(lora))
    memory.put(layout.version_key("mira", version.id), b"{")
    assert not swept(memory)


def test_an_interrupted_sweep_is_finished_by_the_next(filled: MemoryStore) -> None:
    def die(verb: str, key: str) -> None:
        if verb == "delete":
            raise Died(key)

    deaths = 0
    for _ in range(20):
        watched = WatchedStore(filled)
        watched.after = die
        try:
            list(Sweep(watched, dry_run=False, clock=lambda: LATER).run())
        except Died:
            deaths += 1
        assert not [text for text in findings(filled) if text.startswith("problem")]
    assert deaths == 6  # once after each object, and no object needs a second sweep to be tried
    assert not any("gone" in key for key in filled.objects)


# Verify


def test_a_sound_registry_has_no_findings(filled: MemoryStore) -> None:
    assert not findings(filled, contents=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no weights", "problem: version .* names weights that are not there"),
        ("short weights", "problem: has 3 bytes, its version says"),
        ("other weights", "problem: its bytes are not those"),
        ("no version", "problem: its active version .* is not there"),
        ("other version", "problem: its copy of version .* differs"),
        ("other trigger", "problem: its trigger, class or base model"),
        ("damaged record", "problem: The registry's document"),
        ("no record", "note: has versions but no record"),
        ("no marker", "problem: is missing: the listing by time"),
        ("orphan", "note: no version names these weights"),
    ],
)
def test_each_damage_is_found(
    memory: MemoryStore, registry: Registry, lora: Path, damage: str, message: str
) -> None:
    version = registry.add_version(new_version(lora))
    record_key, version_key = layout.record_key("mira"), layout.version_key("mira", version.id)
    record, document = memory.get(record_key).body, memory.get(version_key).body
    weights = memory.get(version.key).body
    marker = layout.newest_key("mira", registry.get("mira").created_at)
    changes: dict[str, tuple[str, bytes | None]] = {
        "no weights": (version.key, None),
        "short weights": (version.key, b"123"),
        "other weights": (version.key, weights[:-1] + b"x"),
        "no version": (version_key, None),
        "other version": (version_key, document.replace(b'"rank": 2', b'"rank": 3')),
        "other trigger": (record_key, record.replace(b'"ohwx"', b'"other"')),
        "damaged record": (record_key, b"{"),
        "no record": (record_key, None),
        "no marker": (marker, None),
        "orphan": (layout.weights_key("mira", "c" * 64), b"x"),
    }
    key, body = changes[damage]
    if body is None:
        memory.delete(key)
    else:
        memory.put(key, body)
    assert any(re.match(message, text) for text in findings(memory, contents=True))


def test_a_repair_brings_a_character_back_into_the_listing(
    memory: MemoryStore, registry: Registry, lora: Path
) -> None:
    registry.add_version(new_version(lora))
    memory.delete(layout.newest_key("mira", registry.get("mira").created_at))
    assert not registry.list(order="newest").characters
    assert findings(memory, repair=True) == ["note: was missing from the listing by time; written"]
    assert registry.list(order="newest").characters
    assert not findings(memory)


def test_one_character_can_be_looked_at(filled: MemoryStore) -> None:
    [checked] = Verification(filled).run("kept")
    assert (checked.character_id, checked.versions) == ("kept", 1)
