"""A real S3 server for the whole session, and an empty place in it for each test."""

import uuid
from collections.abc import Iterator

import pytest

from local.s3 import S3Server
from tests.integration.worker_harness import WorkerHarness, copied_workflows, settings_for
from worker.service import Worker
from worker.storage import ObjectStore


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def store(s3: S3Server) -> Iterator[ObjectStore]:
    with ObjectStore(s3.options(prefix=f"test-{uuid.uuid4().hex}")) as opened:
        yield opened


@pytest.fixture(scope="session")
def open_harness(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerHarness]:
    """One worker for all tests of the branches; ComfyUI's start is paid once."""
    folder = tmp_path_factory.mktemp("harness")
    workflows = copied_workflows(folder)
    settings = settings_for(s3, folder, WORKFLOWS_DIR=str(workflows))
    with Worker(settings) as worker:
        worker.wait_ready()
        yield WorkerHarness(worker, folder)


@pytest.fixture
def harness(open_harness: WorkerHarness) -> Iterator[WorkerHarness]:
    """That worker without faults; whatever a test does must leave no file behind."""
    open_harness.no_faults()
    yield open_harness
    open_harness.no_faults()
    assert open_harness.leftovers() == []
