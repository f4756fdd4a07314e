"""The bucket misbehaves under whole jobs: retried within the deadline, or `storage_unavailable`.

The worker is in this process and reaches a real S3 server by a proxy that fails on demand; the
SDK adds nothing to these faults.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from local.faults import FaultProxy, Rule
from local.s3 import S3Server
from lora_registry.cache import LoraCache
from lora_registry.character import UsableVersion
from tests.integration.worker_harness import WorkerHarness, fetched, settings_for
from tests.loras import new_version, write_lora
from worker.service import Worker

pytestmark = pytest.mark.process

SMALL = {"task": "image", "prompt": "a lighthouse", "width": 256, "height": 256, "steps": 2}
FOR_EVER = 1000
LASTING = {
    "InternalError": (500, "bucket"),
    "SlowDown": (503, "fewer requests"),
    "ExpiredToken": (400, "expired"),
    "RequestTimeTooSkewed": (403, "clock"),
    "NoSuchBucket": (404, "S3_BUCKET"),
}
REFUSED = {"ExpiredToken", "RequestTimeTooSkewed", "NoSuchBucket"}  # trying again cannot help


@pytest.fixture(scope="module")
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3.endpoint_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def open_harness(
    s3: S3Server, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerHarness]:
    folder = tmp_path_factory.mktemp("storage-faults")
    with Worker(settings_for(s3, folder, S3_ENDPOINT_URL=proxy.url)) as worker:
        worker.wait_ready()
        yield WorkerHarness(worker, folder)


@pytest.fixture
def harness(open_harness: WorkerHarness, proxy: FaultProxy) -> Iterator[WorkerHarness]:
    """A worker with a well bucket, before and after; no test may leave a file."""
    yield open_harness
    proxy.clear()
    assert open_harness.leftovers() == []
    assert "outputs" in open_harness.run(SMALL)


def character(harness: WorkerHarness, name: str) -> str:
    """Register a character with a small LoRA that is nobody else's; the key of its weights."""
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    path = write_lora(harness.folder / f"{name}.safetensors", seed=seed)
    registry = harness.resources.registry
    registry.add_version(new_version(path, name, f"register-{name}"))
    return registry.resolve(name).key


def delivered(result: dict[str, Any]) -> None:
    """Every output is there, as large and with the checksum that the result says."""
    assert "outputs" in result, result
    for output in result["outputs"]:
        body = fetched(output["url"])
        assert len(body) == output["bytes"]
        assert hashlib.sha256(body).hexdigest() == output["sha256"]


@pytest.mark.parametrize(
    "rule",
    [
        Rule("error", "PUT", "outputs/", times=2, status=500),
        Rule("error", "PUT", "outputs/", times=2, status=503, code="SlowDown"),
        Rule("reset", "PUT", "outputs/", times=2),
        Rule("cut_upload", "PUT", "outputs/", times=2, after=1000),
        Rule("lose_reply", "PUT", "outputs/", times=2),
        Rule("error", "GET", "/loras/", times=2, status=503, code="SlowDown"),
        Rule("reset", "GET", "/loras/", times=2),
        Rule("cut_reply", "GET", "/loras/", times=2, after=1000),
        Rule("error", "GET", "character.json", times=2, status=500),
        Rule("reset", "GET", "character.json", times=2),
    ],
    ids=lambda rule: f"{rule.fault}-{rule.method}-{rule.path.strip('/')}-{rule.status}",
)
def test_a_passing_fault_costs_time_only(
    harness: WorkerHarness, proxy: FaultProxy, rule: Rule
) -> None:
    name = f"passing-{rule.fault}-{rule.method}-{rule.status}".lower().replace("_", "-")
    character(harness, f"{name}-{len(rule.path)}")
    rule = proxy.add(dataclasses.replace(rule))
    delivered(harness.run(SMALL | {"character_id": f"{name}-{len(rule.path)}"}))
    assert rule.hits == 2


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        *(("PUT", "outputs/", code) for code in LASTING),
        *(("GET", "/loras/", code) for code in ("InternalError", "ExpiredToken")),
        *(("GET", "character.json", code) for code in ("SlowDown", "NoSuchBucket")),
    ],
)
def test_a_lasting_fault_says_whether_trying_again_helps(
    harness: WorkerHarness, proxy: FaultProxy, method: str, path: str, code: str
) -> None:
    status, remedy = LASTING[code]
    name = f"lasting-{method}-{code}-{len(path)}".lower()
    character(harness, name)
    proxy.add(Rule("error", method, path, times=FOR_EVER, status=status, code=code))
    result = harness.run(SMALL | {"character_id": name}, job_id=name)
    assert result["code"] == f"storage_{'refused' if code in REFUSED else 'unavailable'}", result
    assert result["retryable"] is (code not in REFUSED)
    assert remedy in result["error"]
    proxy.clear()
    assert [key for key in harness.keys("") if f"/{name}/" in key and "outputs" in key] == []


