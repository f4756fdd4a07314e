"""LoRA files on disk: fetched once, verified, kept while used, gone when room is needed."""

import errno
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from lora_registry.cache import LoraCache
from lora_registry.cache_directory import exclusive
from lora_registry.character import UsableVersion
from lora_registry.errors import CacheBusy, CacheDiskFull, LoraCorrupt, VersionNotFound
from lora_registry.store import StoreThrottled, StoreUnavailable
from lora_registry.tensorfile import sha256_of
from tests.loras import ensure, write_lora
from tests.stores import MemoryStore, WatchedStore

BIG = 10**9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "loras"


@pytest.fixture
def make(memory: MemoryStore, tmp_path: Path) -> Callable[[int], UsableVersion]:
    """Puts a LoRA into the bucket; all are of one size."""

    def made(number: int) -> UsableVersion:
        file = write_lora(tmp_path / "made", seed=number)
        sha256, key = sha256_of(file), f"characters/c{number}/loras/x.safetensors"
        memory.put(key, file.read_bytes())
        size = file.stat().st_size
        return UsableVersion(
            f"c{number}", "C", "t", "person", "sdxl", "v1", key, sha256, size, 2, 1.0
        )

    return made


def files(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.safetensors")}


def leftovers(folder: Path) -> list[Path]:
    return list((folder / ".cache" / "parts").rglob("*"))


Make = Callable[[int], UsableVersion]


def test_a_miss_downloads_and_a_hit_asks_nothing(
    watched: WatchedStore, folder: Path, make: Make
) -> None:
    cache, version = LoraCache(watched, folder, BIG), make(1)
    with cache.lease(version) as path:
        assert sha256_of(path) == version.sha256
        assert path == folder / f"{version.sha256}.safetensors"
    ensure(cache, version)
    assert watched.requests == [("download", version.key)]
    assert cache.usage().files == 1
    assert cache.usage().bytes == version.size
    assert not leftovers(folder)


def test_files_survive_a_restart(watched: WatchedStore, folder: Path, make: Make) -> None:
    version = make(1)
    ensure(LoraCache(watched, folder, BIG), version)
    ensure(LoraCache(watched, folder, BIG), version)
    assert len(watched.requests) == 1


def test_many_ask_one_downloads(memory: MemoryStore, folder: Path, make: Make) -> None:
    watched, version = WatchedStore(memory), make(1)
    started = threading.Barrier(8)

    def ask(_: int) -> Path:
        cache = LoraCache(watched, folder, BIG)  # of its own, as another process's would be
        started.wait(5)
        return ensure(cache, version)

    watched.before = lambda *_: time.sleep(0.05)  # long enough for all to ask meanwhile
    with ThreadPoolExecutor(8) as askers:
        assert len(set(askers.map(ask, range(8)))) == 1
    assert len(watched.requests) == 1


# What is wrong with a file


def wrong_size(version: UsableVersion, body: bytes) -> tuple[UsableVersion, bytes]:
    return version, body[:-2]


def wrong_bytes(version: UsableVersion, body: bytes) -> tuple[UsableVersion, bytes]:
    return version, body[:-2] + b"xx"


def wrong_header(version: UsableVersion, body: bytes) -> tuple[UsableVersion, bytes]:
    import hashlib  # noqa: PLC0415 - only here

    body = b"not a safetensors file at all..."
    return replace(version, size=len(body), sha256=hashlib.sha256(body).hexdigest()), body


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(wrong_size, "bytes instead of"), (wrong_bytes, "checksum"), (wrong_header, "safetensors")],
)
def test_a_damaged_object_is_refused_and_leaves_nothing(
    memory: MemoryStore,
    folder: Path,
    make: Make,
    damage: Callable[[UsableVersion, bytes], tuple[UsableVersion, bytes]],
    reason: str,
) -> None:
    version = make(1)
    version, body = damage(version, memory.get(version.key).body)
    memory.put(version.key, body)
    with pytest.raises(LoraCorrupt, match=reason) as caught:
        ensure(LoraCache(memory, folder, BIG), version)
    assert caught.value.code == "lora_corrupt"
    assert str(folder) not in str(caught.value)
    assert not files(folder)
    assert not leftovers(folder)


