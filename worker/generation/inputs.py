"""Pictures that a job brings: fetched, checked, shaped, and put where ComfyUI reads inputs."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from PIL import Image

from worker import media
from worker.contract import Source
from worker.resources import JobContext, Resources

MAX_SIDE: Final = 2048  # of any picture that a job can ask for; keeps 40 MP out of memory

Shape = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True, slots=True)
class Placed:
    """An input picture in ComfyUI's input folder, under `name`; sides in pixels."""

    name: str
    width: int
    height: int


@contextlib.contextmanager
def placed(
    source: Source,
    field: str,
    resources: Resources,
    context: JobContext,
    shape: Shape | None = None,
) -> Iterator[Placed]:
    """Have a picture in ComfyUI's input folder while inside.

    Args:
        source: where it comes from.
        field: the job's field, for errors.
        resources: the worker's.
        context: the job's.
        shape: brings the decoded picture to another size.

    Raises:
        SourceForbidden, SourceUnreachable, ImageRejected, InvalidInput: with `field`.
    """
    with context.timings.phase("media"):
        body = resources.sources.read(source, field=field, check_cancelled=context.cancel.check)
        image = resources.pictures.decode(
            body, field=field, max_side=MAX_SIDE, check_cancelled=context.cancel.check
        ).image
        shaped = shape(image) if shape else image
        encoded = media.encode(shaped, "png")
        name = resources.comfyui.place_input(encoded, f"{context.folder.name}-{field}.png")
    try:
        yield Placed(name, shaped.width, shaped.height)
    finally:
        resources.comfyui.remove_input(name)
