"""Many writers, some killed, on real S3 servers: is anything lost? Prints JSON.

    python -m benchmarks.registry_chaos                  64 writers in 8 processes, 10 more killed
    python -m benchmarks.registry_chaos --stores unconditional --writers 16

Three kinds of store: one that enforces write conditions (SeaweedFS), one that ignores them
without a word (nanio, as Supabase does), one that answers 501 (as Backblaze B2 does). Whatever
`add_version` acknowledged must be there in the end, no record may point at nothing, and what a
killed writer was at must be absent, or whole and listed. It is then done again with the same
job id, and must end in exactly one version. The exit status is 1 when anything of this does not
hold.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.registry_writer import (
    CountedStore,
    Order,
    as_json,
    character_of,
    open_store,
    write,
)
from local.s3 import S3Server
from local.unconditional_s3 import UnconditionalS3Server
from lora_registry.conditions import Conditions
from lora_registry.listing import all_character_ids
from lora_registry.registry import Registry
from lora_registry.verification import Verification
from worker.storage import ObjectStore, StorageOptions

STORES: Final = ("enforcing", "unconditional", "refusing")
_ALONE: Final = 5
_LONGEST_S: Final = 540.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it: `writers` in `processes`, and `killed` more in a process each.

    `life_ms`: the longest that one of these lives after its first acknowledgement.
    """

    writers: int = 64
    processes: int = 8
    killed: int = 10
    characters: int = 8
    versions: int = 4
    life_ms: int = 2000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one process said before it ended."""

    begun: tuple[str, ...]
    done: dict[str, str]
    requests: int | None

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Jobs begun and not acknowledged."""
        return tuple(job for job in self.begun if job not in self.done)


def chaos(options: StorageOptions, plan: Plan, *, refusing: bool = False) -> dict[str, Any]:
    """Let the writers loose on an empty place in a bucket; answers what came of it."""
    with open_store(asdict(options), refusing=refusing) as store:
        enforced = Conditions(store).enforced  # probed before, as in a bucket that is in use
        alone = _uncontended(store)
        started = time.monotonic()
        survivors, victims = _let_loose(options, plan, refusing=refusing)
        took = time.monotonic() - started
        found = _look(store)
        after = {"problems_after_kills": found.problems}
        outcomes = _judge(store, plan, survivors, victims, found.versions)
        requests = [outcome.requests or 0 for outcome in survivors]
        writes = sum(len(outcome.done) for outcome in survivors)
        return {
            "conditions": "enforced" if enforced else "not enforced",
            **asdict(plan),
            **outcomes,
            **after,
            "seconds": round(took, 1),
            "requests_per_write_alone": alone,
            "requests_per_write_contended": round(sum(requests) / writes, 2),
        }


@dataclass(frozen=True, slots=True)
class _Found:
    """What is in the bucket: the version of each job, and what `verify` complains of."""

    versions: dict[str, list[str]]
    problems: int


def _uncontended(store: CountedStore) -> float:
    """HTTP requests for a version that nobody else interferes with, in a process that is warm."""
    registry = Registry(store)
    with tempfile.TemporaryDirectory(prefix="alone-") as folder:
        write(registry, "alone-first", 1, Path(folder))
        before = store.requests
        for number in range(_ALONE):
            write(registry, f"alone-{number}", 1, Path(folder))
    return (store.requests - before) / _ALONE


def _let_loose(
    options: StorageOptions, plan: Plan, *, refusing: bool
) -> tuple[list[Outcome], list[Outcome]]:
    def order(name: str, writers: int, versions: int) -> Order:
        return Order(asdict(options), refusing, name, writers, versions, plan.characters)

    each = plan.writers // plan.processes
    surviving = [order(f"s{number}", each, plan.versions) for number in range(plan.processes)]
    doomed = [order(f"k{number}", 1, 10_000) for number in range(plan.killed)]
    deaths = np.random.default_rng(plan.seed).uniform(0.0, plan.life_ms / 1000, len(doomed))
    with ThreadPoolExecutor(len(surviving) + len(doomed)) as watchers:
        survivors = [watchers.submit(_process, each) for each in surviving]
        victims = [
            watchers.submit(_process, each, dies_after_s=float(death))
            for each, death in zip(doomed, deaths, strict=True)
        ]
        return [each.result() for each in survivors], [each.result() for each in victims]


