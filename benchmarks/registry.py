"""The registry and the LoRA cache at scale, against a real S3 server on loopback; prints JSON.

    python -m benchmarks.registry [--characters 20000] [--lora-mb 200]

Limits: a page of 50 with names <= 0.3 s in both orders, `get` as fast as in a small bucket, memory
flat while listing all, one request (304) for a warm generation job, a cache hit <= 1 ms, a cache
miss at >= 90 % of what tuned boto3 reaches alone.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.registry_writer import CountedStore, open_store
from benchmarks.tuned_boto3 import tuned_boto3
from local.lora_file import write_demo_lora
from local.s3 import S3Server
from lora_registry.cache import LoraCache
from lora_registry.changes import activated, first_record, stamped
from lora_registry.character import CharacterRecord, UsableVersion
from lora_registry.layout import newest_key, record_key, version_key
from lora_registry.listing import Order
from lora_registry.registry import Registry
from lora_registry.tensorfile import sha256_of
from lora_registry.versions import NewVersion
from tests.loras import ensure, new_version, write_lora

_MB: Final = 1_000_000
_PAGE: Final = 50
_KEPT_PAGES: Final = 5


def main() -> None:
    """Measure all and print one document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--characters", type=int, default=20_000)
    parser.add_argument("--lora-mb", type=int, default=200)
    parser.add_argument("--runs", type=int, default=5)
    words = parser.parse_args()
    with S3Server() as server, tempfile.TemporaryDirectory(prefix="harness-registry-") as scratch:
        folder = Path(scratch)
        with open_store(asdict(server.options(prefix="scale")), refusing=False) as store:
            scale = measure_scale(store, folder, words.characters, words.runs)
        with open_store(asdict(server.options(prefix="cache")), refusing=False) as store:
            cache = measure_cache(store, server, folder, words.lora_mb, words.runs)
    print(json.dumps({"scale": scale, "cache": cache}, indent=1))


def measure_scale(store: CountedStore, folder: Path, characters: int, runs: int) -> dict[str, Any]:
    """Pages, reads and memory with so many characters in the bucket."""
    registry = Registry(store)
    weights = write_lora(folder / "lora.safetensors")
    registry.add_version(new_version(weights, "c000000"))
    small = _milliseconds(lambda: Registry(store).get("c000000"), runs)
    started = time.monotonic()
    _populate(store, registry.get("c000000"), characters)
    populated = time.monotonic() - started
    return {
        "characters": characters,
        "populated_s": round(populated, 1),
        **{f"page_of_50_by_{order}_ms": _page_ms(registry, order, runs) for order in _ORDERS},
        "get_cold_in_a_small_bucket_ms": small,
        "get_cold_ms": _milliseconds(lambda: Registry(store).get("c000000"), runs),
        "get_warm_ms": _milliseconds(lambda: registry.get("c000000"), runs),
        "requests_of_a_warm_job": _requests(store, lambda: registry.resolve("c000000")),
        "requests_of_a_page": _requests(store, lambda: registry.list(limit=_PAGE)),
        **_list_all(registry),
    }


_ORDERS: Final[tuple[Order, ...]] = ("id", "newest")


def _populate(store: CountedStore, model: CharacterRecord, characters: int) -> None:
    """What so many registrations would have left, but for the weights, which all share."""
    [version] = Registry(store).versions(model.character_id)

    def place(number: int) -> None:
        character_id = f"c{number:06d}"
        copied = version.model_copy(update={"character_id": character_id})
        record = activated(first_record(copied, name=f"Character {number}"), copied)
        record = stamped(record, "benchmark", record.created_at)
        store.put(version_key(character_id, copied.id), copied.to_json())
        store.put(newest_key(character_id, record.created_at), b"")
        store.put(record_key(character_id), record.to_json())

    with ThreadPoolExecutor(16) as writers:
        list(writers.map(place, range(1, characters)))


def _page_ms(registry: Registry, order: Order, runs: int) -> dict[str, float]:
    """The first page, and one in the middle of nowhere."""
    cursor = registry.list(order=order, limit=1000).cursor
    return {
        "first": _milliseconds(lambda: registry.list(order=order, limit=_PAGE), runs),
        "later": _milliseconds(
            lambda: registry.list(order=order, limit=_PAGE, cursor=cursor), runs
        ),
    }


def _list_all(registry: Registry) -> dict[str, Any]:
    """Everything, page by page; memory after a few pages and at the end."""
    cursor, pages, characters = None, 0, 0
    early = 0.0
    started = time.monotonic()
    while True:
        page = registry.list(limit=200, cursor=cursor)
        pages, characters = pages + 1, characters + len(page.characters)
        if pages == _KEPT_PAGES:
            early = _rss_mb()
        cursor = page.cursor
        if cursor is None:
            break
    return {
        "listed": characters,
        "list_all_s": round(time.monotonic() - started, 1),
        "rss_after_5_pages_mb": early,
        "rss_after_all_mb": _rss_mb(),
    }


def measure_cache(
    store: CountedStore, server: S3Server, folder: Path, megabytes: int, runs: int
) -> dict[str, Any]:
    """A miss against boto3 alone, and a hit."""
    file = folder / "large.safetensors"
    rank = max(1, round(megabytes / 5.4))
    write_demo_lora(file, rank=rank)
    registry = Registry(store)
    registry.add_version(NewVersion("large", "benchmark", file, "sdxl", "kohya", rank, "ohwx"))
    version = registry.resolve("large")
    size_mb = version.size / _MB
    boto, stored, misses = [], [], []
    for _ in range(runs):  # in turns, so that what else the machine does hits all alike
        boto.append(_boto3_s(server, f"cache/{version.key}", folder / "boto3"))
        stored.append(_download_s(store, version, folder / "download"))
        shutil.rmtree(folder / "cache", ignore_errors=True)
        misses.append(_miss_s(store, folder / "cache", version))
    cache = LoraCache(store, folder / "cache", 10**12)
    started = time.perf_counter()
    sha256_of(file)
    return {
        "lora_mb": round(size_mb, 1),
        "boto3_mb_s": round(size_mb / median(boto), 1),
        "download_mb_s": round(size_mb / median(stored), 1),
        "miss_mb_s": round(size_mb / median(misses), 1),
        "sha256_mb_s": round(size_mb / (time.perf_counter() - started), 1),
        "miss_of_boto3": round(median(boto) / median(misses), 2),
        "hit_ms": _milliseconds(lambda: ensure(cache, version), 100),
    }


def _boto3_s(server: S3Server, key: str, path: Path) -> float:
    """A download by tuned boto3, in seconds."""
    download = tuned_boto3(server.options())
    started = time.perf_counter()
    download(key, path)
    took = time.perf_counter() - started
    path.unlink()
    return took


def _miss_s(store: CountedStore, folder: Path, version: UsableVersion) -> float:
    cache = LoraCache(store, folder, 10**12)
    started = time.perf_counter()
    ensure(cache, version)
    return time.perf_counter() - started


def _download_s(store: CountedStore, version: UsableVersion, path: Path) -> float:
    started = time.perf_counter()
    store.download(version.key, path)
    took = time.perf_counter() - started
    path.unlink()
    return took


def _milliseconds(action: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        action()
        times.append((time.perf_counter() - started) * 1000)
    return round(median(times), 3)


def _requests(store: CountedStore, action: Callable[[], object]) -> int:
    before = store.requests
    action()
    return store.requests - before


def _rss_mb() -> float:
    """Resident memory now, from /proc; the peak (`ru_maxrss`) could not show that it stays flat."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / _MB, 1)


if __name__ == "__main__":
    main()
