"""What a node gets and gives: its inputs, the server around it, its outputs."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from local.comfyui.faults import Faults
from local.comfyui.folders import Folders
from local.comfyui.picture import Painter
from local.comfyui.png import PngEncoder
from local.comfyui.validation import Graph

# ComfyUI tells progress at the first and last step, else at most every 100 ms and 0.5 %.
_SHORTEST_INTERVAL_S: Final = 0.1
_SMALLEST_PART: Final = 0.005

Inputs = Mapping[str, Any]


class Interrupted(Exception):
    """The prompt was told to stop."""


@dataclass(frozen=True)
class Output:
    """One value per output socket, and what is reported to the client and to history."""

    values: tuple[Any, ...] = ()
    ui: dict[str, list[Any]] | None = None


@dataclass(frozen=True)
class ServerContext:
    """What every node of one server shares."""

    folders: Folders
    faults: Faults
    painter: Painter
    png: PngEncoder
    metadata: bool = True


class Run:
    """One node in one prompt: where it works and whom it tells of its progress."""

    def __init__(
        self,
        context: ServerContext,
        graph: Graph,
        extra_pnginfo: Mapping[str, Any] | None,
        tell: Callable[[int, int], None],
        check: Callable[[], None],
    ) -> None:
        self.context = context
        self.graph = graph
        self.extra_pnginfo = extra_pnginfo
        self._tell = tell
        self._check = check
        self._told = (0.0, 0)

    @property
    def folders(self) -> Folders:
        """The server's folders."""
        return self.context.folders

    @property
    def faults(self) -> Faults:
        """The server's faults."""
        return self.context.faults

    def step(self, step: int, steps: int) -> None:
        """Take as long as a step takes, then tell of it.

        Raises:
            Interrupted: the prompt was told to stop.
        """
        time.sleep(self.faults.latency_s("step_latency_s"))
        self._check()
        now = time.monotonic()
        told_at, told = self._told
        large = step - told >= steps * _SMALLEST_PART and now - told_at >= _SHORTEST_INTERVAL_S
        if told == 0 or step == steps or large:
            self._told = (now, step)
            self._tell(step, steps)


NodeFunction = Callable[[Run, Inputs], Output]
