"""Training: speed and memory of every tier, the hand-over of the card, running out of memory."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu.bench import SDXL, Bench, JobFailed, as_source, photo, picture_job, run_job
from benchmarks.gpu.memory import card, used_mib, watched
from local.kohya.faults import FAULTS_FILE
from worker.cancel import CancelToken
from worker.errors import OutOfMemory, WorkerError
from worker.service import Worker
from worker.settings import default_python
from worker.training import defaults
from worker.training.comfyui import ComfyUIPlaces, ComfyUITrainer
from worker.training.handover import gpu_released
from worker.training.kohya import KohyaTrainer
from worker.training.kohya_command import KohyaOptions
from worker.training.trainer import (
    PreparedDataset,
    PreparedPhoto,
    Trainer,
    TrainingSpec,
    TrainingStep,
)
from worker.training.weights import find_checkpoint

_WARM_STEPS: Final = 3  # the first ones choose kernels and fill caches
_CAPTION: Final = "ohwx person by a window"
_TIMEOUT_S: Final = 3600.0
_BALLAST: Final = """
import sys, time, torch
held = torch.empty(int(sys.argv[1]), dtype=torch.uint8, device="cuda")
print("held", flush=True)
time.sleep(3600)
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to train, and the memory that a card must have to be given it by default."""

    resolution: int
    batch_size: int
    gradient_checkpointing: bool
    tier_gb: float | None


def settings_to_try(train_side: int) -> list[Setting]:
    """Every tier of `defaults.py` with and without gradient checkpointing, least memory first."""
    found: dict[tuple[int, int, bool], Setting] = {}
    for tier in reversed(defaults.TIERS):
        side = train_side * tier.resolution // 1024 // 64 * 64
        for checkpointing in (True, False):
            owner = tier.memory_gb if checkpointing == tier.gradient_checkpointing else None
            key = (side, tier.batch_size, checkpointing)
            if key not in found or found[key].tier_gb is None:
                found[key] = Setting(side, tier.batch_size, checkpointing, owner)
    return list(found.values())


def measure(bench: Bench) -> dict[str, Any]:
    """Every setting with sd-scripts, one with ComfyUI's trainer, and one whole job."""
    folder = bench.stack.folder / "training"
    dataset = _dataset(folder / "photos", bench)
    with bench.worker() as worker:
        run_job(worker, picture_job(bench))  # so that there is something to hand over
        settings = settings_to_try(bench.sizes.train_side)
        runs = [_tried(bench, worker, dataset, setting, folder) for setting in settings]
        figures: dict[str, Any] = {
            "kohya": runs,
            "comfyui": _comfyui(bench, worker, dataset, folder),
            "out_of_memory": _out_of_memory(bench, worker, dataset, folder, runs),
        }
        try:
            return figures | {"whole_job": _whole_job(bench, worker)}
        except JobFailed as error:  # the settings' figures are worth keeping
            return figures | {"failed": f"JobFailed: {error}"}


@dataclass(slots=True)
class _Steps:
    """How many steps were done when; the trainer's output is looked at ten times a second."""

    marks: list[tuple[float, int]] = field(default_factory=list)
    told: float | None = None

    def on_step(self, step: TrainingStep) -> None:
        self.marks.append((time.monotonic(), step.step))
        self.told = step.seconds_per_step

    @property
    def seconds_a_step(self) -> float | None:
        """Without the first steps; by the trainer's own word where all came at once."""
        counted = [mark for mark in self.marks if mark[1] >= _WARM_STEPS]
        if not counted or counted[0][1] == counted[-1][1]:
            return self.told
        (begun, first), (ended, last) = counted[0], counted[-1]
        return round((ended - begun) / (last - first), 4)


