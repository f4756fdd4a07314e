"""The verbs against a store in memory: what they cost, what they refuse, what they survive."""

import itertools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lora_registry import layout
from lora_registry.errors import (
    CharacterDeleted,
    CharacterNotFound,
    InvalidRequest,
    NothingToRollBack,
    RegistryError,
    VersionNotFound,
    WriteConflict,
)
from lora_registry.records import Replay
from lora_registry.registry import Registry
from lora_registry.store import (
    ObjectMissing,
    PreconditionFailed,
    StoreError,
    StoreThrottled,
    StoreUnavailable,
)
from lora_registry.verification import Verification
from tests.loras import new_version, write_lora
from tests.stores import Died, MemoryStore, WatchedStore

Hook = Callable[[str, str], None]


def verbs_of(watched: WatchedStore) -> list[str]:
    return [verb for verb, _ in watched.requests]


def problems(store: MemoryStore) -> list[str]:
    return [
        finding.message
        for checked in Verification(store).run()
        for finding in checked.findings
        if finding.problem
    ]


def failing_at(number: int, error: Callable[[str], StoreError]) -> Hook:
    """Fails the request of that number, counted from now."""
    numbers = itertools.count(1)

    def fail(verb: str, key: str) -> None:
        del verb
        if next(numbers) == number:
            raise error(key)

    return fail


def dying_at(number: int) -> Hook:
    """Ends the writer at the request of that number; the dead ask nothing more."""
    numbers = itertools.count(1)

    def die(verb: str, key: str) -> None:
        del verb, key
        if next(numbers) >= number:
            raise Died

    return die


# What it costs


def test_adding_a_version_takes_five_requests(
    registry: Registry, watched: WatchedStore, lora: Path
) -> None:
    registry.add_version(new_version(lora))
    watched.requests.clear()
    registry.add_version(new_version(lora, job_id="job-2"))
    assert verbs_of(watched) == [
        "list",
        "upload",
        "put_if_absent",
        "get_if_changed",
        "put_if_match",
    ]
    watched.requests.clear()
    registry.add_version(new_version(lora, "zoe", "job-3"))  # a new character needs no read
    assert verbs_of(watched) == ["list", "upload", "put_if_absent", "put", "put_if_absent"]


def test_a_warm_read_is_one_conditional_request(
    registry: Registry, watched: WatchedStore, lora: Path
) -> None:
    registry.add_version(new_version(lora))
    watched.requests.clear()
    registry.resolve("mira")
    assert watched.requests == [("get_if_changed", "characters/mira/character.json")]


def test_a_pinned_version_is_read_once(
    memory: MemoryStore, watched: WatchedStore, registry: Registry, lora: Path
) -> None:
    first = Registry(memory).add_version(new_version(lora))
    Registry(memory).add_version(new_version(lora, job_id="job-2"))
    for _ in range(2):
        assert registry.resolve("mira", first.id).version == first.id
    assert verbs_of(watched) == ["get", "get", "get_if_changed"]


def test_reading_never_probes(memory: MemoryStore, watched: WatchedStore, lora: Path) -> None:
    Registry(memory).add_version(new_version(lora))
    reader = Registry(watched)
    reader.resolve("mira")
    reader.list()
    reader.versions("mira")
    assert not any(key.startswith("registry/") for _, key in watched.requests)


# What it answers


def test_a_worker_that_has_just_cached_the_old_head_sees_the_new_version(
    memory: MemoryStore, lora: Path
) -> None:
    reader, writer = Registry(memory), Registry(memory)
    writer.add_version(new_version(lora))
    reader.resolve("mira")
    added = writer.add_version(new_version(lora, job_id="job-2"))
    assert reader.resolve("mira").version == added.id
    writer.rollback("mira")
    assert reader.resolve("mira").version != added.id


def test_not_activating_leaves_the_active_version(registry: Registry, lora: Path) -> None:
    first = registry.add_version(new_version(lora))
    registry.add_version(new_version(lora, job_id="job-2"), activate=False)
    assert registry.resolve("mira").version == first.id
    assert len(registry.versions("mira")) == 2


def test_a_new_name_is_taken_and_none_keeps_the_old(registry: Registry, lora: Path) -> None:
    registry.add_version(replace(new_version(lora), name="Mira"))
    registry.add_version(new_version(lora, job_id="job-2"))
    assert registry.get("mira").name == "Mira"


@pytest.mark.parametrize("read", ["get", "resolve", "versions", "rollback", "delete", "restore"])
def test_an_unknown_character_is_named(registry: Registry, read: str) -> None:
    with pytest.raises(CharacterNotFound, match="no character 'nobody'") as caught:
        getattr(registry, read)("nobody")
    assert caught.value.code == "character_not_found"


