"""The pure documents: single changes, and any interleaving of them."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from lora_registry import layout
from lora_registry.changes import (
    MAX_PREVIOUS,
    MAX_WRITES,
    activated,
    deleted,
    first_record,
    renamed,
    restored,
    rollback_target,
    rolled_back,
    stamped,
    swept,
)
from lora_registry.character import (
    CharacterRecord,
    CharacterVersion,
    milliseconds,
    parse_record,
    pinned,
    usable,
)
from lora_registry.errors import (
    CharacterDeleted,
    CharacterInUse,
    CharacterNotFound,
    DocumentInvalid,
    NoActiveVersion,
    NothingToRollBack,
    VersionNotFound,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)


def version(
    number: int = 0,
    *,
    character_id: str = "mira",
    trigger: str = "",
    base_model: str = "sdxl",
) -> CharacterVersion:
    at = NOW + timedelta(seconds=number)
    sha256 = f"{number:064x}"
    return CharacterVersion(
        character_id=character_id,
        id=layout.version_id(at, f"job-{number}"),
        job_id=f"job-{number}",
        key=layout.weights_key(character_id, sha256),
        sha256=sha256,
        size=100 + number,
        rank=8,
        strength=0.8,
        format="kohya",
        trigger=trigger or f"trigger{number}",
        class_noun="person",
        base_model=base_model,
        created_at=at,
    )


def record_of(*versions: CharacterVersion) -> CharacterRecord:
    record = first_record(versions[0], name="Mira")
    for each in versions:
        record = stamped(activated(record, each), f"add-{each.id}", NOW)
    return record


def test_a_head_carries_what_a_job_needs_of_its_active_version() -> None:
    found = usable(record_of(version(1), version(2)))
    assert (found.version, found.trigger, found.size) == (version(2).id, "trigger2", 102)
    assert (found.key, found.strength, found.name) == (version(2).key, 0.8, "Mira")


def test_a_pinned_version_brings_its_own_trigger() -> None:
    found = pinned(record_of(version(1), version(2)), version(1))
    assert (found.version, found.trigger) == (version(1).id, "trigger1")


def test_a_head_without_an_active_version_is_not_usable() -> None:
    with pytest.raises(NoActiveVersion, match="no active version"):
        usable(first_record(version(), name="Mira"))


def test_activating_the_active_version_changes_nothing() -> None:
    record = record_of(version(1))
    assert activated(record, version(1)) is record


def test_another_characters_version_is_refused() -> None:
    with pytest.raises(VersionNotFound):
        activated(record_of(version(1)), version(2, character_id="zoe"))


def test_a_second_rollback_goes_further_back() -> None:
    record = record_of(version(1), version(2), version(3))
    assert rollback_target(record) == version(2).id
    record = rolled_back(record, version(2))
    record = rolled_back(record, version(1))
    assert usable(record).trigger == "trigger1"
    with pytest.raises(NothingToRollBack, match="no other active version"):
        rollback_target(record)


def test_a_character_keeps_an_active_version_for_each_base_model() -> None:
    record = record_of(version(1), version(2, base_model="z_image"))
    assert usable(record).version == version(2).id
    assert usable(record, "sdxl").version == version(1).id
    assert (usable(record, "sdxl").trigger, usable(record, "sdxl").base_model) == (
        "trigger1",
        "sdxl",
    )
    assert usable(record, "flux1").base_model == "z_image"


def test_a_rollback_stays_within_its_base_model() -> None:
    record = record_of(
        version(1, base_model="z_image"), version(2), version(3, base_model="z_image")
    )
    record = rolled_back(record, version(1, base_model="z_image"))
    assert usable(record, "z_image").version == version(1).id
    assert usable(record, "sdxl").version == version(2).id
    with pytest.raises(NothingToRollBack):
        rollback_target(record)


def old_document(record: CharacterRecord, *, previous: tuple[str, ...] = ()) -> bytes:
    """The record as a release without base models' own versions wrote it."""
    document = record.model_dump(mode="json", exclude={"families", "references"})
    return json.dumps({**document, "previous": list(previous)}).encode()


def test_an_older_releases_record_gets_its_base_models_entry_when_it_is_read() -> None:
    read = parse_record(old_document(record_of(version(2)), previous=(version(1).id,)), "key")
    assert read.families == record_of(version(1), version(2)).families
    assert rolled_back(read, version(1)).families["sdxl"].id == version(1).id


def test_an_older_releases_change_to_a_record_of_this_one_counts() -> None:
    record = record_of(version(1), version(2, base_model="z_image"))
    changed = record.model_copy(  # as it activates: it knows `active` alone, and keeps the rest
        update={
            "active": version(3).active,
            "trigger": "trigger3",
            "base_model": "sdxl",
            "previous": (version(1).id, version(2).id),
        }
    )
    read = parse_record(changed.to_json(), "key")
    assert usable(read, "sdxl").version == version(3).id
    assert usable(read, "z_image").version == version(2).id


def test_a_rollback_to_another_base_model_that_an_older_release_noted_is_done() -> None:
    other = version(1, base_model="z_image")
    read = parse_record(old_document(record_of(version(2)), previous=(other.id,)), "key")
    record = rolled_back(read, other)
    assert usable(record).version == other.id
    assert usable(record, "sdxl").version == version(2).id


