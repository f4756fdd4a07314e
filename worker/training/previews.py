"""Preview pictures of a character: each prompt at a fixed seed, without and with its LoRA."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from lora_registry.character import UsableVersion
from lora_registry.errors import RegistryError
from lora_registry.store import StoreError
from worker import media
from worker.comfyui.client import OutputFile
from worker.errors import Cancelled, ExecutionFailed, WorkerError
from worker.generation.used_characters import Trigger, default_workflow, place_triggers
from worker.resources import JobContext, Resources
from worker.training.drawing import PreviewRow
from worker.training_results import PreviewResult, PreviewsResult
from workflows.binding import LoraUse, Values, bind
from workflows.errors import WorkflowError
from workflows.template import Value, Workflow

log = logging.getLogger(__name__)

FIRST_SEED: Final = 1000
TIMEOUT_S: Final = 300.0  # a picture takes seconds, loading the checkpoint a minute or two
PROMPTS: Final = (
    "{trigger} {class_noun}, portrait photo, looking at the camera",
    "{trigger} {class_noun}, full body, walking down a city street in daylight",
    "{trigger} {class_noun}, close-up, soft studio light, plain background",
)


@dataclass(frozen=True, slots=True)
class Previews:
    """What came of it; `problem` says in a sentence why pictures are missing, if they are."""

    rows: tuple[PreviewRow, ...]
    workflow: str
    problem: str | None = None

    def result(self) -> PreviewsResult:
        """Prompts, seeds, and how much each picture changed (mean over pixels, 0 to 255)."""
        return PreviewsResult(
            status="failed" if self.problem else "done" if self.rows else "none",
            workflow=self.workflow,
            pictures=[
                PreviewResult(prompt=row.prompt, seed=row.seed, difference=difference(row))
                for row in self.rows
            ],
            problem=self.problem,
        )


def render(
    version: UsableVersion,
    prompts: Sequence[str],
    side: int,
    resources: Resources,
    context: JobContext,
    on_share: Callable[[float], None],
) -> Previews:
    """Make the pictures; what fails is told, not raised, since the character stands already.

    Args:
        version: the character, with its file in the bucket.
        prompts: with `{trigger}` where the trigger goes; it leads the others.
        side: of the square pictures, in pixels.
        resources: the worker's.
        context: the job's.
        on_share: told before each prompt how much is done, from 0 to 1.

    Raises:
        Cancelled: the job was.
    """
    rows: list[PreviewRow] = []
    name = default_workflow("image", version.base_model, resources) or ""
    try:
        workflow = resources.workflows[name]
        resources.availability.require(workflow)
        with resources.loras.lease(version, check_cancelled=context.cancel.check) as path:
            for number, prompt in enumerate(prompts):
                on_share(number / len(prompts))
                text = place_triggers(prompt, [Trigger(version.character_id, version.trigger)])
                picture = Picture(text, FIRST_SEED + number, side)
                without = render_one(workflow, picture, (), resources, context)
                use = LoraUse(path.name, version.strength)
                with_lora = render_one(workflow, picture, (use,), resources, context)
                rows.append(PreviewRow(text, picture.seed, without, with_lora))
    except Cancelled:
        raise
    except (WorkerError, WorkflowError, RegistryError, StoreError) as error:
        log.warning("previews failed", extra={"code": error.code, "reason": str(error)})
        return Previews(tuple(rows), name, str(error))
    return Previews(tuple(rows), name)


def prompts_of(given: Sequence[str] | None, class_noun: str) -> list[str]:
    """The job's prompts, or three of ours; an empty list means none."""
    if given is not None:
        return list(given)
    return [prompt.replace("{class_noun}", class_noun) for prompt in PROMPTS]


def side_for(resolution: object) -> int:
    """The side of preview pictures: what was trained at, within what SDXL draws well."""
    return min(1024, max(512, resolution)) if isinstance(resolution, int) else 1024


def difference(row: PreviewRow) -> float | None:
    """Mean absolute difference of the two pictures; None where one is missing."""
    if row.without is None or row.with_lora is None or row.without.size != row.with_lora.size:
        return None
    first = np.asarray(row.without.convert("RGB"), dtype=np.int16)
    second = np.asarray(row.with_lora.convert("RGB"), dtype=np.int16)
    return round(float(np.abs(first - second).mean()), 3)


@dataclass(frozen=True, slots=True)
class Picture:
    """What is asked of one picture; the side of the square in pixels."""

    prompt: str
    seed: int
    side: int


def render_one(
    workflow: Workflow,
    picture: Picture,
    loras: Sequence[LoraUse],
    resources: Resources,
    context: JobContext,
    run: str = "preview",
) -> Image.Image:
    """One picture; `run` keeps apart what is asked of the same seed in one job.

    Raises:
        ExecutionFailed, ModelMissing, …, Cancelled: as running a graph does.
    """
    run_id = f"preview-{context.folder.name}-{run}-{picture.seed}-{len(loras)}"
    roles: dict[str, Value | None] = {
        "prompt": picture.prompt,
        "seed": picture.seed,
        "width": picture.side,
        "height": picture.side,
    }
    values = Values(prefix=f"{run_id}/preview", roles=roles, loras=loras)
    bound = bind(workflow, values)
    found: list[Image.Image] = []

    def on_files(_node: str, files: tuple[OutputFile, ...]) -> None:
        for file in files:
            with resources.comfyui.opened(file) as path:
                found.append(media.decode(path, field="preview"))

    try:
        resources.comfyui.run(
            bound.graph,
            timeout_s=min(TIMEOUT_S, resources.settings.job_timeout_s),
            cancel=context.cancel,
            on_step=lambda _step: None,
            on_files=on_files,
        )
    finally:
        resources.comfyui.delete_folder(run_id)
    if not found:
        raise ExecutionFailed("ComfyUI finished a preview without a picture.")
    return found[0]
