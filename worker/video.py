"""The video branch: a clip from a picture, or from a prompt whose picture is made first."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from worker.contract import VideoJob
from worker.generation.clips import finish_clip
from worker.generation.generate import GenerationRequest, generate
from worker.generation.inputs import placed
from worker.generation.pictures import Finished, finish_picture
from worker.generation.used_characters import choose_workflow
from worker.resources import JobContext, Resources
from workflows.template import Output, Workflow


def run(job: VideoJob, resources: Resources, context: JobContext) -> dict[str, Any]:
    """Make the clip. Raises what any step raises."""
    choice = choose_workflow("video", job.workflow, job.used_characters, resources, context)
    workflow = resources.workflows.variant(choice.workflow, None if job.image else "prompt")
    with ExitStack() as held:
        start, size = None, (job.width, job.height)
        if job.image:
            shape = partial(fit, job=job, workflow=workflow)
            start = held.enter_context(placed(job.image, "image", resources, context, shape))
            size = (start.width, start.height)
        request = GenerationRequest(
            task="video",
            job=job,
            workflow=workflow,
            records=choice.records,
            prompt=job.prompt,
            finish=partial(_finish, job),
            output_format=job.format,
            lower=("frames", "width", "height"),
            values={
                "image": start.name if start else None,
                "negative_prompt": job.negative_prompt,
                "width": size[0] if "width" in workflow.roles else job.width,
                "height": size[1] if "height" in workflow.roles else job.height,
                "frames": job.frames,
                "fps": job.fps,
                "motion": job.motion,
                "augmentation": job.augmentation,
                "steps": job.steps,
                "cfg": job.cfg,
                "sampler": job.sampler,
                "scheduler": job.scheduler,
                "quality": job.quality,
            },
        )
        return generate(request, resources, context)


def fit(image: Image.Image, *, job: VideoJob, workflow: Workflow) -> Image.Image:
    """Bring the start frame to the clip's size without stretching it.

    Sides that the job leaves open are the workflow's own, turned upright for an upright picture.
    """
    width, height = workflow.default("width"), workflow.default("height")
    if not (width or job.width) or not (height or job.height):
        return image  # the workflow takes the picture's own size
    if width and height and (image.width < image.height) != (width < height):
        width, height = height, width
    size = (job.width or width, job.height or height)
    if job.fit == "contain":
        return ImageOps.pad(image, size, Image.Resampling.LANCZOS)
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def _finish(job: VideoJob, path: Path, output: Output) -> tuple[Finished, ...]:
    if output.kind == "image":
        return (finish_picture(path, "png", None),)
    return finish_clip(path, job.format)
