"""The registry against real S3 servers: one that enforces conditions, one that ignores them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from local.faults import Fault, FaultProxy, Rule
from local.s3 import S3Server
from local.unconditional_s3 import UnconditionalS3Server
from lora_registry.conditions import Conditions, ConditionSupport, probe
from lora_registry.errors import CharacterNotFound, RegistryError
from lora_registry.listing import Order
from lora_registry.migration import export_characters, import_characters
from lora_registry.records import Replay
from lora_registry.registry import Registry
from lora_registry.store import ObjectMissing, StoreError
from lora_registry.sweep import Sweep
from lora_registry.verification import Verification
from tests.loras import new_version, write_lora
from worker.storage import ObjectStore

NAMES = ("mira", "mira-2", "mira_2", "mira2", "zoe", "a")


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "lora.safetensors")


@pytest.fixture(scope="module")
def unconditional() -> Iterator[ObjectStore]:
    with UnconditionalS3Server() as server, ObjectStore(server.options()) as opened:
        yield opened


@pytest.fixture(scope="module")
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3.endpoint_url) as opened:
        yield opened


@pytest.fixture
def proxied(s3: S3Server, proxy: FaultProxy, store: ObjectStore) -> Iterator[ObjectStore]:
    """The test's own place in the bucket, through the proxy; impatient."""
    proxy.clear()
    options = s3.options(prefix=store.options.prefix, endpoint_url=proxy.url)
    with ObjectStore(replace(options, max_attempts=2, read_timeout_s=1.0)) as opened:
        yield opened


def problems(store: ObjectStore) -> list[str]:
    return [
        finding.message for checked in Verification(store).run() for finding in checked.findings
    ]


def test_the_real_server_enforces_conditions(store: ObjectStore) -> None:
    assert probe(store)[0] is ConditionSupport.ENFORCED


def test_the_careless_server_does_not(unconditional: ObjectStore) -> None:
    assert probe(unconditional)[0] is ConditionSupport.IGNORED


def test_the_life_of_a_character(store: ObjectStore, tmp_path: Path) -> None:
    registry = Registry(store)
    first, second = (
        registry.add_version(new_version(write_lora(tmp_path / job, seed=n), job_id=job))
        for n, job in enumerate(("job-1", "job-2"))
    )
    reader = Registry(store)
    assert reader.resolve("mira").version == second.id
    registry.rollback("mira")
    assert reader.resolve("mira").version == first.id
    registry.delete("mira")
    with pytest.raises(CharacterNotFound, match="was deleted"):
        reader.resolve("mira")
    registry.restore("mira")
    assert reader.resolve("mira", second.id).sha256 == second.sha256
    assert not problems(store)


@pytest.mark.parametrize("order", ["id", "newest"])
def test_pages_of_the_real_server_are_everything_once(
    store: ObjectStore, lora: Path, order: Order
) -> None:
    registry = Registry(store)
    for name in NAMES:
        registry.add_version(new_version(lora, name))
    found: list[str] = []
    cursor = None
    for _ in NAMES:
        page = registry.list(order=order, limit=1, cursor=cursor)
        found += [record.character_id for record in page.characters]
        cursor = page.cursor
    assert cursor is None
    assert sorted(found) == sorted(NAMES)
    if order == "newest":
        assert found == list(reversed(NAMES))


def test_out_of_one_bucket_into_another_and_swept(
    store: ObjectStore, unconditional: ObjectStore, lora: Path, tmp_path: Path
) -> None:
    registry = Registry(store)
    registry.add_version(new_version(lora))
    list(export_characters(store, tmp_path / "archive", ["mira"]))
    list(import_characters(unconditional, tmp_path / "archive"))
    assert Registry(unconditional).resolve("mira") == registry.resolve("mira")
    registry.delete("mira")
    removed = list(Sweep(store, dry_run=False, clock=lambda: 4e9).run())
    assert len(removed) == 4
    assert not list(store.list("characters/"))
    list(import_characters(store, tmp_path / "archive"))
    assert Registry(store).resolve("mira").version
    assert not problems(store)


