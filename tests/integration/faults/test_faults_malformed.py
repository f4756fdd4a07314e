"""Ten thousand jobs that are wrong, and hostile values: each gets a code, none hurts the worker."""

import contextlib
import gc
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.s3 import S3Server
from tests.integration.faults.hostile import CONTAINERS, SCALARS, VALID, mutants, nested
from tests.integration.worker_harness import WorkerHarness, check_result, settings_for
from worker.cancel import CancelToken
from worker.contract import parse_job
from worker.errors import InvalidInput
from worker.service import Worker

pytestmark = pytest.mark.process

MALFORMED: Final = 10_000
OURS: Final = re.compile(r"Traceback|site-packages|File \"|pydantic|\.py\b")

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
fields = st.sampled_from(sorted({name for job in VALID for name in job}))


@pytest.fixture(scope="module")
def harness(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerHarness]:
    folder = tmp_path_factory.mktemp("malformed")
    with Worker(settings_for(s3, folder, LOG_LEVEL="ERROR")) as worker:
        worker.wait_ready()
        yield WorkerHarness(worker, folder)


def refused(harness: WorkerHarness, raw: Any) -> dict[str, Any]:
    """Run one job; whatever it is, the answer is whole and shows nothing of ours."""
    result = harness.worker.run("malformed", raw, cancel=CancelToken(), send=lambda _update: None)
    text = json.dumps(result)
    assert not OURS.search(text), text
    assert str(harness.folder) not in text
    check_result(raw, result)
    if "error" in result:
        assert 0 < len(result["error"]) < 2000
    return result


def resident_kib() -> int:
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def is_valid(raw: Any) -> bool:
    try:
        parse_job(raw)
    except InvalidInput:
        return False
    return True


def malformed() -> Iterator[Any]:
    """Mutants that are not jobs any more, `MALFORMED` of them."""
    found = (raw for raw in mutants(2 * MALFORMED) if not is_valid(raw))
    return (next(found) for _ in range(MALFORMED))


def test_ten_thousand_malformed_jobs(harness: WorkerHarness) -> None:
    before = harness.prompts_run()
    descriptors = open_descriptors()
    kib = 0
    for number, raw in enumerate(malformed()):
        result = refused(harness, raw)
        assert result["code"] == "invalid_input", (raw, result)
        assert result["field"]
        if number == MALFORMED // 5:
            kib = resident_kib()
    assert resident_kib() - kib < 20_000
    assert open_descriptors() <= descriptors
    assert harness.leftovers() == []
    assert harness.prompts_run() == before


@settings(max_examples=300, deadline=None)
@given(raw=anything)
def test_any_json_at_all(harness: WorkerHarness, raw: Any) -> None:
    assert refused(harness, raw)["code"] == "invalid_input"


@settings(max_examples=300, deadline=None)
@given(base=st.sampled_from(VALID[1:]), field=fields, value=anything)
def test_any_json_in_any_field(base: dict[str, Any], field: str, value: Any) -> None:
    with contextlib.suppress(InvalidInput):  # whatever else comes out of it fails the test
        parse_job({**base, field: value})


@pytest.mark.parametrize("where", ["prompt", "character_id", "workflow", "sampler", "trigger"])
@pytest.mark.parametrize("value", SCALARS[:37], ids=lambda value: ascii(value)[:20])
def test_hostile_values_that_are_jobs_run_or_are_refused(
    harness: WorkerHarness, where: str, value: Any
) -> None:
    job = {"task": "image", "prompt": "x", "width": 256, "height": 256, "steps": 1, where: value}
    refused(harness, job)


def test_bombs(harness: WorkerHarness) -> None:
    image = {"task": "image", "prompt": "x"}
    for raw in (
        *CONTAINERS,
        nested(50_000),
        "x" * 10_000_000,
        image | {"prompt": "x" * 10_000_000},
        image | {"params": {"x" * 1_000_000: 1}},
        image | {"init_image": {"base64": "A" * 41_000_000}},
        {"x" * 1_000_000: "y"},
    ):
        assert refused(harness, raw)["code"] == "invalid_input"


FORBIDDEN: Final = (
    "http://127.0.0.1/",
    "http://localhost/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1/",
    "http://0.0.0.0/",
    "http://0/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::7f00:1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fc00::1]/",
    "http://224.0.0.1/",
    "http://192.0.0.8/",
    "http://user@127.0.0.1/",
    "http://example.com@127.0.0.1/",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "ftp://example.com/x",
    "gopher://127.0.0.1/",
    "//127.0.0.1/",
)


@pytest.mark.parametrize("url", FORBIDDEN)
def test_forbidden_addresses(harness: WorkerHarness, url: str) -> None:
    job = {"task": "image", "prompt": "x", "init_image": {"url": url}}
    result = refused(harness, job)
    assert (result["code"], result["field"]) == ("source_forbidden", "init_image.url"), result