def test_an_id_that_is_none_never_reaches_the_store(
    registry: Registry, watched: WatchedStore
) -> None:
    with pytest.raises(InvalidRequest):
        registry.get("../secrets")
    assert not watched.requests


def test_an_unknown_version_is_named(registry: Registry, lora: Path) -> None:
    registry.add_version(new_version(lora))
    for ask in (registry.version, registry.activate, registry.resolve):
        with pytest.raises(VersionNotFound, match="no version 'v9'"):
            ask("mira", "v9")
    with pytest.raises(CharacterNotFound):
        registry.activate("nobody", "v9")


def test_deleted_means_not_found_until_restored(registry: Registry, lora: Path) -> None:
    registry.add_version(new_version(lora))
    assert registry.delete("mira").deleted
    with pytest.raises(CharacterDeleted, match="restore it"):
        registry.resolve("mira")
    assert registry.get("mira", tombstone=True).deleted
    registry.restore("mira")
    assert registry.resolve("mira").trigger == "ohwx"


def test_a_training_that_ends_after_the_deletion_keeps_its_version(
    registry: Registry, memory: MemoryStore, lora: Path
) -> None:
    registry.add_version(new_version(lora))
    registry.delete("mira")
    with pytest.raises(CharacterDeleted):
        registry.add_version(new_version(lora, job_id="job-2"))
    registry.restore("mira")
    kept = registry.versions("mira")[-1]
    registry.activate("mira", kept.id)
    assert kept.job_id == "job-2"
    assert not problems(memory)


def test_rollback_needs_something_to_go_back_to(registry: Registry, lora: Path) -> None:
    registry.add_version(new_version(lora))
    with pytest.raises(NothingToRollBack):
        registry.rollback("mira")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strength", 2.1),
        ("strength", float("nan")),
        ("strength", float("-inf")),
        ("trigger", ""),
        ("trigger", "a\x1bb"),
        ("trigger", "a" * 201),
        ("class_noun", ""),
        ("name", "\x00"),
    ],
)
def test_what_a_document_cannot_hold_is_refused_before_anything_is_written(
    registry: Registry, memory: MemoryStore, lora: Path, field: str, value: object
) -> None:
    with pytest.raises(InvalidRequest, match=field):
        registry.add_version(replace(new_version(lora), **{field: value}))  # type: ignore[arg-type]
    assert not memory.objects


# Jobs that are run again


@pytest.mark.parametrize("drift_s", [-86_400.0, 0.0, 86_400.0])
def test_a_retried_job_ends_in_one_version_whatever_the_clock_says(
    memory: MemoryStore, tmp_path: Path, drift_s: float
) -> None:
    clock = [1_700_000_000.0]
    first = Registry(memory, clock=lambda: clock[0]).add_version(
        new_version(write_lora(tmp_path / "a", seed=1))
    )
    clock[0] += drift_s
    again = Registry(memory, clock=lambda: clock[0]).add_version(
        new_version(write_lora(tmp_path / "b", seed=2))
    )
    assert again == first
    assert len(Registry(memory).versions("mira")) == 1


def test_ids_sort_even_when_the_clock_goes_backwards(memory: MemoryStore, lora: Path) -> None:
    now = 1_700_000_000.0
    made = []
    for number, drift in enumerate((0, -3600, 5, -86_400)):
        registry = Registry(memory, clock=lambda drift=drift: now + drift)  # type: ignore[misc]
        made.append(registry.add_version(new_version(lora, job_id=f"job-{number}")).id)
    assert made == sorted(made)


def test_a_retry_does_not_undo_what_others_did_since(registry: Registry, lora: Path) -> None:
    registry.add_version(new_version(lora))
    second = registry.add_version(new_version(lora, job_id="job-2"))
    registry.add_version(new_version(lora))
    assert registry.get("mira").active == second.active


def test_a_job_finds_what_an_earlier_run_of_it_wrote(
    memory: MemoryStore, registry: Registry, watched: WatchedStore, lora: Path
) -> None:
    assert registry.made_by("mira", "job-1") is None

    def die(verb: str, key: str) -> None:
        if key == layout.record_key("mira"):
            raise Died(verb)

    watched.before = die
    with pytest.raises(Died):
        registry.add_version(new_version(lora))
    later = Registry(memory)
    made = later.made_by("mira", "job-1")
    assert made is not None
    assert later.adopt(made, name="Mira").active == made.active
    other = later.add_version(new_version(lora, job_id="job-2"))
    assert later.adopt(made).active == other.active  # done before: others' work stays
    assert later.get("mira").name == "Mira"


