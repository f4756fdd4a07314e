"""A real S3 server for the whole session, and an empty place in it for each test."""

import uuid
from collections.abc import Iterator

import pytest

from local.s3 import S3Server
from worker.storage import ObjectStore


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def store(s3: S3Server) -> Iterator[ObjectStore]:
    with ObjectStore(s3.options(prefix=f"test-{uuid.uuid4().hex}")) as opened:
        yield opened
