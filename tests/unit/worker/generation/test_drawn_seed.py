import pytest

from worker.generation.generate import MAX_DRAWN_SEED, drawn_seed
from workflows.template import Limits


@pytest.mark.parametrize("maximum", [0, 16777215, 2**32 - 1, 2**64 - 1])
def test_a_drawn_seed_stays_within_what_the_workflow_allows(maximum: int) -> None:
    limits = Limits(minimum=0, maximum=maximum)
    drawn = {drawn_seed(f"job-{number}", limits) for number in range(50)}
    assert max(drawn) <= min(maximum, MAX_DRAWN_SEED)
    assert len(drawn) == (50 if maximum else 1)
    assert drawn_seed("job-1", limits) == drawn_seed("job-1", limits)