def test_a_missing_object_is_a_missing_version(
    memory: MemoryStore, folder: Path, make: Make
) -> None:
    version = make(1)
    memory.delete(version.key)
    with pytest.raises(VersionNotFound, match="gone from the bucket"):
        ensure(LoraCache(memory, folder, BIG), version)


def test_a_failing_store_is_neither(watched: WatchedStore, folder: Path, make: Make) -> None:
    def fail(verb: str, key: str) -> None:
        raise StoreThrottled(key) if verb == "download" else AssertionError

    watched.before = fail
    with pytest.raises(StoreThrottled):
        ensure(LoraCache(watched, folder, BIG), make(1))
    assert not leftovers(folder)


@pytest.mark.parametrize("change", ["truncated", "swapped", "touched", "removed", "unrecorded"])
def test_a_file_changed_on_disk_is_noticed(
    watched: WatchedStore, folder: Path, make: Make, change: str
) -> None:
    cache, version = LoraCache(watched, folder, BIG), make(1)
    path = ensure(cache, version)
    body = path.read_bytes()
    if change == "truncated":
        path.write_bytes(body[:100])
    elif change == "swapped":
        path.write_bytes(body[:-1] + b"x")
    elif change == "touched":
        os.utime(path, (1, 1))
    elif change == "removed":
        path.unlink()
    else:
        (folder / ".cache" / f"{version.sha256}.verified").unlink()
    with cache.lease(version) as again:
        assert again.read_bytes() == body
    fetched_again = change in {"truncated", "swapped", "removed"}
    assert len(watched.requests) == 1 + fetched_again
    ensure(cache, version)
    assert len(watched.requests) == 1 + fetched_again


# Room


def test_the_longest_unused_goes_before_a_download(
    memory: MemoryStore, folder: Path, make: Make
) -> None:
    versions = [make(number) for number in range(4)]
    cache = LoraCache(memory, folder, 3 * versions[0].size)
    for version in versions[:3]:
        ensure(cache, version)
    ensure(cache, versions[0])
    ensure(cache, versions[3])
    assert files(folder) == {versions[n].sha256 for n in (0, 2, 3)}
    assert cache.usage().bytes <= cache.usage().budget_bytes


def test_a_file_in_use_is_never_evicted(memory: MemoryStore, folder: Path, make: Make) -> None:
    used, idle, wanted = (make(number) for number in range(3))
    cache = LoraCache(memory, folder, 2 * used.size)
    with cache.lease(used) as path:
        ensure(cache, idle)
        ensure(LoraCache(memory, folder, 2 * used.size), wanted)  # another process's view
        assert files(folder) == {used.sha256, wanted.sha256}
        assert path.exists()


def test_what_is_in_use_at_once_may_exceed_the_budget(
    memory: MemoryStore, folder: Path, make: Make
) -> None:
    versions = [make(number) for number in range(4)]
    cache = LoraCache(memory, folder, versions[0].size)
    with ExitStack() as leases:
        for version in versions[:3]:
            leases.enter_context(cache.lease(version))
        assert cache.usage().files == 3
    ensure(cache, versions[3])
    assert files(folder) == {versions[3].sha256}


def test_downloads_on_their_way_count(memory: MemoryStore, folder: Path, make: Make) -> None:
    kept, slow, quick = (make(number) for number in range(3))
    budget = 2 * kept.size
    watched = WatchedStore(memory)
    ensure(LoraCache(memory, folder, budget), kept)
    arrived, go_on = threading.Event(), threading.Event()

    def pause(verb: str, key: str) -> None:
        if (verb, key) == ("download", slow.key):
            arrived.set()
            assert go_on.wait(10)

    watched.before = pause
    with ThreadPoolExecutor(1) as other:
        future = other.submit(ensure, LoraCache(watched, folder, budget), slow)
        assert arrived.wait(10)
        ensure(LoraCache(memory, folder, budget), quick)
        assert files(folder) == {quick.sha256}  # kept had to go: slow has its room already
        go_on.set()
        future.result(10)
    assert files(folder) == {quick.sha256, slow.sha256}