def _tried(
    bench: Bench, worker: Worker, dataset: PreparedDataset, setting: Setting, folder: Path
) -> dict[str, Any]:
    """One training from a warm ComfyUI to the next picture; a failure is a figure too."""
    spec = _spec(bench, setting, name=f"tier-{bench.seed()}")
    resources, steps, figures = worker.resources, _Steps(), asdict(setting)
    begun = time.monotonic()
    try:
        with (
            watched() as peak,
            gpu_released(resources.engine, resources.comfyui, CancelToken()),
        ):
            released = time.monotonic()
            figures |= {"handover_s": round(released - begun, 2), "vram_left_mib": used_mib()}
            work = folder / spec.name
            work.mkdir(parents=True)
            path = _kohya(worker).train(spec, dataset, work, steps.on_step, CancelToken())
            trained = time.monotonic()
    except WorkerError as error:
        return figures | {"failed": error.code, "reason": str(error)}
    picture_s = run_job(worker, picture_job(bench))["timings_ms"]["total"] / 1000
    shutil.rmtree(work)
    return figures | {
        "fits": _at_once(path),
        "start_s": round(steps.marks[0][0] - released, 2),
        "s_per_step": steps.seconds_a_step,
        "whole_s": round(trained - released, 2),
        "peak_vram_mib": peak.vram,
        "peak_ram_mib": peak.ram,
        "picture_after_it_s": round(picture_s, 2),
    }


def _comfyui(
    bench: Bench, worker: Worker, dataset: PreparedDataset, folder: Path
) -> dict[str, Any]:
    """ComfyUI's own trainer on the server that is running, at batch 1."""
    resources, engine = worker.resources, worker.resources.engine
    recipe = resources.families["sdxl"].training
    assert recipe is not None
    assert recipe.comfyui is not None
    places = ComfyUIPlaces(
        SDXL, engine.input_directory, engine.output_directory, "", recipe.comfyui
    )
    trainer: Trainer = ComfyUITrainer(resources.comfyui, places)
    setting = Setting(bench.sizes.train_side, 1, gradient_checkpointing=True, tier_gb=None)
    spec = replace(
        _spec(bench, setting, name="comfyui"),
        rank=defaults.COMFYUI_RANK if bench.sizes.rank > 1 else 1,
        learning_rate=defaults.COMFYUI_LEARNING_RATE,
    )
    work, steps = folder / "comfyui", _Steps()
    work.mkdir(parents=True)
    begun = time.monotonic()
    with watched() as peak:
        try:
            trainer.train(spec, dataset, work, steps.on_step, CancelToken())
        except WorkerError as error:
            return asdict(setting) | {"failed": error.code, "reason": str(error)}
    return asdict(setting) | {
        "rank": spec.rank,
        "start_s": round(steps.marks[0][0] - begun, 2),
        "s_per_step": steps.seconds_a_step,
        "whole_s": round(time.monotonic() - begun, 2),
        "peak_vram_mib": peak.vram,
    }


def _out_of_memory(
    bench: Bench,
    worker: Worker,
    dataset: PreparedDataset,
    folder: Path,
    runs: list[dict[str, Any]],
) -> dict[str, Any]:
    """A training that does not fit until its batch is halved: on a card that is held half full."""
    pretends = bench.places.kohya is None
    if not pretends and card() is None:
        return {"not_measured": "there is no card"}
    setting = Setting(bench.sizes.train_side, 4, gradient_checkpointing=False, tier_gb=None)
    spec, steps = _spec(bench, setting, name="out-of-memory"), _Steps()
    work = folder / spec.name
    work.mkdir(parents=True)
    resources = worker.resources
    begun = time.monotonic()
    with gpu_released(resources.engine, resources.comfyui, CancelToken()):
        room = _room_between(runs)
        with _pretended(folder) if pretends else _held(bench, room):
            try:
                path = _kohya(worker).train(spec, dataset, work, steps.on_step, CancelToken())
                outcome = "fits" if _at_once(path) else "trained at half the batch"
            except OutOfMemory:
                outcome = "out of memory at half the batch too"
    return {
        "outcome": outcome,
        "room_mib": room or None,
        "whole_s": round(time.monotonic() - begun, 2),
        "pretended": pretends,
    }


def _at_once(path: Path) -> bool:
    """Whether the trainer's first attempt came through, and not one at half the batch."""
    return path.parent.name == "attempt-1"


