"""A worker whose whole disk is 28 MB: a LoRA cache that fills it, and room made when needed."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from local.registering import register_characters
from local.stack import Stack
from tests.integration.faults.platform_harness import HANDLER, PlatformHarness, open_platform

DISK = "28m"
MOUNT = f'mkdir -p "$WORK_DIR" && mount -t tmpfs -o size={DISK} none "$WORK_DIR" && exec "$@"'
OWN_DISK = ("unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh")


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not may_mount(), reason="needs a mount namespace (unshare)"),
]


@pytest.fixture(scope="module")
def small(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformHarness]:
    names = [f"small-{number}" for number in range(8)]
    register_characters(stack, names)  # 5.4 MB each
    register_characters(stack, ["large"], rank=6)  # 32 MB: never fits
    logs = tmp_path_factory.mktemp("disk")
    # A budget beyond the disk (the default is a share of it): the disk itself is what runs full.
    settings = {"WORKER_TASKS": "image,health", "LORA_CACHE_BYTES": str(20 * 10**9)}
    with open_platform(stack, logs, settings=settings, argv=(*OWN_DISK, *HANDLER)) as harness:
        yield harness


def used(harness: PlatformHarness) -> float:
    """Share of the worker's disk, as the worker sees it."""
    status = os.statvfs(f"/proc/{harness.platform.pid('local-1')}/root{harness.work}")
    return 1 - status.f_bavail / status.f_blocks


def test_characters_beyond_the_disk_push_out_unused_ones(small: PlatformHarness) -> None:
    for number in range(8):
        small.completed(small.image(character_id=f"small-{number}"))
    assert used(small) > 0.5


def test_a_lora_larger_than_the_disk(small: PlatformHarness) -> None:
    output = small.failed(small.image(character_id="large"), "disk_full")
    assert output["retryable"] is True
    small.completed(small.image(character_id="small-0"))


def test_outputs_take_the_room_of_unused_loras(small: PlatformHarness) -> None:
    for number in range(5):
        small.completed(small.image(character_id=f"small-{number}"))
    before = used(small)
    assert before > 0.85
    small.completed(small.image(character_id=None, count=8, width=1024, height=1024))
    assert used(small) < before
