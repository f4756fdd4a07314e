"""One local stack and one worker for every fault test; each test finds the worker well."""

import socket
from collections.abc import Iterator

import pytest

from local.platform.jobs import Policy
from local.registering import register_characters
from local.stack import Stack
from tests.integration.faults.rig import Rig, worker_rig


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with Stack() as opened:
        register_characters(opened, ["demo"])
        yield opened


@pytest.fixture(scope="session")
def worker(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A worker of image, video and characters jobs; its executionTimeout is 20 s."""
    logs = tmp_path_factory.mktemp("faults")
    policy = Policy(execution_timeout_s=20)
    tasks = {"WORKER_TASKS": "image,video,characters,health"}
    with worker_rig(stack, logs, free_port(), policy, **tasks) as rig:
        yield rig


@pytest.fixture
def rig(worker: Rig) -> Iterator[Rig]:
    """The worker, well, whatever the test before did to it; what a test armed must happen."""
    worker.make_well()
    yield worker
    assert worker.armed() == {}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
