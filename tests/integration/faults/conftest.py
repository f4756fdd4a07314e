"""One local stack and one worker for every fault test; each test finds the worker well."""

from collections.abc import Iterator

import pytest

from local.registering import register_characters
from local.stack import Stack
from tests.integration.faults.platform_harness import PlatformHarness, open_platform


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with Stack() as opened:
        register_characters(opened, ["demo"])
        yield opened


@pytest.fixture(scope="session")
def worker(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformHarness]:
    """A worker of image, video and characters jobs: two at a time."""
    tasks = {"WORKER_TASKS": "image,video,characters,health"}
    with open_platform(stack, tmp_path_factory.mktemp("faults"), settings=tasks) as harness:
        yield harness


@pytest.fixture
def harness(worker: PlatformHarness) -> Iterator[PlatformHarness]:
    """The worker, well, whatever the test before did to it; what a test armed must happen."""
    worker.make_well()
    yield worker
    assert worker.armed() == {}