def test_what_a_dead_process_left_is_removed(memory: MemoryStore, folder: Path, make: Make) -> None:
    cache, version = LoraCache(memory, folder, BIG), make(1)
    for left_over in (f"{version.sha256}-{version.size}", f"{'a' * 64}-999"):
        part = folder / ".cache" / "parts" / left_over
        part.mkdir()
        (part / "weights.part").write_bytes(b"half")
    ensure(cache, version)
    assert not leftovers(folder)


def test_what_others_put_there_is_left_alone(memory: MemoryStore, folder: Path, make: Make) -> None:
    version = make(1)
    cache = LoraCache(memory, folder, version.size)
    (folder / "style.safetensors").write_bytes(b"x" * 1000)
    ensure(cache, version)
    ensure(cache, make(2))
    assert (folder / "style.safetensors").exists()
    assert cache.usage().files == 1


@pytest.mark.parametrize("raised", ["as it is", "wrapped"])
def test_a_full_disk_gets_the_unused_back_and_a_second_try(
    watched: WatchedStore, folder: Path, make: Make, raised: str
) -> None:
    idle, wanted = make(1), make(2)
    cache = LoraCache(watched, folder, BIG)
    ensure(cache, idle)

    def full(verb: str, key: str) -> None:
        if verb == "download" and idle.sha256 in files(folder):
            cause = OSError(errno.ENOSPC, "No space left on device")
            if raised == "wrapped":
                raise StoreUnavailable(key, "broken off") from cause
            raise cause

    watched.before = full
    ensure(cache, wanted)
    assert files(folder) == {wanted.sha256}


def test_a_disk_that_stays_full_says_so(watched: WatchedStore, folder: Path, make: Make) -> None:
    used, wanted = make(1), make(2)
    cache = LoraCache(watched, folder, BIG)

    def full(verb: str, key: str) -> None:
        if key == wanted.key:
            raise OSError(errno.ENOSPC, verb)

    watched.before = full
    with cache.lease(used), pytest.raises(CacheDiskFull, match="no room") as caught:
        ensure(cache, wanted)
    assert (caught.value.code, caught.value.retryable) == ("disk_full", True)
    assert files(folder) == {used.sha256}
    assert not leftovers(folder)


# Waiting


class Ended(Exception):
    pass


def test_a_waiters_own_check_is_honoured(memory: MemoryStore, folder: Path, make: Make) -> None:
    version = make(1)
    cache = LoraCache(memory, folder, BIG)
    asked = []

    def check_cancelled() -> None:
        asked.append(1)
        if len(asked) > 2:
            raise Ended

    with (
        exclusive(folder / ".cache" / f"{version.sha256}.lock", timeout_s=1),
        pytest.raises(Ended),
    ):
        ensure(cache, version, check_cancelled)
    assert len(asked) == 3
    ensure(cache, version)


def test_a_download_that_is_ended_lets_the_next_one_in(
    memory: MemoryStore, folder: Path, make: Make
) -> None:
    def end() -> None:
        raise Ended

    cache, version = LoraCache(memory, folder, BIG), make(1)
    with pytest.raises(Ended):
        ensure(cache, version, end)
    assert not leftovers(folder)
    ensure(cache, version)


def test_a_wait_has_an_end(memory: MemoryStore, folder: Path, make: Make) -> None:
    version = make(1)
    cache = LoraCache(memory, folder, BIG, wait_s=0.05)
    lock = folder / ".cache" / f"{version.sha256}.lock"
    with exclusive(lock, timeout_s=1), pytest.raises(CacheBusy, match="takes too long") as caught:
        ensure(cache, version)
    assert caught.value.retryable


def test_no_descriptor_is_left_open(memory: MemoryStore, folder: Path, make: Make) -> None:
    cache, version = LoraCache(memory, folder, BIG), make(1)
    ensure(cache, version)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only counted
    for number in range(5):
        with cache.lease(version):
            ensure(cache, make(number))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
