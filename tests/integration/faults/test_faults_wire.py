"""Hostile inputs all the way: over the platform's API, through the SDK, into the worker."""

from typing import Any

import pytest

from tests.integration.faults.hostile import nested
from tests.integration.faults.platform_harness import PlatformHarness

pytestmark = pytest.mark.process

IMAGE = {"task": "image", "prompt": "x"}


def test_hostile_inputs_are_refused_and_the_worker_goes_on(harness: PlatformHarness) -> None:
    before = harness.platform.pid("local-1")
    inputs: tuple[Any, ...] = (
        "a string",
        [1, 2],
        7,
        {},
        IMAGE | {"prompt": "x" * 9_000_000},
        IMAGE | {"prompt": "\ud800"},
        IMAGE | {"prompt": "\x00"},
        IMAGE | {"seed": 10**300},
        IMAGE | {"params": nested(200)},
        {"task": "\U0001f600" * 2000},
    )
    jobs = [harness.client.run(job_input) for job_input in inputs]
    for job_id in jobs:
        output = harness.failed(job_id, "invalid_input")
        assert output["field"]
        assert harness.objects(job_id) == []
    harness.completed(harness.image(prompt="\U0001f600" * 2000 + " {{}} ../ {trigger}"))
    assert harness.platform.pid("local-1") == before


def test_an_errors_words_are_the_platforms_error(harness: PlatformHarness) -> None:
    status = harness.finished(harness.client.run(IMAGE | {"steps": 101}))
    assert status["error"] == "steps: must be a whole number from 1 to 100."
    assert status["output"]["retryable"] is False
    assert "Traceback" not in str(status)