def test_a_tombstone_is_refused_until_it_is_restored() -> None:
    record = deleted(record_of(version(1)))
    assert deleted(record) is record
    for refused in (lambda: usable(record), lambda: activated(record, version(2))):
        with pytest.raises(CharacterDeleted, match="was deleted; restore it"):
            refused()
    assert restored(record) == record_of(version(1))


def test_a_swept_tombstone_names_no_file_and_does_not_come_back() -> None:
    record = swept(deleted(record_of(version(1), version(2))))
    assert record.active is None
    assert record.previous == ()
    with pytest.raises(CharacterNotFound, match="files are removed"):
        restored(record)


def test_a_character_in_use_is_not_swept() -> None:
    with pytest.raises(CharacterInUse):
        swept(record_of(version(1)))


def test_renaming_to_nothing_keeps_the_name() -> None:
    record = record_of(version(1))
    assert renamed(record, None) is record
    assert renamed(record, "Mira B.").name == "Mira B."


def test_time_in_a_head_never_goes_backwards() -> None:
    record = stamped(record_of(version(1)), "w", NOW - timedelta(days=1))
    assert record.updated_at == record_of(version(1)).updated_at
    assert record.revision == 2


def test_fields_of_a_later_release_survive_a_change() -> None:
    body = record_of(version(1)).to_json().replace(b'"name"', b'"mood": "calm", "name"', 1)
    record = parse_record(body, "key")
    assert b'"mood":"calm"' in stamped(record, "w", NOW).to_json().replace(b" ", b"")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "damaged"),
        (b"[]", "damaged"),
        (b'{"schema_version": 2}', "a newer release"),
        (record_of(version(1)).to_json().replace(b'"revision": 1', b'"revision": -1'), "revision"),
    ],
)
def test_a_document_that_cannot_be_used_names_its_key(body: bytes, reason: str) -> None:
    with pytest.raises(DocumentInvalid, match=reason) as caught:
        parse_record(body, "characters/mira/character.json")
    assert "characters/mira/character.json" in str(caught.value)


def test_times_are_whole_milliseconds() -> None:
    assert milliseconds(1_700_000_000.123_999).microsecond == 123_000


class Interleavings(RuleBasedStateMachine):
    """Every verb in any order, each on a record that any other verb left."""

    versions = Bundle("versions")

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, CharacterVersion] = {}
        self.record: CharacterRecord | None = None
        self.clock = NOW
        self.writes = 0

    def write(self, changed: CharacterRecord) -> None:
        before = self.record
        if changed is before:
            return
        self.writes += 1
        self.record = stamped(changed, f"w{self.writes}", self.clock)
        assert self.record.revision == (before.revision if before else 0) + 1
        assert before is None or self.record.updated_at >= before.updated_at

    @rule(seconds=st.integers(-3600, 3600))
    def clocks_differ(self, seconds: int) -> None:
        self.clock = NOW + timedelta(seconds=seconds)

    @rule(target=versions, activate=st.booleans())
    def add(self, activate: bool) -> str:  # noqa: FBT001 - drawn by hypothesis
        added = version(len(self.known))
        self.known[added.id] = added
        base = self.record or first_record(added, name="Mira")
        if base.deleted:
            return added.id  # kept, and may be activated after a restore
        self.write(activated(base, added) if activate else base)
        return added.id

    @precondition(lambda self: self.record is not None)
    @rule(chosen=versions)
    def activate(self, chosen: str) -> None:
        assert self.record is not None
        try:
            self.write(activated(self.record, self.known[chosen]))
        except CharacterDeleted:
            assert self.record.deleted

    @precondition(lambda self: self.record is not None)
    @rule()
    def roll_back(self) -> None:
        assert self.record is not None
        try:
            target = rollback_target(self.record)
        except (CharacterDeleted, NothingToRollBack):
            assert self.record.deleted or not self.record.previous
            return
        self.write(rolled_back(self.record, self.known[target]))
        assert usable(self.record).version == target

    @precondition(lambda self: self.record is not None)
    @rule()
    def delete(self) -> None:
        assert self.record is not None
        self.write(deleted(self.record))

    @precondition(lambda self: self.record is not None)
    @rule()
    def restore(self) -> None:
        assert self.record is not None
        self.write(restored(self.record))

    @precondition(lambda self: self.record is not None)
    @rule()
    def store_and_read(self) -> None:
        assert self.record is not None
        assert parse_record(self.record.to_json(), "key") == self.record

    @invariant()
    def what_a_head_names_exists(self) -> None:
        if self.record is None:
            return
        if self.record.active is not None:
            active = self.known[self.record.active.id]
            assert self.record.active == active.active
            assert self.record.trigger == active.trigger
        assert set(self.record.previous) <= set(self.known)

    @invariant()
    def the_head_stays_small(self) -> None:
        if self.record is not None:
            assert len(self.record.previous) <= MAX_PREVIOUS
            assert len(self.record.writes) <= MAX_WRITES

    @invariant()
    def a_rollback_changes_something(self) -> None:
        if self.record is not None and self.record.active is not None and self.record.previous:
            assert self.record.previous[-1] != self.record.active.id

    @invariant()
    def ids_sort_by_time(self) -> None:
        assert list(self.known) == sorted(self.known)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
