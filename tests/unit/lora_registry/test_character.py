"""The pure documents: single changes, and any interleaving of them."""

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
    first_head,
    renamed,
    restored,
    rollback_target,
    rolled_back,
    stamped,
    swept,
)
from lora_registry.character import (
    CharacterHead,
    CharacterVersion,
    milliseconds,
    parse_head,
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


def version(number: int = 0, *, character_id: str = "mira", trigger: str = "") -> CharacterVersion:
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
        base_model="sdxl",
        created_at=at,
    )


def head_of(*versions: CharacterVersion) -> CharacterHead:
    head = first_head(versions[0], name="Mira")
    for each in versions:
        head = stamped(activated(head, each), f"add-{each.id}", NOW)
    return head


def test_a_head_carries_what_a_job_needs_of_its_active_version() -> None:
    found = usable(head_of(version(1), version(2)))
    assert (found.version, found.trigger, found.size) == (version(2).id, "trigger2", 102)
    assert (found.key, found.strength, found.name) == (version(2).key, 0.8, "Mira")


def test_a_pinned_version_brings_its_own_trigger() -> None:
    found = pinned(head_of(version(1), version(2)), version(1))
    assert (found.version, found.trigger) == (version(1).id, "trigger1")


def test_a_head_without_an_active_version_is_not_usable() -> None:
    with pytest.raises(NoActiveVersion, match="no active version"):
        usable(first_head(version(), name="Mira"))


def test_activating_the_active_version_changes_nothing() -> None:
    head = head_of(version(1))
    assert activated(head, version(1)) is head


def test_another_characters_version_is_refused() -> None:
    with pytest.raises(VersionNotFound):
        activated(head_of(version(1)), version(2, character_id="zoe"))


def test_a_second_rollback_goes_further_back() -> None:
    head = head_of(version(1), version(2), version(3))
    assert rollback_target(head) == version(2).id
    head = rolled_back(head, version(2))
    head = rolled_back(head, version(1))
    assert usable(head).trigger == "trigger1"
    with pytest.raises(NothingToRollBack, match="no other active version"):
        rollback_target(head)


def test_a_tombstone_is_refused_until_it_is_restored() -> None:
    head = deleted(head_of(version(1)))
    assert deleted(head) is head
    for refused in (lambda: usable(head), lambda: activated(head, version(2))):
        with pytest.raises(CharacterDeleted, match="was deleted; restore it"):
            refused()
    assert restored(head) == head_of(version(1))


def test_a_swept_tombstone_names_no_file_and_does_not_come_back() -> None:
    head = swept(deleted(head_of(version(1), version(2))))
    assert head.active is None
    assert head.previous == ()
    with pytest.raises(CharacterNotFound, match="files are removed"):
        restored(head)


def test_a_character_in_use_is_not_swept() -> None:
    with pytest.raises(CharacterInUse):
        swept(head_of(version(1)))


def test_renaming_to_nothing_keeps_the_name() -> None:
    head = head_of(version(1))
    assert renamed(head, None) is head
    assert renamed(head, "Mira B.").name == "Mira B."


def test_time_in_a_head_never_goes_backwards() -> None:
    head = stamped(head_of(version(1)), "w", NOW - timedelta(days=1))
    assert head.updated_at == head_of(version(1)).updated_at
    assert head.revision == 2


def test_fields_of_a_later_release_survive_a_change() -> None:
    body = head_of(version(1)).to_json().replace(b'"name"', b'"mood": "calm", "name"', 1)
    head = parse_head(body, "key")
    assert b'"mood":"calm"' in stamped(head, "w", NOW).to_json().replace(b" ", b"")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "damaged"),
        (b"[]", "damaged"),
        (b'{"schema_version": 2}', "a newer release"),
        (head_of(version(1)).to_json().replace(b'"revision": 1', b'"revision": -1'), "revision"),
    ],
)
def test_a_document_that_cannot_be_used_names_its_key(body: bytes, reason: str) -> None:
    with pytest.raises(DocumentInvalid, match=reason) as caught:
        parse_head(body, "characters/mira/character.json")
    assert "characters/mira/character.json" in str(caught.value)


def test_times_are_whole_milliseconds() -> None:
    assert milliseconds(1_700_000_000.123_999).microsecond == 123_000


class Interleavings(RuleBasedStateMachine):
    """Every verb in any order, each on a head that any other verb left."""

    versions = Bundle("versions")

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, CharacterVersion] = {}
        self.head: CharacterHead | None = None
        self.clock = NOW
        self.writes = 0

    def write(self, changed: CharacterHead) -> None:
        before = self.head
        if changed is before:
            return
        self.writes += 1
        self.head = stamped(changed, f"w{self.writes}", self.clock)
        assert self.head.revision == (before.revision if before else 0) + 1
        assert before is None or self.head.updated_at >= before.updated_at

    @rule(seconds=st.integers(-3600, 3600))
    def clocks_differ(self, seconds: int) -> None:
        self.clock = NOW + timedelta(seconds=seconds)

    @rule(target=versions, activate=st.booleans())
    def add(self, activate: bool) -> str:  # noqa: FBT001 - drawn by hypothesis
        added = version(len(self.known))
        self.known[added.id] = added
        base = self.head or first_head(added, name="Mira")
        if base.deleted:
            return added.id  # kept, and may be activated after a restore
        self.write(activated(base, added) if activate else base)
        return added.id

    @precondition(lambda self: self.head is not None)
    @rule(chosen=versions)
    def activate(self, chosen: str) -> None:
        assert self.head is not None
        try:
            self.write(activated(self.head, self.known[chosen]))
        except CharacterDeleted:
            assert self.head.deleted

    @precondition(lambda self: self.head is not None)
    @rule()
    def roll_back(self) -> None:
        assert self.head is not None
        try:
            target = rollback_target(self.head)
        except (CharacterDeleted, NothingToRollBack):
            assert self.head.deleted or not self.head.previous
            return
        self.write(rolled_back(self.head, self.known[target]))
        assert usable(self.head).version == target

    @precondition(lambda self: self.head is not None)
    @rule()
    def delete(self) -> None:
        assert self.head is not None
        self.write(deleted(self.head))

    @precondition(lambda self: self.head is not None)
    @rule()
    def restore(self) -> None:
        assert self.head is not None
        self.write(restored(self.head))

    @precondition(lambda self: self.head is not None)
    @rule()
    def store_and_read(self) -> None:
        assert self.head is not None
        assert parse_head(self.head.to_json(), "key") == self.head

    @invariant()
    def what_a_head_names_exists(self) -> None:
        if self.head is None:
            return
        if self.head.active is not None:
            active = self.known[self.head.active.id]
            assert self.head.active == active.active
            assert self.head.trigger == active.trigger
        assert set(self.head.previous) <= set(self.known)

    @invariant()
    def the_head_stays_small(self) -> None:
        if self.head is not None:
            assert len(self.head.previous) <= MAX_PREVIOUS
            assert len(self.head.writes) <= MAX_WRITES

    @invariant()
    def a_rollback_changes_something(self) -> None:
        if self.head is not None and self.head.active is not None and self.head.previous:
            assert self.head.previous[-1] != self.head.active.id

    @invariant()
    def ids_sort_by_time(self) -> None:
        assert list(self.known) == sorted(self.known)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
