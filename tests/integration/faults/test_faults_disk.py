"""A worker whose whole disk is 28 MB: a LoRA cache that fills it, and room made when needed."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from local.registering import register_characters
from local.stack import Stack
from tests.integration.faults.rig import HANDLER, Rig, worker_rig

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
def small(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    names = [f"small-{number}" for number in range(8)]
    register_characters(stack, names)  # 5.4 MB each
    register_characters(stack, ["large"], rank=6)  # 32 MB: never fits
    logs = tmp_path_factory.mktemp("disk")
    tasks = {"WORKER_TASKS": "image,health"}
    with worker_rig(stack, logs, settings=tasks, argv=(*OWN_DISK, *HANDLER)) as rig:
        yield rig


def used(rig: Rig) -> float:
    """Share of the worker's disk, as the worker sees it."""
    status = os.statvfs(f"/proc/{rig.platform.pid('local-1')}/root{rig.work}")
    return 1 - status.f_bavail / status.f_blocks


def test_characters_beyond_the_disk_push_out_unused_ones(small: Rig) -> None:
    for number in range(8):
        small.completed(small.image(character_id=f"small-{number}"))
    assert used(small) > 0.5


def test_a_lora_larger_than_the_disk(small: Rig) -> None:
    output = small.failed(small.image(character_id="large"), "disk_full")
    assert output["retryable"] is True
    small.completed(small.image(character_id="small-0"))


def test_outputs_take_the_room_of_unused_loras(small: Rig) -> None:
    for number in range(5):
        small.completed(small.image(character_id=f"small-{number}"))
    before = used(small)
    assert before > 0.85
    small.completed(small.image(character_id=None, count=8, width=1024, height=1024))
    assert used(small) < before
