"""What travels along the links of a graph here, where ComfyUI has tensors and models."""

from dataclasses import dataclass, field, replace
from typing import Self

from PIL import Image

Frames = tuple[Image.Image, ...]


@dataclass(frozen=True)
class Lora:
    """A LoRA as it was applied."""

    name: str
    strength: float


@dataclass(frozen=True)
class Model:
    """A diffusion model, text encoder or VAE: a file's name and the LoRAs applied to it."""

    name: str
    loras: tuple[Lora, ...] = ()

    def with_lora(self, lora: Lora) -> Self:
        """This model with one LoRA more; strength 0 changes nothing, as in ComfyUI."""
        return replace(self, loras=(*self.loras, lora)) if lora.strength else self


@dataclass(frozen=True)
class Conditioning:
    """What a prompt asks for, with the picture a video starts from."""

    text: str
    start: Image.Image | None = None


@dataclass(frozen=True)
class Pictures:
    """A batch of pictures, ComfyUI's IMAGE."""

    frames: Frames

    def __repr__(self) -> str:
        return f"<{len(self.frames)} pictures of {self.size[0]} x {self.size[1]}>"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first picture."""
        return self.frames[0].size


@dataclass(frozen=True)
class Request:
    """All that a sampler was asked for: what a picture of the stand-in shows."""

    model: Model
    positive: Conditioning
    negative: Conditioning
    seed: int
    steps: int
    cfg: float
    sampler: str
    denoise: float


@dataclass(frozen=True)
class Latent:
    """A batch of latents: its size in pixels, what it was made from, and what was asked of it."""

    width: int
    height: int
    count: int
    video: bool = False
    origin: Frames = ()
    request: Request | None = None


@dataclass(frozen=True)
class Video:
    """Frames with their rate."""

    pictures: Pictures
    fps: float


@dataclass(frozen=True)
class TrainedLora:
    """What training gave: enough to write a LoRA file."""

    rank: int
    steps: int
    seed: int
    captions: tuple[str, ...] = field(default=())
