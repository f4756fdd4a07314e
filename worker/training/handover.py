"""The GPU's memory, handed from ComfyUI to a trainer of its own process, and back."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from worker.cancel import CancelToken, Deadline
from worker.child import ChildProcess, ChildStartFailed
from worker.errors import EngineUnavailable
from worker.settings import inherited_environment

log = logging.getLogger(__name__)

FREE_SHARE: Final = 0.75  # of the whole; the rest is contexts and what torch keeps
_FREE_TIMEOUT_S: Final = 30.0
_LOOK_S: Final = 0.25
_DRIVER_TIMEOUT_S: Final = 10.0


class Memory(Protocol):
    """What is used of `ComfyUIClient`."""

    def free(self, *, unload_models: bool = True, free_memory: bool = True) -> None:
        """Have the models unloaded before the next prompt."""
        ...

    def system_stats(self) -> Mapping[str, Any]:
        """Devices and their memory."""
        ...


class Restartable(Protocol):
    """What is used of `Engine`."""

    @property
    def generation(self) -> int:
        """Counts its starts."""
        ...

    def ensure_ready(self, cancel: CancelToken | None = None) -> None:
        """Ready or raised, started again if need be."""
        ...

    def restart(self, generation: int | None = None, cancel: CancelToken | None = None) -> None:
        """End it and start it again."""
        ...


def gpu_memory(stats: Mapping[str, Any]) -> int | None:
    """Bytes of the first GPU's memory; None where ComfyUI runs on the CPU."""
    device = _gpu(stats)
    return None if device is None else int(device["vram_total"])


def compute_capability() -> float | None:
    """Of the first GPU (7.5 is a T4, 8.0 an A100), by its driver; None where none says so."""
    argv = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader", "--id=0"]
    try:
        with ChildProcess(argv, name="nvidia-smi", env=inherited_environment()) as child:
            child.wait(_DRIVER_TIMEOUT_S)
        return float(child.tail().strip())
    except (ChildStartFailed, ValueError):
        return None


@contextlib.contextmanager
def engine_restored(engine: Restartable) -> Iterator[None]:
    """ComfyUI is ready once the block has ended, however that was."""
    try:
        yield
    finally:
        try:
            engine.ensure_ready()
        except EngineUnavailable:  # the training's own outcome matters more; the next job tries
            log.exception("comfyui is not ready after the training")


@contextlib.contextmanager
def gpu_released(
    engine: Restartable, comfyui: Memory, cancel: CancelToken, timeout_s: float = _FREE_TIMEOUT_S
) -> Iterator[None]:
    """The GPU is free inside the block; ComfyUI is ready again after it, however it ended.

    Raises:
        EngineUnavailable: something else holds the GPU's memory, a restarted ComfyUI or not.
        Cancelled: while waiting for it.
    """
    with engine_restored(engine):
        try:
            comfyui.free(unload_models=True, free_memory=True)
        except EngineUnavailable:  # it has just died: started again, it holds nothing
            engine.ensure_ready(cancel)
        if not _wait_until_free(comfyui, cancel, timeout_s):
            log.warning("comfyui keeps the gpu; restarting it")
            engine.restart(engine.generation, cancel)
            if not _wait_until_free(comfyui, cancel, timeout_s):
                raise EngineUnavailable(
                    "Something else holds the GPU's memory; try another worker."
                )
        yield


def _wait_until_free(comfyui: Memory, cancel: CancelToken, timeout_s: float) -> bool:
    deadline = Deadline(timeout_s)
    while True:
        device = _gpu(comfyui.system_stats())
        if device is None or device["vram_free"] >= FREE_SHARE * device["vram_total"]:
            return True
        if deadline.passed:
            return False
        cancel.sleep(_LOOK_S)


def _gpu(stats: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for device in stats.get("devices", []):
        if device.get("type") != "cpu" and device.get("vram_total"):
            found: Mapping[str, Any] = device
            return found
    return None
