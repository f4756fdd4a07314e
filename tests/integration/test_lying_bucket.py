"""A bucket that lies: whatever it says well-formed or half, nothing that was told done is lost.

Each verb is run once for each of its requests and each lie, with a lie told once and with one told
from there on. Afterwards the honest bucket must hold every version and tombstone it ever confirmed.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from errors import CodedError, ErrorCode
from local.faults import FaultProxy, Rule
from local.s3 import S3Server
from local.unconditional_s3 import UnconditionalS3Server
from lora_registry.conditions import Conditions
from lora_registry.layout import CONDITIONS
from lora_registry.records import Replay
from lora_registry.registry import Registry
from lora_registry.store import ObjectMissing
from lora_registry.sweep import Sweep
from tests.loras import new_version, write_lora
from worker.storage import ObjectStore
from worker.storage.client import StorageOptions

pytestmark = pytest.mark.process

LIES = {
    "a page": Rule("page", status=200),
    "an empty answer": Rule("blank", status=200),
    "no content": Rule("blank", status=204),
    "404 without a word": Rule("blank", status=404),
    "404 with a page": Rule("page", status=404),
    "no etag": Rule("bare"),
    "a cut listing": Rule("short_listing", method="GET", path="list-type=2"),
}
LATER = timedelta(days=30).total_seconds()
IMPATIENT = Replay(deadline_s=0.2, first_pause_s=0.001, sleep=lambda _: None)


@dataclass(frozen=True)
class Place:
    """One test's own prefix: the honest way to it, and the one by the proxy."""

    store: ObjectStore
    lying: ObjectStore
    lora: Path
    other: Path


def _sweep(place: Place, _registry: Registry) -> None:
    for _ in Sweep(place.lying, dry_run=False, clock=lambda: time.time() + LATER).run():
        pass


VERBS: dict[str, Callable[[Place, Registry], object]] = {
    "add": lambda place, registry: registry.add_version(new_version(place.other, job_id="job-3")),
    "add to a deleted one": lambda place, registry: registry.add_version(
        new_version(place.other, character_id="gone", job_id="job-3")
    ),
    "activate": lambda _, registry: registry.activate("mira", registry.versions("mira")[0].id),
    "rollback": lambda _, registry: registry.rollback("mira"),
    "delete": lambda _, registry: registry.delete("mira"),
    "restore": lambda _, registry: registry.restore("gone"),
    "list": lambda _, registry: registry.list(),
    "get": lambda _, registry: registry.get("mira"),
    "made by": lambda _, registry: registry.made_by("mira", "job-2"),
    "sweep": _sweep,
}

READS = {"list", "get", "made by"}
# Where conditions are ignored it is what a verb read that decides; the others are told apart above.
CARELESS = {"add to a deleted one", "activate", "delete", "sweep"}


def prepared(place: Place) -> dict[str, set[str]]:
    """Two versions of one character, and a deleted one, and nothing else; the versions' ids."""
    for info in list(place.store.list("")):
        if info.key != CONDITIONS:
            place.store.delete(info.key)
    registry = Registry(place.store)
    kept = {
        registry.add_version(new_version(place.lora, job_id="job-1")).id,
        registry.add_version(new_version(place.other, job_id="job-2")).id,
    }
    gone = {registry.add_version(new_version(place.lora, character_id="gone")).id}
    registry.delete("gone")
    return {"mira": kept, "gone": gone}


def lost(place: Place, versions: dict[str, set[str]], verb: str) -> list[str]:
    """What was confirmed and is not there any more, by the honest way."""
    registry, found = Registry(place.store), []
    mira = registry.get("mira", tombstone=True)
    for version in registry.versions("mira"):
        place.store.head(version.key)
    if not versions["mira"] <= {version.id for version in registry.versions("mira")}:
        found.append("a version")
    if mira.active is None and not mira.deleted:
        found.append("the active version")
    if verb == "sweep":
        left = list(place.store.list("characters/gone/"))
        if left and not any(info.key.endswith("character.json") for info in left):
            found.append("a tombstone whose files are still there")
        return found
    gone = registry.get("gone", tombstone=True)
    if not gone.deleted and verb != "restore":
        found.append("a tombstone")
    return found


@pytest.fixture(scope="module")
def careless() -> Iterator[UnconditionalS3Server]:
    with UnconditionalS3Server() as server:
        yield server


@pytest.fixture
def options(request: pytest.FixtureRequest, s3: S3Server, server: str) -> StorageOptions:
    if server == "enforcing":
        return s3.options()
    careless: UnconditionalS3Server = request.getfixturevalue("careless")
    return careless.options()


@pytest.fixture
def proxy(options: StorageOptions) -> Iterator[FaultProxy]:
    with FaultProxy(str(options.endpoint_url)) as opened:
        yield opened


@pytest.fixture
def place(options: StorageOptions, proxy: FaultProxy, tmp_path: Path) -> Iterator[Place]:
    lora = write_lora(tmp_path / "lora.safetensors")
    other = write_lora(tmp_path / "other.safetensors", rank=8)
    own = replace(options, prefix=tmp_path.name)
    # No second attempt within a request: each lie reaches the code that asked.
    lied_to = replace(own, endpoint_url=proxy.url, retry_deadline_s=0.0, read_timeout_s=3.0)
    with ObjectStore(own) as honest, ObjectStore(lied_to) as lying:
        assert isinstance(Conditions(honest).enforced, bool)  # probed, as by any first write
        yield Place(honest, lying, lora, other)


@pytest.mark.parametrize(
    ("server", "verb"),
    [
        *(("enforcing", verb) for verb in VERBS),
        *(("careless", verb) for verb in VERBS if verb in CARELESS),
    ],
)
def test_no_lie_loses_what_was_confirmed(place: Place, proxy: FaultProxy, verb: str) -> None:
    versions = prepared(place)
    proxy.clear()
    expected = _outcome(VERBS[verb], place)
    requests = len(proxy.requests)
    allowed = {ErrorCode.STORAGE_UNAVAILABLE, ErrorCode.CONFLICT, getattr(expected, "code", None)}
    told = 0
    for number in range(requests):
        # Each request meets every other lie, its neighbour the rest: half the time for the suite.
        for name, lie in list(LIES.items())[number % 2 :: 2]:
            if verb not in READS:
                versions = prepared(place)
            proxy.clear()
            times = 1 if len(name) % 2 else 1000
            rule = proxy.add(replace(lie, skip=number, times=times))
            outcome = _outcome(VERBS[verb], place)
            proxy.clear()
            told += rule.hits > 0
            shown = (number, name, times, outcome)
            if isinstance(outcome, CodedError):
                assert outcome.code in allowed, shown
                assert not isinstance(outcome, ObjectMissing), shown
            elif verb == "add":
                versions["mira"].add(outcome.id)
            elif verb == "list":
                assert [c.character_id for c in outcome.characters] == ["gone", "mira"], shown
            elif verb == "made by":
                assert outcome is not None, shown
            assert lost(place, versions, verb) == [], shown
    assert told >= requests


def _outcome(act: Callable[[Place, Registry], object], place: Place) -> Any:
    try:
        return act(place, Registry(place.lying, replay=IMPATIENT))
    except CodedError as error:
        return error
