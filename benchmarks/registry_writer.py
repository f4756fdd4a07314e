"""The writers of `benchmarks.registry_chaos`: one process, some threads, a line for every step.

    python -m benchmarks.registry_writer < order.json

Lines on standard output: `{"begun": job}`, then `{"done": job, "version": …}` when the registry has
acknowledged, and at the end `{"requests": n}` with the HTTP requests of this process.
"""

import json
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from lora_registry.registry import Registry
from lora_registry.store import ConditionsUnsupported
from tests.loras import new_version, write_lora
from worker.storage import ObjectStore, StorageOptions


@dataclass(frozen=True, slots=True)
class Order:
    """What one process writes: `versions` by each of `writers`, to random `characters`."""

    options: dict[str, Any]
    refusing: bool
    name: str
    writers: int
    versions: int
    characters: int


class CountedStore(ObjectStore):
    """Counts its HTTP requests, retries included."""

    def __init__(self, options: StorageOptions) -> None:
        super().__init__(options)
        self.requests = 0
        self._counting = threading.Lock()
        self._client.meta.events.register("before-send.s3", self._count)

    def _count(self, **_: object) -> None:
        with self._counting:
            self.requests += 1


class RefusingStore(CountedStore):
    """Answers 501 to conditional writes, as Backblaze B2 does."""

    def put_if_absent(self, key: str, body: bytes, content_type: str = "application/json") -> str:
        """Refuse."""
        del body, content_type
        raise ConditionsUnsupported(key)

    def put_if_match(
        self, key: str, body: bytes, etag: str, content_type: str = "application/json"
    ) -> str:
        """Refuse."""
        del body, etag, content_type
        raise ConditionsUnsupported(key)


def open_store(options: dict[str, Any], *, refusing: bool) -> CountedStore:
    """The store that an order names; options as `dataclasses.asdict` gives them."""
    kind = RefusingStore if refusing else CountedStore
    return kind(StorageOptions(**options))


def character_of(job_id: str, characters: int) -> str:
    """Which character a job writes to; a retry finds the same."""
    return f"character-{crc32(job_id.encode()) % characters}"


def write(registry: Registry, job_id: str, characters: int, folder: Path) -> str:
    """Add one version with weights of its own; answers the version's id."""
    weights = write_lora(folder / job_id, seed=crc32(job_id.encode()), context=768)
    new = new_version(weights, character_of(job_id, characters), job_id)
    return registry.add_version(new).id


def run(order: Order, say: Callable[[dict[str, Any]], None]) -> None:
    """Write all that the order asks for."""
    with (
        open_store(order.options, refusing=order.refusing) as store,
        tempfile.TemporaryDirectory(prefix="writer-") as folder,
        ThreadPoolExecutor(order.writers) as writers,
    ):
        registry = Registry(store)

        def writer(number: int) -> None:
            for version in range(order.versions):
                job_id = f"{order.name}-{number}-{version}"
                say({"begun": job_id})
                written = write(registry, job_id, order.characters, Path(folder))
                say({"done": job_id, "version": written})

        list(writers.map(writer, range(order.writers)))
        say({"requests": store.requests})


def main() -> None:
    """Read the order, write, and say so line by line."""
    order = Order(**json.load(sys.stdin))
    lock = threading.Lock()

    def say(line: dict[str, Any]) -> None:
        with lock:
            sys.stdout.write(f"{json.dumps(line)}\n")
            sys.stdout.flush()

    run(order, say)


def as_json(order: Order) -> str:
    """The order as `main` reads it."""
    return json.dumps(asdict(order))


if __name__ == "__main__":
    main()
