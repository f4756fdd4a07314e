"""The image branch: a picture, or up to eight, from a prompt and up to four characters."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from worker import media
from worker.contract import ImageJob, Source
from worker.generation import Plan, generate
from worker.pictures import Inspected, finish_picture
from worker.rooms import JobContext, Rooms
from workflows.template import Output, Workflow

PIXELS: Final = 1024 * 1024  # what SDXL was trained at
SIDE_STEP: Final = 64
MIN_SIDE, MAX_SIDE = 256, 2048


def run(job: ImageJob, rooms: Rooms, context: JobContext) -> dict[str, Any]:
    """Make the pictures. Raises whatever the rooms raise."""
    workflow = choose_workflow(rooms, job.workflow, "init_image" if job.init_image else None)
    with placed(job.init_image, "init_image", rooms, context) as init:
        width, height = (job.width, job.height) if init is None else init.fitted(job)
        plan = Plan(
            task="image",
            job=job,
            workflow=workflow,
            prompt=job.prompt,
            prepare=partial(_finish, job),
            values={
                "negative_prompt": job.negative_prompt,
                "width": width,
                "height": height,
                "count": job.count if job.count > 1 else None,
                "steps": job.steps,
                "cfg": job.cfg,
                "sampler": job.sampler,
                "scheduler": job.scheduler,
                "init_image": init.name if init else None,
                "denoise": job.denoise,
            },
        )
        return generate(plan, rooms, context)


def choose_workflow(rooms: Rooms, name: str, brought: str | None) -> Workflow:
    """The workflow asked for, or its variant for what the job brings along.

    Raises:
        WorkflowNotFound: no such folder.
    """
    workflow = rooms.workflows[name]
    variant = workflow.variants.get(brought) if brought else None
    return rooms.workflows[variant] if variant else workflow


def _finish(job: ImageJob, path: Path, _output: Output) -> Inspected:
    return finish_picture(path, job.format, job.quality)


@dataclass(frozen=True, slots=True)
class Placed:
    """An input image where ComfyUI finds it, under `name`; sizes in pixels."""

    name: str
    width: int
    height: int

    def fitted(self, job: ImageJob) -> tuple[int, int]:
        """The job's size; a side that it leaves open follows the image's own shape."""
        if job.width and job.height:
            return job.width, job.height
        ratio = self.width / self.height
        if job.width:
            return job.width, _side(job.width / ratio)
        if job.height:
            return _side(job.height * ratio), job.height
        return _side(math.sqrt(PIXELS * ratio)), _side(math.sqrt(PIXELS / ratio))


def _side(length: float) -> int:
    return min(MAX_SIDE, max(MIN_SIDE, round(length / SIDE_STEP) * SIDE_STEP))


@contextlib.contextmanager
def placed(
    source: Source | None, field: str, rooms: Rooms, context: JobContext
) -> Iterator[Placed | None]:
    """Fetch, check and re-encode an input image, and put it where ComfyUI reads inputs.

    Raises:
        SourceForbidden, SourceUnreachable, ImageRejected, InvalidInput: with `field`.
    """
    if source is None:
        yield None
        return
    with context.timings.phase("media"):
        body = rooms.sources.read(source, field=field, check=context.cancel.check)
        image = media.decode(body, field=field, max_pixels=rooms.settings.image_max_pixels)
        encoded = media.encode(image, "png")
        name = rooms.comfyui.place_input(encoded, f"{context.folder.name}-{field}.png")
    try:
        yield Placed(name, image.width, image.height)
    finally:
        rooms.comfyui.remove_input(name)
