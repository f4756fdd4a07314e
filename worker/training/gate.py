"""Which step of a training becomes the character: each is shown on prompts, and measured.

The likeness of a picture is that of its best face to the middle of the photos'; a picture without a
face counts 0. What fails here is told and fails no training: the last step is the version then.
"""

import contextlib
import logging
import shutil
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from lora_registry.store import StoreError
from worker.errors import Cancelled, WorkerError
from worker.generation.used_characters import Trigger, default_workflow, place_triggers
from worker.likeness.faces import likeness
from worker.training import previews
from worker.training.drawing import PreviewRow, draw_checkpoints
from worker.training.preparation import REFERENCE
from worker.training.previews import Picture, difference
from worker.training.record import TrainingRecord
from worker.training.work import TrainingWork
from worker.training_results import CheckpointResult, GateResult
from workflows.binding import LoraUse
from workflows.errors import WorkflowError

log = logging.getLogger(__name__)

ALIKE: Final = 0.02  # a difference in likeness that nobody sees: the seed alone makes as much
STRENGTHS: Final = (0.7, 0.85)  # tried beside 1.0 with the chosen step
SHEET: Final = "checkpoints.png"


@dataclass(frozen=True, slots=True)
class Shown:
    """The pictures of one step at one strength, a likeness for each; None without a face."""

    step: int
    strength: float
    scores: tuple[float | None, ...]
    pictures: tuple[Image.Image, ...]

    @property
    def score(self) -> float:
        """The mean; 0 where no face is."""
        return round(statistics.fmean(score or 0.0 for score in self.scores), 3)

    def result(self, prompts: int, *, chosen: bool) -> CheckpointResult:
        """The numbers, also by prompt."""
        seeds = len(self.scores) // prompts
        means = [
            round(statistics.fmean(score or 0.0 for score in self.scores[at : at + seeds]), 3)
            for at in range(0, len(self.scores), seeds)
        ]
        return CheckpointResult(
            step=self.step,
            strength=self.strength,
            likeness=self.score,
            by_prompt=means,
            faces=sum(score is not None for score in self.scores),
            chosen=chosen,
        )


def earliest_of_the_best(shown: Sequence[Shown]) -> Shown:
    """The first one whose likeness is the best, but for what nobody sees.

    Given in the order of preference: earlier steps before later ones, which are stiffer; lesser
    strengths before greater ones, which leave a prompt less room.
    """
    best = max(one.score for one in shown)
    return next(one for one in shown if one.score >= best - ALIKE)


def measure(work: TrainingWork, record: TrainingRecord, files: dict[int, Path]) -> GateResult:
    """Show every step, choose one and its strength; leaves a sheet of them in the folder.

    Args:
        work: of the training.
        record: of the training, with the identity of the photos.
        files: the checked weights by step, the earliest first; the last step among them.

    Raises:
        Cancelled: the job was.
    """
    if record.identity is None:
        return GateResult(not_measured=record.dataset.not_measured or "there is no identity")
    texts = previews.prompts_of(work.job.preview_prompts, work.class_noun)
    if not texts:
        return GateResult(not_measured="the job has no preview prompts")
    try:
        return _measured(work, record, files, texts)
    except Cancelled:
        raise
    except (WorkerError, WorkflowError, StoreError) as error:
        log.warning("checkpoints not measured", extra={"reason": str(error)})
        return GateResult(not_measured=str(error))