def test_a_bucket_that_never_answers(harness: WorkerHarness, proxy: FaultProxy) -> None:
    character(harness, "silent")
    for path in ("outputs/", "/loras/"):
        proxy.add(Rule("reset", "", path, times=FOR_EVER))
    started = time.monotonic()
    result = harness.run(SMALL | {"character_id": "silent"})
    assert (result["code"], result["retryable"]) == ("storage_unavailable", True)
    assert time.monotonic() - started < 35


@pytest.mark.parametrize("change", ["truncated", "swapped", "not a lora", "empty"])
def test_a_lora_that_is_not_what_was_registered(harness: WorkerHarness, change: str) -> None:
    name = change.replace(" ", "-")
    key = character(harness, name)
    whole = harness.resources.store.get(key).body
    other = write_lora(harness.folder / "other.safetensors", seed=99).read_bytes()
    bodies = {"truncated": whole[:-1000], "swapped": other, "not a lora": b"x" * len(whole)}
    harness.put(key, bodies.get(change, b""), "application/octet-stream")
    before = harness.prompts_run()
    assert harness.run(SMALL | {"character_id": name})["code"] == "lora_corrupt"
    assert harness.prompts_run() == before


def test_a_lora_damaged_on_its_way(harness: WorkerHarness, proxy: FaultProxy) -> None:
    character(harness, "damaged")
    proxy.add(Rule("corrupt_reply", "GET", "/loras/", after=500))
    before = harness.prompts_run()
    assert harness.run(SMALL | {"character_id": "damaged"})["code"] == "lora_corrupt"
    assert harness.prompts_run() == before
    delivered(harness.run(SMALL | {"character_id": "damaged"}))


def test_a_lora_deleted_between_head_and_download(
    harness: WorkerHarness, proxy: FaultProxy
) -> None:
    key = character(harness, "deleted")
    held = proxy.add(Rule("delay", "GET", "/loras/", seconds=1.0))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(harness.run, SMALL | {"character_id": "deleted"})
        while held.hits == 0:
            time.sleep(0.01)
        harness.resources.store.delete(key)
        result = running.result(30)
    assert result["code"] == "version_not_found", result


def test_two_jobs_for_one_lora_download_it_once(harness: WorkerHarness, proxy: FaultProxy) -> None:
    key = character(harness, "shared")
    proxy.clear()
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(harness.run, SMALL | {"character_id": "shared"}) for _ in range(2)]
    for job in jobs:
        delivered(job.result())
    name = key.rsplit("/", 1)[1]
    assert sum(method == "GET" and name in path for method, path in proxy.requests) == 1


def weights_in_bucket(harness: WorkerHarness, number: int) -> UsableVersion:
    body = write_lora(harness.folder / f"crowd-{number}.safetensors", seed=number).read_bytes()
    digest = hashlib.sha256(body).hexdigest()
    harness.put(f"characters/crowd-{number}/loras/{digest}", body, "application/octet-stream")
    key = f"characters/crowd-{number}/loras/{digest}"
    return UsableVersion(
        character_id=f"crowd-{number}",
        name="Crowd",
        trigger="ohwx",
        class_noun="person",
        base_model="sdxl",
        version="v1",
        key=key,
        sha256=digest,
        size=len(body),
        rank=4,
        strength=1.0,
    )


def test_two_hundred_characters_over_a_cache_of_ten(
    harness: WorkerHarness, proxy: FaultProxy
) -> None:
    with ThreadPoolExecutor(8) as pool:
        crowd = list(pool.map(lambda number: weights_in_bucket(harness, number), range(200)))
        folder = harness.folder / "small-cache"
        cache = LoraCache(harness.resources.store, folder, 10 * crowd[0].size)

        def use(weights: UsableVersion) -> None:
            with cache.lease(weights) as path:
                assert hashlib.sha256(path.read_bytes()).hexdigest() == weights.sha256
                time.sleep(0.002)  # in use while others make room for theirs
                assert hashlib.sha256(path.read_bytes()).hexdigest() == weights.sha256

        proxy.clear()
        list(pool.map(use, [weights for each in crowd for weights in (each, each)]))
    downloads = [path for method, path in proxy.requests if method == "GET" and "/loras/" in path]
    assert len(downloads) == 200
    assert len(list(folder.glob("*.safetensors"))) <= 10


def test_a_full_disk_at_comfyuis_output(harness: WorkerHarness) -> None:
    character(harness, "unused")
    delivered(harness.run(SMALL | {"character_id": "unused"}))
    harness.faults(disk_full=True)
    delivered(harness.run(SMALL))  # in the room of the unused LoRA
    harness.faults(disk_full=True)
    result = harness.run(SMALL)  # nothing is left to give back
    assert (result["code"], result["retryable"]) == ("disk_full", True)
    delivered(harness.run(SMALL))


def test_a_result_never_shows_this_machine(harness: WorkerHarness, proxy: FaultProxy) -> None:
    proxy.add(Rule("error", "PUT", "outputs/", times=FOR_EVER, status=500))
    shown = json.dumps(harness.run(SMALL))
    for secret in (str(Path.cwd()), str(harness.folder), "Traceback", "site-packages"):
        assert secret not in shown