def _room_between(runs: list[dict[str, Any]]) -> int:
    """MiB in which half the batch with gradient checkpointing fits and the whole one does not."""
    peaks = {
        (run["batch_size"], run["gradient_checkpointing"]): run["peak_vram_mib"]
        for run in runs
        if run.get("peak_vram_mib") and run["fits"]
    }
    small, large = peaks.get((2, True)), peaks.get((4, False))
    if small is None:
        return 0
    # Where the large one failed on this card by itself, all that there is is the room.
    return int((small + large) // 2) if large else 0


@contextmanager
def _held(bench: Bench, room_mib: int) -> Iterator[None]:
    """Somebody else on the card, who leaves so much of it; nobody where `room_mib` is 0."""
    found, used = card(), used_mib()
    if not room_mib or found is None or used is None:
        yield
        return
    size = max(0, found.memory_mib - used - room_mib) * 1024 * 1024
    python = default_python(bench.places.kohya or Path(), bench.places.kohya_python)
    with subprocess.Popen(
        [python, "-c", _BALLAST, str(size)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            yield
        finally:
            child.kill()


@contextmanager
def _pretended(folder: Path) -> Iterator[None]:
    """The stand-in says that the memory did not suffice, once."""
    faults = folder / "faults"
    faults.write_text("oom@1\n")
    before = os.environ.get(FAULTS_FILE)
    os.environ[FAULTS_FILE] = str(faults)
    try:
        yield
    finally:
        os.environ.pop(FAULTS_FILE)
        if before is not None:
            os.environ[FAULTS_FILE] = before


def _whole_job(bench: Bench, worker: Worker) -> dict[str, Any]:
    """A training as a customer orders it, but short: what is not the steps is what it costs."""
    sizes = bench.sizes
    job = {
        "task": "train",
        "character_id": f"bench-whole-{bench.seed()}",
        "images": [as_source(photo(number, max(sizes.train_side, 640))) for number in range(5)],
        "steps": sizes.train_steps,
        "rank": sizes.rank,
        "resolution": sizes.train_side,
        "preview_prompts": ["{trigger} person on a hill"],
        # Random weights may learn nothing; the card does not mind.
        "learning_rate": 1e-3,
    }
    begun = time.monotonic()
    answer = run_job(worker, job)
    phases = {name: ms / 1000 for name, ms in answer["timings_ms"].items()}
    return {
        "whole_s": round(time.monotonic() - begun, 2),
        "phases_s": {name: round(seconds, 2) for name, seconds in phases.items()},
        "besides_training_s": round(phases["total"] - phases["training"], 2),
    }


def _spec(bench: Bench, setting: Setting, *, name: str) -> TrainingSpec:
    sizes = bench.sizes
    return TrainingSpec(
        name=name,
        trigger="ohwx",
        class_noun="person",
        steps=sizes.train_steps,
        rank=sizes.rank,
        alpha=sizes.rank / 2,
        learning_rate=defaults.KOHYA_LEARNING_RATE,
        resolution=setting.resolution,
        batch_size=setting.batch_size,
        gradient_checkpointing=setting.gradient_checkpointing,
        seed=1,
        save_every=sizes.train_steps,
        deadline_s=_TIMEOUT_S,
    )


def _kohya(worker: Worker) -> Trainer:
    settings = worker.settings
    checkpoint = find_checkpoint(settings.train_checkpoint, settings.checkpoint_folders)
    recipe = worker.resources.families["sdxl"].training
    assert recipe is not None
    assert recipe.kohya is not None
    return KohyaTrainer(
        KohyaOptions(
            recipe=recipe.kohya,
            folder=settings.kohya_dir,
            python=default_python(settings.kohya_dir, settings.kohya_python),
            checkpoint=checkpoint or Path(settings.train_checkpoint),
            tokenizers=settings.kohya_tokenizers,
        )
    )


def _dataset(folder: Path, bench: Bench) -> PreparedDataset:
    folder.mkdir(parents=True)
    photos = []
    for number in range(bench.sizes.photos):
        image = photo(number, bench.sizes.train_side)
        path = folder / f"{number:03d}.png"
        image.save(path)
        path.with_suffix(".txt").write_text(_CAPTION)
        photos.append(PreparedPhoto(path, _CAPTION, f"{number:064d}", *image.size))
    return PreparedDataset(folder, tuple(photos), "0" * 64)
