"""Writers in several processes, some killed with SIGKILL: the small edition of the benchmark."""

from pathlib import Path

import pytest

from benchmarks.registry_chaos import STORES, Plan, chaos, serving, sound
from local.s3 import S3Server

SMALL = Plan(writers=6, processes=2, killed=2, characters=2, versions=2, life_ms=500)


@pytest.mark.process
@pytest.mark.parametrize("kind", STORES)
def test_nothing_acknowledged_is_lost(kind: str, s3: S3Server, tmp_path: Path) -> None:
    if kind == "unconditional":
        with serving(kind) as options:
            result = chaos(options, SMALL)
    else:
        options = s3.options(prefix=tmp_path.name)
        result = chaos(options, SMALL, refusing=kind == "refusing")
    assert sound(result), result
    assert result["conditions"] == ("enforced" if kind == "enforcing" else "not enforced")
    assert result["killed_while_writing"] <= SMALL.killed  # one may die between two jobs
    assert result["acknowledged"] >= SMALL.writers * SMALL.versions + SMALL.killed
    assert result["requests_per_write_alone"] <= 6