# Replies that are lost, and stores that are busy


@pytest.mark.parametrize(
    ("fault", "path"),
    [
        ("lose_reply", "character.json"),
        ("lose_reply", "versions/"),
        ("lose_reply", "loras/"),
        ("lose_reply", "registry/newest/"),
        ("lose_reply", "conditions.json"),
        ("reset", "character.json"),
        ("reset", "versions/"),
    ],
)
def test_a_lost_reply_to_a_write_counts_once(
    store: ObjectStore,
    proxied: ObjectStore,
    proxy: FaultProxy,
    lora: Path,
    path: str,
    fault: Fault,
) -> None:
    if path != "conditions.json":
        _ = Conditions(store).enforced  # probed already, to keep the test quick
    rule = proxy.add(Rule(fault, method="PUT", path=path, times=2))
    added = Registry(proxied, replay=Replay(first_pause_s=0.01)).add_version(new_version(lora))
    assert rule.hits >= 1
    proxy.clear()
    record = Registry(proxied).get("mira")
    assert (record.revision, record.active) == (1, added.active)
    assert [version.id for version in Registry(proxied).versions("mira")] == [added.id]
    assert not problems(proxied)


def test_a_lost_reply_to_an_activation_counts_once(
    proxied: ObjectStore, proxy: FaultProxy, lora: Path
) -> None:
    registry = Registry(proxied)
    first = registry.add_version(new_version(lora))
    registry.add_version(new_version(lora, job_id="job-2"))
    proxy.add(Rule("lose_reply", method="PUT", path="character.json", times=3))
    record = registry.activate("mira", first.id)
    assert (record.revision, record.active) == (3, first.active)
    assert len(record.previous) == 2


READS: dict[str, Callable[[Registry], object]] = {
    "get": lambda registry: registry.get("mira"),
    "resolve": lambda registry: registry.resolve("mira"),
    "version": lambda registry: registry.resolve("mira", registry.versions("mira")[0].id),
    "list": lambda registry: registry.list(),
    "newest": lambda registry: registry.list(order="newest"),
}
FAULTS = {
    "slow down": Rule("error", status=503, code="SlowDown"),
    "too many": Rule("error", status=429, code="TooManyRequests"),
    "internal": Rule("error", status=500),
    "refused": Rule("error", status=403, code="AccessDenied"),
    "no bucket": Rule("error", status=404, code="NoSuchBucket"),
    "reset": Rule("reset"),
    "cut off": Rule("cut_reply", after=20),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_store_is_never_an_empty_one(
    store: ObjectStore, proxied: ObjectStore, proxy: FaultProxy, lora: Path, fault: str
) -> None:
    for job in ("job-1", "job-2"):
        Registry(store).add_version(new_version(lora, job_id=job))
    with ObjectStore(replace(proxied.options, max_attempts=1)) as impatient:
        for read in READS.values():
            expected = read(Registry(store))
            for skip in range(3):
                proxy.clear()
                rule = proxy.add(replace(FAULTS[fault], times=1000, skip=skip))
                with _no_emptiness():
                    assert read(Registry(impatient)) == expected
                    assert rule.hits == 0


class _no_emptiness:  # noqa: N801 - reads as a statement
    """Lets errors of the store pass, and nothing that says that something is not there."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        assert not isinstance(error, ObjectMissing | RegistryError)
        return isinstance(error, StoreError)


def test_a_timeout_is_an_error(
    store: ObjectStore, proxied: ObjectStore, proxy: FaultProxy, lora: Path
) -> None:
    Registry(store).add_version(new_version(lora))
    proxy.add(Rule("hang", method="GET", times=1000, seconds=5))
    with pytest.raises(StoreError, match="does not answer"):
        Registry(proxied).get("mira")
