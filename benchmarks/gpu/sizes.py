"""How much of each thing is run: what a card takes minutes for, and what a CPU can do in tests."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of one run.

    Attributes:
        side: of a picture, in pixels; `steps` its sampling steps.
        runs: pictures of each kind whose median counts.
        loras: characters in rotation, each with a LoRA of `rank`; `switches` of them are stepped
            through one by one.
        clip_width, clip_height, frames, clip_steps: of a clip.
        jobs: pictures queued at once for the gaps between them.
        photos: of a training; `train_side` their resolution, `train_steps` the steps measured.
    """

    side: int = 1024
    steps: int = 30
    runs: int = 5
    loras: int = 50
    rank: int = 32
    switches: int = 10
    clip_width: int = 1024
    clip_height: int = 576
    frames: int = 25
    clip_steps: int = 20
    jobs: int = 12
    photos: int = 20
    train_side: int = 1024
    train_steps: int = 30


FULL: Final = Sizes()
TINY: Final = Sizes(
    side=256,
    steps=2,
    runs=2,
    loras=3,
    rank=1,
    switches=2,
    clip_width=256,
    clip_height=256,
    frames=2,
    clip_steps=1,
    jobs=3,
    photos=5,
    train_side=256,
    train_steps=6,
)
