"""One local stack and one worker for every fault test; each test finds the worker well."""

import socket
from collections.abc import Iterator

import pytest

from local.faults import FaultProxy
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
    """A worker of image, video and characters jobs."""
    logs = tmp_path_factory.mktemp("faults")
    tasks = "image,video,characters,health"
    with (
        FaultProxy(stack.s3.endpoint_url) as proxy,
        worker_rig(stack, proxy, logs, free_port(), WORKER_TASKS=tasks) as rig,
    ):
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