def _measured(
    work: TrainingWork, record: TrainingRecord, files: dict[int, Path], texts: Sequence[str]
) -> GateResult:
    show = _Show(work, record, tuple(texts))
    work.resources.availability.require(show.workflow)
    rounds = len(files) + len(STRENGTHS) + 1
    without = show.pictures((), "without")
    shown: list[Shown] = []
    for number, (step, path) in enumerate(files.items()):
        work.progress.at("choosing", (number + 1) / rounds)
        shown.append(show.checkpoint(step, path, 1.0))
    best = earliest_of_the_best(shown)
    weaker = []
    for number, strength in enumerate(STRENGTHS):
        work.progress.at("choosing", (len(files) + number + 1) / rounds)
        weaker.append(show.checkpoint(best.step, files[best.step], strength))
    settled = earliest_of_the_best([*weaker, best])
    reference = work.folder.path / REFERENCE
    sheet = draw_checkpoints(
        _opened(reference) if reference.is_file() else None,
        list(zip(show.prompts, without[:: show.seeds], strict=True)),
        [(_title(one, best), one.pictures[:: show.seeds]) for one in shown],
        f"{work.job.character_id}: likeness by step",
    )
    sheet.save(work.folder.path / SHEET, "PNG")
    rows = [
        PreviewRow(text, seed, before, after)
        for (text, seed), before, after in zip(show.asked, without, best.pictures, strict=True)
    ]
    return GateResult(
        workflow=show.workflow.name,
        step=best.step,
        strength=settled.strength,
        likeness=settled.score,
        checkpoints=[one.result(len(texts), chosen=one is best) for one in shown],
        strengths=[one.result(len(texts), chosen=one is settled) for one in (*weaker, best)],
        prompts=list(show.prompts),
        differences=[difference(row) for row in rows],
        seeds=[seed for _, seed in show.asked],
    )


def _title(one: Shown, best: Shown) -> str:
    mark = "  << chosen" if one is best else ""
    return f"step {one.step}: {one.score:.2f}{mark}"


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


class _Show:
    """Makes and measures the pictures of steps, each of the same prompts and seeds."""

    def __init__(self, work: TrainingWork, record: TrainingRecord, texts: tuple[str, ...]) -> None:
        self._work = work
        self._identity = record.identity
        side = previews.side_for(record.training.resolution)
        trigger = Trigger(work.job.character_id, work.trigger)
        name = default_workflow("image", work.job.base_model, work.resources) or ""
        self.workflow = work.resources.workflows[name]
        self.seeds = work.job.gate_seeds
        self.prompts = [place_triggers(text, [trigger]) for text in texts]
        self._pictures = [
            Picture(text, previews.FIRST_SEED + number * self.seeds + seed, side)
            for number, text in enumerate(self.prompts)
            for seed in range(self.seeds)
        ]
        self.asked = [(picture.prompt, picture.seed) for picture in self._pictures]

    def checkpoint(self, step: int, path: Path, strength: float) -> Shown:
        """The pictures of one step."""
        with self._placed(step, path) as name:
            found = self.pictures((LoraUse(name, strength),), f"{step}-{strength:g}")
        return Shown(step, strength, tuple(self._score(picture) for picture in found), found)

    def pictures(self, loras: Sequence[LoraUse], run: str) -> tuple[Image.Image, ...]:
        """All prompts with all seeds."""
        return tuple(
            previews.render_one(
                self.workflow, picture, loras, self._work.resources, self._work.context, run
            )
            for picture in self._pictures
        )

    def _score(self, picture: Image.Image) -> float | None:
        path = self._work.context.folder / "shown.png"
        picture.convert("RGB").save(path, compress_level=1)
        scorer, check_cancelled = self._work.resources.scorer, self._work.context.cancel.check
        sight = scorer.look(path, check_cancelled=check_cancelled)
        centre = self._identity.centre if self._identity else ()
        return max(
            (likeness(centre, face.embedding) for face in sight.faces if face.judged), default=None
        )

    @contextlib.contextmanager
    def _placed(self, step: int, path: Path) -> Iterator[str]:
        """The weights where ComfyUI reads LoRAs, for as long as they are shown."""
        folder = self._work.resources.settings.loras_folder
        placed = folder / f"{self._work.folder.path.name}-step{step:08d}.safetensors"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, placed)
            yield placed.name
        finally:
            placed.unlink(missing_ok=True)
