"""Files that a job brings: fetched, checked, made ready, and put where ComfyUI reads inputs."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from PIL import Image, ImageChops, ImageOps

from worker import media
from worker.contract import ImageJob, VideoJob, WorkflowJob
from worker.contract_fields import Source
from worker.generation.recordings import fetched
from worker.resources import JobContext, Resources
from workflows.binding import field_of
from workflows.errors import InvalidParam
from workflows.template import Input, Workflow

GenerationJob = ImageJob | VideoJob | WorkflowJob
Size = tuple[int, int]

MAX_SIDE: Final = 2048  # of any picture that a job can ask for; keeps 40 MP out of memory
PICTURES: Final = frozenset({"image", "mask"})
_OPAQUE: Final = (255, 255)


@dataclass(frozen=True, slots=True)
class PlacedInputs:
    """What lies in ComfyUI's input folder for one job.

    Attributes:
        names: input -> the value that its loader takes.
        sizes: input -> width and height of a picture, in pixels.
        files: file of the workflow's own -> the value that its loader takes.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, Size] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def placed_inputs(
    job: GenerationJob, workflow: Workflow, resources: Resources, context: JobContext
) -> Iterator[PlacedInputs]:
    """Have the job's files, and the workflow's own, in ComfyUI's input folder while inside.

    Raises:
        SourceForbidden, SourceUnreachable, ImageRejected, InvalidInput: with the input's field.
        DiskFull: no room in the input folder.
    """
    with contextlib.ExitStack() as held:

        def place(data: bytes | Path, label: str) -> str:
            # By the job's own folder, since no two jobs share one.
            name = resources.comfyui.place_input(data, f"{context.folder.name}-{label}")
            held.callback(resources.comfyui.remove_input, name)
            return name

        with context.timings.phase("media"):
            inputs = _Inputs(job, workflow, resources, context, place)
            inputs.place_all()
            files = {
                own: place(path, own.replace("/", "-")) for own, path in workflow.files.items()
            }
        yield PlacedInputs(inputs.names, inputs.sizes, files)


class _Inputs:
    """The inputs of one job on their way into ComfyUI's folder."""

    def __init__(
        self,
        job: GenerationJob,
        workflow: Workflow,
        resources: Resources,
        context: JobContext,
        place: Callable[[bytes | Path, str], str],
    ) -> None:
        self.names: dict[str, str] = {}
        self.sizes: dict[str, Size] = {}
        self._job, self._workflow = job, workflow
        self._resources, self._context = resources, context
        self._place = place
        self._sources = job.sources()
        self._masks: dict[str, Image.Image] = {}  # of pictures that came with transparency

    def place_all(self) -> None:
        """Those first whose size others follow, or whose transparency is another's mask."""
        order = sorted(self._workflow.inputs, key=self._followed_by)
        for name in order:
            declared = self._workflow.inputs[name]
            if name in self._sources and declared.kind in PICTURES:
                self._place_picture(name, self._picture(name, self._sources[name]))
            elif name in self._sources:
                path = fetched(
                    self._sources[name], name, declared.kind, self._resources, self._context
                )
                self.names[name] = self._place(path, f"{name}{path.suffix}")
            elif declared.kind == "mask" and declared.follows in self._sources:
                self._place_transparency(name, declared)

    def _followed_by(self, name: str) -> int:
        """How many inputs this one waits for; a circle of them ends somewhere."""
        seen: list[str] = []
        while (follows := self._workflow.inputs[name].follows) and follows not in seen:
            seen.append(follows)
            name = follows
        return len(seen)

    def _picture(self, name: str, source: Source) -> Image.Image:
        where, check = field_of(name), self._context.cancel.check
        body = self._resources.sources.read(source, field=where, check_cancelled=check)
        declared = self._workflow.inputs[name]
        masks = [
            other
            for other, its in self._workflow.inputs.items()
            if its.kind == "mask" and its.follows == name and other not in self._sources
        ]
        keep = bool(masks) or declared.kind == "mask" or self._workflow.reads_alpha(name)
        image = self._resources.pictures.decode(
            body,
            field=where,
            max_side=MAX_SIDE,
            alpha="keep" if keep else "white",
            check_cancelled=check,
        ).image
        if masks and transparent(image):
            self._masks[name] = as_mask(image)
        return as_mask(image) if declared.kind == "mask" else image

    def _place_picture(self, name: str, image: Image.Image) -> None:
        declared = self._workflow.inputs[name]
        shaped = sized(image, self._box(declared, image), self._fit(declared))
        self.sizes[name] = shaped.size
        self.names[name] = self._place(media.encode(shaped, "png"), f"{name}.png")

    def _place_transparency(self, name: str, declared: Input) -> None:
        """A mask that was not brought is where the picture that it follows is transparent."""
        follows = declared.follows or ""
        if follows in self._masks:
            self._place_picture(name, self._masks[follows])
        elif self._workflow.is_required(name):
            raise InvalidParam(
                field_of(name),
                f"is required by workflow {self._workflow.name!r}; or let {field_of(follows)} be "
                "transparent where the mask is to be",
            )

    def _box(self, declared: Input, image: Image.Image) -> Size | None:
        """The size that a picture is brought to; None where it stays as it is.

        Sides that the job leaves open are the workflow's own, turned upright for an upright
        picture.
        """
        if declared.follows in self.sizes:
            return self.sizes[declared.follows]
        if declared.size == "as_is":
            return None
        width, height = self._workflow.default("width"), self._workflow.default("height")
        if width and height and (image.width < image.height) != (width < height):
            width, height = height, width
        width, height = self._job.width or width, self._job.height or height
        return (int(width), int(height)) if width and height else None

    def _fit(self, declared: Input) -> str:
        own = self._job.fit if isinstance(self._job, VideoJob) else None
        return "contain" if "contain" in {own, declared.size} else "cover"


def transparent(image: Image.Image) -> bool:
    """Whether any pixel lets something through."""
    return image.mode == "RGBA" and image.getchannel("A").getextrema() != _OPAQUE


def as_mask(image: Image.Image) -> Image.Image:
    """White where the mask holds: in the colours, and transparent there, as ComfyUI reads alpha.

    So any channel that a loader may read (red, green, blue, alpha, LoadImage's own mask) says the
    same. A picture with transparency is a mask of what is transparent.
    """
    alpha = image.getchannel("A") if transparent(image) else None
    held = image.convert("L") if alpha is None else ImageChops.invert(alpha)
    return Image.merge("RGBA", (held, held, held, ImageChops.invert(held)))


def sized(image: Image.Image, box: Size | None, fit: str) -> Image.Image:
    """A picture brought to a size without stretching: cut (`cover`) or filled up (`contain`)."""
    if box is None or box == image.size:
        return image
    shape = ImageOps.pad if fit == "contain" else ImageOps.fit
    if image.mode != "RGBA":
        return shape(image, box, Image.Resampling.LANCZOS)
    # Colours and transparency apart: where alpha is nought Pillow would take the colours along.
    alpha = shape(image.getchannel("A"), box, Image.Resampling.LANCZOS)
    colours = shape(image.convert("RGB"), box, Image.Resampling.LANCZOS)
    colours.putalpha(alpha)
    return colours
