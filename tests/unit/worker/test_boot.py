import logging
import time

import pytest

from worker.boot import Boot, process_age_ms


def test_the_timeline_counts_from_the_processs_birth(caplog: pytest.LogCaptureFixture) -> None:
    boot = Boot()
    with boot.phase("comfyui"):
        time.sleep(0.02)
    with caplog.at_level(logging.INFO, "worker.boot"):
        boot.finish()
    (record,) = caplog.records
    fields = vars(record)
    assert record.message == "boot"
    assert fields["phases_ms"]["comfyui"] >= 20
    assert fields["total_ms"] >= fields["phases_ms"]["interpreter_and_imports"]


def test_a_process_grows_older() -> None:
    first = process_age_ms()
    time.sleep(0.03)
    assert process_age_ms() - first >= 20
