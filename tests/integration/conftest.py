"""A real S3 server for the whole session, and an empty place in it for each test."""

from collections.abc import Iterator

import pytest

from local.s3 import S3Server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server
