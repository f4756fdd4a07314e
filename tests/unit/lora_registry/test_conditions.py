import threading

import pytest

from lora_registry import layout
from lora_registry.conditions import Conditions, ConditionSupport, probe
from lora_registry.errors import DocumentInvalid
from lora_registry.store import PreconditionFailed, StoreUnavailable
from tests.stores import MemoryStore, WatchedStore


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("enforced", ConditionSupport.ENFORCED),
        ("ignored", ConditionSupport.IGNORED),
        ("unsupported", ConditionSupport.UNSUPPORTED),
    ],
)
def test_the_probe_tells_the_three_kinds_of_store_apart(
    kind: str, verdict: ConditionSupport
) -> None:
    store = MemoryStore(kind)
    assert probe(store)[0] is verdict
    assert not store.objects  # nothing of the probe is left


class ChecksThenWrites(MemoryStore):
    """Checks conditions, but not atomically: creates that race all win."""

    def __init__(self) -> None:
        super().__init__()
        self.racers = threading.Barrier(8)

    def put_if_absent(self, key: str, body: bytes, content_type: str = "application/json") -> str:
        if not key.endswith("race"):
            return super().put_if_absent(key, body, content_type)
        absent = key not in self.objects
        self.racers.wait(10)
        if not absent:
            raise PreconditionFailed(key)
        return self.put(key, body, content_type)


def test_conditions_that_do_not_hold_in_a_race_are_none() -> None:
    verdict, reason = probe(ChecksThenWrites())
    assert verdict is ConditionSupport.IGNORED
    assert "race" in reason


def test_the_verdict_is_probed_once_and_remembered_in_the_bucket() -> None:
    memory = MemoryStore()
    assert Conditions(memory).enforced
    watched = WatchedStore(memory)
    later = Conditions(watched)
    assert later.enforced
    assert later.enforced
    assert watched.requests == [("get", layout.CONDITIONS)]


def test_a_failing_store_gives_no_verdict() -> None:
    watched = WatchedStore(MemoryStore())

    def fail(verb: str, key: str) -> None:
        if verb == "put_if_match":
            raise StoreUnavailable(key, "down")

    watched.before = fail
    with pytest.raises(StoreUnavailable):
        _ = Conditions(watched).enforced
    watched.before = lambda *_: None
    assert Conditions(watched).enforced


def test_a_damaged_verdict_is_reported_with_its_remedy() -> None:
    store = MemoryStore()
    store.put(layout.CONDITIONS, b"{}")
    with pytest.raises(DocumentInvalid, match="delete it"):
        _ = Conditions(store).enforced


def test_a_store_that_stops_supporting_conditions_is_probed_again() -> None:
    store = MemoryStore()
    conditions = Conditions(store)
    assert conditions.enforced
    store.conditions = "unsupported"
    with pytest.raises(PreconditionFailed):
        conditions.create("a", b"1")
    conditions.create("a", b"1")
    assert not Conditions(store).enforced
    assert store.get("a").body == b"1"


@pytest.mark.parametrize("verb", ["put_if_absent", "put_if_match"])
def test_a_lost_reply_is_not_taken_for_a_refusal(verb: str) -> None:
    """The client sends a conditional write again, and is then refused because of itself."""
    watched = WatchedStore(MemoryStore())

    def lose(done: str, key: str) -> None:
        if done == verb:
            raise PreconditionFailed(key)

    watched.after = lose
    assert probe(watched)[0] is ConditionSupport.ENFORCED


def test_a_probe_that_may_not_delete_still_gives_its_verdict() -> None:
    watched = WatchedStore(MemoryStore())

    def refuse(verb: str, key: str) -> None:
        if verb == "delete":
            raise StoreUnavailable(key, "denied")

    watched.before = refuse
    assert Conditions(watched).enforced
