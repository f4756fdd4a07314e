"""One cache folder, several processes, a real S3 server."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from local.faults import FaultProxy, Rule
from local.s3 import S3Server
from lora_registry.cache import LoraCache
from lora_registry.character import UsableVersion
from lora_registry.errors import LoraCorrupt
from lora_registry.registry import Registry
from tests.loras import ensure, new_version, write_lora
from worker.storage import ObjectStore

# Another process of the same machine: takes a lease, says so, keeps it until its input ends.
_HOLDER = """
import json, sys
from pathlib import Path
from lora_registry.cache import LoraCache
from lora_registry.character import UsableVersion
from worker.storage import ObjectStore, StorageOptions

order = json.loads(sys.stdin.readline())
with ObjectStore(StorageOptions(**order["options"])) as store:
    cache = LoraCache(store, Path(order["folder"]), order["budget"])
    with cache.lease(UsableVersion(**order["version"])) as path:
        print(path.stat().st_size, flush=True)
        sys.stdin.readline()
"""


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3.endpoint_url) as opened:
        yield opened


@pytest.fixture
def versions(store: ObjectStore, tmp_path: Path) -> list[UsableVersion]:
    registry = Registry(store)
    for number in range(2):
        file = write_lora(tmp_path / "made", seed=number, rank=64)
        registry.add_version(new_version(file, f"c{number}"))
    return [registry.resolve(f"c{number}") for number in range(2)]


@contextmanager
def holder(
    store: ObjectStore, folder: Path, version: UsableVersion, *, budget: int = 10**9, url: str = ""
) -> Iterator["subprocess.Popen[str]"]:
    options: dict[str, Any] = asdict(store.options)
    if url:
        options["endpoint_url"] = url
    order = {
        "options": options,
        "folder": str(folder),
        "version": asdict(version),
        "budget": budget,
    }
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(f"{json.dumps(order)}\n")
            process.stdin.flush()
            yield process
        finally:
            process.kill()


def holds(process: "subprocess.Popen[str]") -> int:
    """Waits until the process has its lease; answers the file's size."""
    assert process.stdout is not None
    return int(process.stdout.readline())


@pytest.mark.process
def test_one_download_for_all_processes(
    store: ObjectStore, proxy: FaultProxy, versions: list[UsableVersion], tmp_path: Path
) -> None:
    version, folder = versions[0], tmp_path / "loras"
    proxy.add(Rule("delay", method="GET", path="loras", times=1, seconds=1.0))
    with (
        holder(store, folder, version, url=proxy.url) as one,
        holder(store, folder, version, url=proxy.url) as other,
    ):
        assert holds(one) == holds(other) == version.size
    fetched = [path for method, path in proxy.requests if method == "GET" and "loras" in path]
    assert len(fetched) == 1


@pytest.mark.process
def test_a_file_that_another_process_uses_is_not_evicted(
    store: ObjectStore, versions: list[UsableVersion], tmp_path: Path
) -> None:
    used, wanted = versions
    folder = tmp_path / "loras"
    cache = LoraCache(store, folder, wanted.size)
    with holder(store, folder, used) as process:
        holds(process)
        ensure(cache, wanted)
        assert (folder / f"{used.sha256}.safetensors").exists()
    (folder / f"{wanted.sha256}.safetensors").unlink()
    ensure(cache, wanted)  # the other process is gone, and its lease with it
    assert not (folder / f"{used.sha256}.safetensors").exists()


@pytest.mark.process
def test_a_process_killed_while_downloading_leaves_nothing_and_blocks_nobody(
    store: ObjectStore, proxy: FaultProxy, versions: list[UsableVersion], tmp_path: Path
) -> None:
    version, folder = versions[0], tmp_path / "loras"
    proxy.add(Rule("hang", method="GET", path="loras", times=1, seconds=60))
    with holder(store, folder, version, url=proxy.url) as process:
        ends = time.monotonic() + 30
        while not proxy.requests or "loras" not in proxy.requests[-1][1]:
            assert process.poll() is None
            assert time.monotonic() < ends
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert not list(folder.glob("*.safetensors"))
    with LoraCache(store, folder, 10**9).lease(version) as path:
        assert path.stat().st_size == version.size
    assert not list((folder / ".cache" / "parts").iterdir())


def test_bytes_that_arrive_wrong_are_refused(
    s3: S3Server,
    store: ObjectStore,
    proxy: FaultProxy,
    versions: list[UsableVersion],
    tmp_path: Path,
) -> None:
    proxy.add(Rule("corrupt_reply", method="GET", path="loras", after=5000))
    options = s3.options(prefix=store.options.prefix, endpoint_url=proxy.url)
    with ObjectStore(options) as proxied:
        cache = LoraCache(proxied, tmp_path / "loras", 10**9)
        with pytest.raises(LoraCorrupt, match="checksum"):
            ensure(cache, versions[0])
        assert not list((tmp_path / "loras").glob("*.safetensors"))
        ensure(cache, versions[0])
