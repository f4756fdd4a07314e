"""The image branch: a picture, or up to eight, from a prompt and up to four characters."""

import math
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from worker.contract import ImageJob
from worker.generation.generate import GenerationRequest, generate
from worker.generation.inputs import Placed, placed
from worker.generation.likeness import Wish
from worker.generation.pictures import Finished, finish_picture
from worker.generation.used_characters import choose_workflow
from worker.resources import JobContext, Resources
from workflows.template import Output

PIXELS: Final = 1024 * 1024  # what SDXL was trained at
SIDE_STEP: Final = 64
MIN_SIDE, MAX_SIDE = 256, 2048


def run(job: ImageJob, resources: Resources, context: JobContext) -> dict[str, Any]:
    """Make the pictures. Raises what any step raises."""
    choice = choose_workflow("image", job.workflow, job.used_characters, resources, context)
    brought = "init_image" if job.init_image else None
    workflow = resources.workflows.variant(choice.workflow, brought)
    with ExitStack() as held:
        init = None
        if job.init_image:
            init = held.enter_context(placed(job.init_image, "init_image", resources, context))
        width, height = fitted(job, init)
        request = GenerationRequest(
            task="image",
            job=job,
            workflow=workflow,
            records=choice.records,
            prompt=job.prompt,
            finish=partial(_finish, job),
            lower=("width", "height", "count"),
            likeness=Wish(job.count, job.most, job.min_likeness) if job.measured else None,
            values={
                "negative_prompt": job.negative_prompt,
                "width": width if "width" in workflow.roles else job.width,
                "height": height if "height" in workflow.roles else job.height,
                "count": job.count if job.count > 1 else None,
                "steps": job.steps,
                "cfg": job.cfg,
                "sampler": job.sampler,
                "scheduler": job.scheduler,
                "init_image": init.name if init else None,
                "denoise": job.denoise,
            },
        )
        return generate(request, resources, context)


def _finish(job: ImageJob, path: Path, _output: Output) -> tuple[Finished, ...]:
    return (finish_picture(path, job.format, job.quality),)


def fitted(job: ImageJob, init: Placed | None) -> tuple[int | None, int | None]:
    """The picture's sides in pixels; one that the job leaves open follows the init image's shape.

    Without an init image an open side is the workflow's own (None).
    """
    if init is None or (job.width and job.height):
        return job.width, job.height
    ratio = init.width / init.height
    if job.width:
        return job.width, _side(job.width / ratio)
    if job.height:
        return _side(job.height * ratio), job.height
    return _side(math.sqrt(PIXELS * ratio)), _side(math.sqrt(PIXELS / ratio))


def _side(length: float) -> int:
    return min(MAX_SIDE, max(MIN_SIDE, round(length / SIDE_STEP) * SIDE_STEP))
