from typing import Any

import pytest

from benchmarks.gpu import table
from benchmarks.gpu.trainings import settings_to_try
from worker.training.defaults import TIERS, default_steps


def run(**changes: Any) -> dict[str, Any]:
    return {
        "resolution": 1024,
        "batch_size": 1,
        "gradient_checkpointing": True,
        "tier_gb": 12.0,
        "fits": True,
        "s_per_step": 0.5,
        "start_s": 40.0,
        "handover_s": 1.0,
        "picture_after_it_s": 9.0,
        "peak_vram_mib": 9_000,
        **changes,
    }


def figures(*runs: dict[str, Any]) -> dict[str, Any]:
    return {
        "pictures": {
            "worker_ready_s": 20.0,
            **{
                kind: {
                    "first_picture_s": 12.0,
                    "of_1": {"gpu_s_per_picture": 3.0, "job_s": 3.2, "peak_vram_mib": 8_000},
                    "of_4": {"gpu_s_per_picture": 2.5, "job_s": 10.4, "peak_vram_mib": 12_000},
                }
                for kind in ("ours", "comfyui_defaults")
            },
            "clip": {"frames": 25, "gpu_s": 30.0, "peak_vram_mib": 15_000},
        },
        "training": {"kohya": list(runs), "whole_job": {"besides_training_s": 60.0}},
    }


def test_every_tier_is_tried_with_and_without_checkpointing() -> None:
    tried = settings_to_try(1024)
    for tier in TIERS:
        for checkpointing in (True, False):
            assert [
                setting
                for setting in tried
                if (setting.resolution, setting.batch_size, setting.gradient_checkpointing)
                == (tier.resolution, tier.batch_size, checkpointing)
            ]
    defaults = {setting.tier_gb: setting for setting in tried if setting.tier_gb is not None}
    assert {tier.memory_gb: tier.batch_size for tier in TIERS} == {
        gb: setting.batch_size for gb, setting in defaults.items()
    }


def test_a_price_is_seconds_of_the_card_times_dollars_a_second() -> None:
    slow, fast = run(), run(batch_size=4, s_per_step=1.0, tier_gb=70.0)
    found = table.prices(figures(slow, fast), 0.001)
    assert found["picture_s"] == 3.2
    assert found["picture_usd"] == 0.0032
    assert found["picture_of_four_s"] == 2.6
    expected = 60 + 40 + 1.0 * default_steps(20, 4)
    assert found["character_s"] == pytest.approx(expected)
    assert found["character_usd"] == pytest.approx(expected * 0.001)


def test_without_a_price_there_are_seconds_only() -> None:
    assert not [name for name in table.prices(figures(run()), None) if name.endswith("usd")]


def test_what_does_not_fit_prices_no_character() -> None:
    assert "character_s" not in table.prices(figures(run(fits=False)), None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "yes"),
        ({"peak_vram_mib": 11_300}, "NO"),
        ({"tier_gb": None}, "-"),
        ({"peak_vram_mib": None}, "-"),
    ],
)
def test_whether_a_default_fits_the_cards_that_get_it(changes: dict[str, Any], said: str) -> None:
    assert table.fits(run(**changes)) == said


def test_the_table_says_what_was_pretended_and_what_failed() -> None:
    document = {
        "card": None,
        "comfyui": "ComfyUI stand-in",
        "real_weights": False,
        "pretends": ["ComfyUI"],
        "date": "2026-11-26",
        "figures": figures(run(), {**run(), "failed": "out_of_memory"})
        | {"queue": {"failed": "JobFailed: no"}},
        "prices": {"picture_s": 3.2, "picture_usd": 0.0032},
    }
    text = table.markdown(document)
    assert "stand-ins: these figures say nothing of a GPU" in text
    assert "| a picture, whole | 3.20 s, $0.00320 |" in text
    assert "| queue | JobFailed: no |" in text
    assert "| 1024 | 1 | yes | 0.500 | 2.00 | 40.0 | 9.4 GB | 12 | yes |" in text
    assert "| 1024 | 1 | yes | out_of_memory |" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in lines)
