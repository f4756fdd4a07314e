import pytest

from worker.contract import TrainJob, parse_job
from worker.errors import InvalidInput
from worker.training.defaults import Circumstances, chosen, default_steps, plan, resolution_of


def job(**fields: object) -> TrainJob:
    photos = [{"key": f"inputs/{number}.png"} for number in range(5)]
    parsed = parse_job({"task": "train", "character_id": "mira", "images": photos, **fields})
    assert isinstance(parsed, TrainJob)
    return parsed


def known(photos: int = 20, gpu_gb: float | None = 24) -> Circumstances:
    memory = None if gpu_gb is None else int(gpu_gb * 1e9)
    return Circumstances(
        "job-1", photos, memory, trigger="mrzkqv", class_noun="person", deadline_s=100
    )


@pytest.mark.parametrize(
    ("photos", "batch", "steps"),
    [(20, 1, 1600), (5, 1, 800), (100, 1, 3000), (20, 4, 800), (60, 4, 1200)],
)
def test_steps_follow_the_photos(photos: int, batch: int, steps: int) -> None:
    assert default_steps(photos, batch) == steps


@pytest.mark.parametrize(
    ("gpu_gb", "batch", "checkpointing", "resolution"),
    [(85, 4, False, 1024), (48, 2, True, 1024), (24, 1, True, 1024), (8, 1, True, 768)],
)
def test_batch_follows_the_gpu(
    gpu_gb: float, batch: int, checkpointing: object, resolution: int
) -> None:
    spec = plan(job(), known(gpu_gb=gpu_gb))
    assert (spec.batch_size, spec.gradient_checkpointing) == (batch, checkpointing)
    assert spec.resolution == resolution


def test_without_a_gpu_the_careful_values() -> None:
    spec = plan(job(), known(gpu_gb=None))
    assert (spec.batch_size, spec.gradient_checkpointing, spec.resolution) == (1, True, 1024)


def test_what_the_job_says_wins() -> None:
    spec = plan(
        job(
            steps=7,
            rank=8,
            alpha=3.0,
            learning_rate=0.001,
            resolution=640,
            batch_size=16,
            seed=2**40 + 3,
        ),
        known(),
    )
    assert (spec.steps, spec.rank, spec.alpha) == (7, 8, 3.0)
    assert (spec.learning_rate, spec.resolution, spec.batch_size) == (0.001, 640, 16)
    assert spec.seed == 3
    assert spec.gradient_checkpointing
    assert (spec.save_every, spec.checkpoints) == (2, 4)


def test_a_retried_job_gets_the_same_plan() -> None:
    assert plan(job(), known()) == plan(job(), known())


def test_comfyui_has_values_of_its_own() -> None:
    spec = plan(job(trainer="comfyui"), known())
    assert (spec.rank, spec.alpha, spec.learning_rate) == (16, 1.0, 5e-4)
    with pytest.raises(InvalidInput, match="alpha 1") as caught:
        plan(job(trainer="comfyui", alpha=8.0), known())
    assert caught.value.field == "alpha"


def test_a_batch_is_never_more_than_the_photos() -> None:
    assert plan(job(), known(photos=3, gpu_gb=85)).batch_size == 3


def test_only_what_was_left_out_is_explained() -> None:
    assert "steps" not in chosen(job(steps=9))
    assert {"steps", "rank", "batch_size"} <= set(chosen(job()))


def test_resolution_is_known_before_the_photos_are() -> None:
    assert resolution_of(job(), None) == 1024
    assert resolution_of(job(resolution=512), None) == 512
