"""Hostile inputs all the way: over the platform's API, through the SDK, into the worker."""

from typing import Any

import pytest

from tests.integration.faults.hostile import nested
from tests.integration.faults.rig import Rig

pytestmark = pytest.mark.process

IMAGE = {"task": "image", "prompt": "x"}


def test_hostile_inputs_are_refused_and_the_worker_goes_on(rig: Rig) -> None:
    before = rig.platform.pid("local-1")
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
    jobs = [rig.client.run(job_input) for job_input in inputs]
    for job_id in jobs:
        output = rig.failed(job_id, "invalid_input")
        assert output["field"]
        assert rig.objects(job_id) == []
    rig.completed(rig.image(prompt="\U0001f600" * 2000 + " {{}} ../ {trigger}"))
    assert rig.platform.pid("local-1") == before


def test_an_errors_words_are_the_platforms_error(rig: Rig) -> None:
    status = rig.finished(rig.client.run(IMAGE | {"steps": 101}))
    assert status["error"] == "steps: must be a whole number from 1 to 100."
    assert status["output"]["retryable"] is False
    assert "Traceback" not in str(status)