def test_a_retried_rollback_job_goes_back_once(registry: Registry, lora: Path) -> None:
    for number in range(3):
        registry.add_version(new_version(lora, job_id=f"job-{number}"))
    registry.rollback("mira", job_id="rollback-job")
    record = registry.rollback("mira", job_id="rollback-job")
    assert record.active is not None
    assert layout.made_by(record.active.id, "job-1")


# A writer that dies


def run_verb(registry: Registry, verb: str, lora: Path) -> None:
    if verb == "add":
        registry.add_version(new_version(lora, "mira", "the-job"))
    elif verb == "activate":
        registry.activate("mira", registry.versions("mira")[0].id, job_id="the-job")
    else:
        getattr(registry, verb)("mira", job_id="the-job")


@pytest.mark.parametrize("kind", ["enforced", "ignored", "unsupported"])
@pytest.mark.parametrize(
    ("verb", "existing"),
    [("add", 0), ("add", 2), ("activate", 2), ("rollback", 2), ("delete", 2)],
)
def test_every_crash_point(kind: str, verb: str, existing: int, lora: Path) -> None:
    for when in ("before", "after"):
        for number in range(1, 60):
            memory = MemoryStore(kind)
            for earlier in range(existing):
                Registry(memory).add_version(new_version(lora, job_id=f"earlier-{earlier}"))
            expected_writes = existing + 1
            watched = WatchedStore(memory)
            setattr(watched, when, dying_at(number))
            try:
                run_verb(Registry(watched), verb, lora)
            except Died:
                assert not problems(memory)
                run_verb(Registry(memory), verb, lora)
            else:
                assert number > 3  # every request was a crash point once
                break
            versions = Registry(memory).versions("mira")
            assert len(versions) == existing + (verb == "add")
            record = Registry(memory).get("mira", tombstone=True)
            assert record.revision == expected_writes
            assert record.active is not None
            assert record.active.id == versions[0 if verb in {"activate", "rollback"} else -1].id
            assert not problems(memory)
        else:
            pytest.fail("the verb never ended")


def test_a_version_without_a_head_is_listed_and_can_be_activated(
    memory: MemoryStore, lora: Path
) -> None:
    watched = WatchedStore(memory)

    def die(verb: str, key: str) -> None:
        del verb
        if key.startswith(layout.NEWEST):
            raise Died

    watched.before = die
    with pytest.raises(Died):
        Registry(watched).add_version(new_version(lora))
    [left] = Registry(memory).versions("mira")
    with pytest.raises(CharacterNotFound):
        Registry(memory).get("mira")
    assert Registry(memory).activate("mira", left.id).active == left.active


@pytest.mark.parametrize("kind", ["enforced", "ignored", "unsupported"])
@pytest.mark.parametrize("existing", [0, 1])
def test_another_writer_between_any_two_requests(kind: str, existing: int, lora: Path) -> None:
    for number in range(1, 60):
        memory = MemoryStore(kind)
        Registry(memory).add_version(new_version(lora, "elsewhere", "probes the store"))
        for earlier in range(existing):
            Registry(memory).add_version(new_version(lora, job_id=f"earlier-{earlier}"))
        watched, numbers = WatchedStore(memory), itertools.count(1)

        def interfere(verb: str, key: str) -> None:
            del verb, key
            if next(numbers) == number:  # noqa: B023 - used within this turn
                Registry(memory).add_version(new_version(lora, job_id="other"))  # noqa: B023

        watched.after = interfere
        added = Registry(watched, replay=Replay(first_pause_s=0.001)).add_version(new_version(lora))
        jobs = {version.job_id for version in Registry(memory).versions("mira")}
        assert "job-1" in jobs
        assert not problems(memory)
        record = Registry(memory).get("mira")
        if next(numbers) <= number:
            break  # there was no such request
        assert "other" in jobs
        if kind == "enforced":
            assert record.revision == existing + 2
            assert f"add-{added.id}" in record.writes
    else:
        pytest.fail("the verb never ended")


# Replies that are lost, and stores that are busy


@pytest.mark.parametrize("verb", ["upload", "put", "put_if_absent", "put_if_match"])
def test_a_lost_reply_counts_as_success_once(
    registry: Registry, watched: WatchedStore, lora: Path, verb: str
) -> None:
    registry.add_version(new_version(lora, job_id="earlier"))
    lost = {"left": 1}

    def lose(done: str, key: str) -> None:
        if done == verb and key.startswith("characters/") and lost["left"]:
            lost["left"] -= 1
            raise StoreUnavailable(key, "no reply")

    watched.after = lose
    registry.add_version(new_version(lora))
    record = registry.get("mira")
    assert record.revision == 2
    assert len(registry.versions("mira")) == 2
    assert record.writes.count(record.write_id) == 1