def _process(order: Order, *, dies_after_s: float | None = None) -> Outcome:
    """Run one process of writers; killed so long after its first acknowledgement."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.registry_writer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(as_json(order))
        process.stdin.close()
        end = threading.Timer(_LONGEST_S, process.kill)
        end.start()
        lines: list[dict[str, Any]] = []
        for line in process.stdout:
            lines.append(json.loads(line))
            if dies_after_s is not None and "done" in lines[-1]:
                end.cancel()
                end = threading.Timer(dies_after_s, process.kill)
                end.start()
                dies_after_s = None
        end.cancel()
    return _outcome(lines)


def _outcome(lines: list[dict[str, Any]]) -> Outcome:
    begun = tuple(line["begun"] for line in lines if "begun" in line)
    done = {line["done"]: line["version"] for line in lines if "done" in line}
    requests = next((line["requests"] for line in lines if "requests" in line), None)
    return Outcome(begun, done, requests)


def _look(store: ObjectStore) -> _Found:
    versions: dict[str, list[str]] = {}
    registry = Registry(store)
    for character_id in all_character_ids(store):
        for version in registry.versions(character_id):
            versions.setdefault(version.job_id, []).append(version.id)
    problems = sum(
        finding.problem for checked in Verification(store).run() for finding in checked.findings
    )
    return _Found(versions, problems)


def _judge(
    store: ObjectStore,
    plan: Plan,
    survivors: list[Outcome],
    victims: list[Outcome],
    versions: dict[str, list[str]],
) -> dict[str, Any]:
    done = {job: version for each in (*survivors, *victims) for job, version in each.done.items()}
    lost = [job for job, version in done.items() if versions.get(job) != [version]]
    unfinished = [job for each in victims for job in each.unfinished]
    fates = Counter(_fate(store, job, plan, versions) for job in unfinished)
    with tempfile.TemporaryDirectory(prefix="again-") as folder:
        for job in unfinished:
            write(Registry(store), job, plan.characters, Path(folder))
    again = _look(store)
    return {
        "acknowledged": len(done),
        "lost": len(lost),
        "unacknowledged_by_survivors": sum(len(each.unfinished) for each in survivors),
        "killed_while_writing": len(unfinished),
        "their_work": dict(fates),
        "retried_not_exactly_once": sum(len(again.versions[job]) != 1 for job in unfinished),
        "versions": sum(map(len, again.versions.values())),
        "problems": again.problems,
    }


def _fate(store: ObjectStore, job: str, plan: Plan, versions: dict[str, list[str]]) -> str:
    if job not in versions:
        return "absent"
    record = Registry(store).get(character_of(job, plan.characters))
    active = record.active is not None and [record.active.id] == versions[job]
    return "listed and active" if active else "listed"


def sound(result: dict[str, Any]) -> bool:
    """Whether nothing was lost, doubled or left dangling."""
    zeros = ("lost", "unacknowledged_by_survivors", "retried_not_exactly_once")
    return not any(result[name] for name in (*zeros, "problems", "problems_after_kills"))


@contextlib.contextmanager
def serving(kind: str) -> Iterator[StorageOptions]:
    """A server of one of the `STORES`."""
    server = UnconditionalS3Server() if kind == "unconditional" else S3Server()
    with server:
        yield server.options(prefix=f"chaos-{kind}")


def main() -> int:
    """Run the plan on each kind of store."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    for name, default in asdict(Plan()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    words = vars(parser.parse_args())
    stores = words.pop("stores")
    failed = False
    for kind in stores:
        with serving(kind) as options:
            result = chaos(options, Plan(**words), refusing=kind == "refusing")
        print(json.dumps({"store": kind, "sound": sound(result), **result}), flush=True)
        failed = failed or not sound(result)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