def test_a_lost_reply_is_known_even_below_anothers_write(
    memory: MemoryStore, registry: Registry, watched: WatchedStore, lora: Path
) -> None:
    registry.add_version(new_version(lora, job_id="earlier"))

    def overtake(verb: str, key: str) -> None:
        if verb == "put_if_match":
            watched.after = lambda *_: None
            Registry(memory).add_version(new_version(lora, job_id="other"))
            raise StoreUnavailable(key, "no reply")

    watched.after = overtake
    registry.add_version(new_version(lora))
    record = registry.get("mira")
    assert record.revision == 3
    assert record.active is not None
    assert layout.made_by(record.active.id, "other")


@pytest.mark.parametrize("number", range(1, 6))
def test_a_store_that_is_busy_once_is_asked_again(
    registry: Registry, watched: WatchedStore, lora: Path, number: int
) -> None:
    registry.add_version(new_version(lora, job_id="earlier"))
    watched.before = failing_at(number, StoreThrottled)
    assert registry.add_version(new_version(lora)).job_id == "job-1"


READS: list[Callable[[Registry], object]] = [
    lambda registry: registry.get("mira"),
    lambda registry: registry.resolve("mira"),
    lambda registry: registry.resolve("mira", registry.versions("mira")[0].id),
    lambda registry: registry.versions("mira"),
    lambda registry: registry.list(),
    lambda registry: registry.list(order="newest"),
    lambda registry: registry.activate("mira", "v9"),
    lambda registry: registry.delete("mira"),
]


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    "error",
    [StoreThrottled("key"), StoreUnavailable("key", "500"), StoreUnavailable("key", "time")],
)
def test_a_failing_store_is_never_an_empty_one(
    memory: MemoryStore, lora: Path, read: Callable[[Registry], object], error: StoreError
) -> None:
    for job in ("job-1", "job-2"):
        Registry(memory).add_version(new_version(lora, job_id=job))
    for number in range(1, 4):
        watched = WatchedStore(memory)
        reached = []

        def fail(verb: str, key: str) -> None:
            del verb, key
            if len(watched.requests) >= number:  # noqa: B023 - used within this turn
                reached.append(True)  # noqa: B023
                raise error

        watched.before = fail
        quick = Replay(deadline_s=0.02, first_pause_s=0.001)
        try:
            read(Registry(watched, replay=quick))
        except StoreError as caught:
            assert not isinstance(caught, ObjectMissing)  # noqa: PT017 - a failure must not mean absence
        except RegistryError:
            assert not reached  # an answer of the store, from before it failed
        else:
            assert not reached


# Many writers


@pytest.mark.parametrize("kind", ["enforced", "ignored", "unsupported"])
def test_no_version_is_lost_among_many_writers(kind: str, lora: Path) -> None:
    memory = MemoryStore(kind)
    quick = Replay(first_pause_s=0.001, longest_pause_s=0.02)

    def write(number: int) -> str:
        registry = Registry(memory, replay=quick)
        return registry.add_version(new_version(lora, job_id=f"job-{number}")).id

    with ThreadPoolExecutor(8) as writers:
        written = list(writers.map(write, range(24)))
    record = Registry(memory).get("mira")
    assert sorted(written) == [version.id for version in Registry(memory).versions("mira")]
    assert record.active is not None
    assert record.active.id in written
    assert not problems(memory)
    if kind == "enforced":
        assert record.revision == 24


def test_a_writer_that_never_wins_gives_up_and_says_so(
    memory: MemoryStore, watched: WatchedStore, lora: Path
) -> None:
    Registry(memory).add_version(new_version(lora))

    def lose(verb: str, key: str) -> None:
        if verb == "put_if_match" and key.startswith("characters/"):
            raise PreconditionFailed(key)

    watched.before = lose
    with pytest.raises(WriteConflict, match="changed by many others") as caught:
        Registry(watched, replay=Replay(deadline_s=0.1)).delete("mira")
    assert caught.value.retryable
    assert not Registry(memory).get("mira").deleted


def test_pauses_are_drawn_and_bounded() -> None:
    pauses: list[float] = []
    attempts = iter(range(9))

    def action() -> int:
        if next(attempts) < 8:
            raise StoreThrottled("key")
        return 1

    random.seed(1)
    assert Replay(first_pause_s=0.1, longest_pause_s=0.5, sleep=pauses.append).run(action) == 1
    assert len(set(pauses)) == 8
    assert max(pauses) <= 0.5


def test_a_store_that_keeps_failing_is_left_alone() -> None:
    tries = []

    def action() -> None:
        tries.append(1)
        raise StoreUnavailable("key", "500")

    with pytest.raises(StoreUnavailable):
        Replay(sleep=lambda _: None).run(action)
    assert len(tries) == 4
