"""How a node fails, and how ComfyUI tells of it."""

import traceback
from collections.abc import Mapping
from typing import Any, Final

import av.error
from PIL import UnidentifiedImageError
from safetensors import SafetensorError

from local.comfyui.faults import Faults
from local.comfyui.folders import OutsideOutputFolder

NODE_FAILURES: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    OutsideOutputFolder,
    RuntimeError,
    SafetensorError,
    TypeError,
    UnidentifiedImageError,
    ValueError,
    av.error.FFmpegError,
)
"""What a node may raise: it ends its prompt, and the next one goes on."""

_OUT_OF_MEMORY: Final = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of"
    " which 1.02 GiB is free."
)
_OUT_OF_MEMORY_TIPS: Final = (
    "This error means you ran out of memory on your GPU.\n\nTIPS: If the workflow worked before you"
    " might have accidentally set the batch_size to a large number."
)


class OutOfMemory(RuntimeError):
    """What torch raises for want of GPU memory."""

    reported_as = "torch.OutOfMemoryError"


def raise_due(faults: Faults, class_type: str) -> None:
    """Fail where a test has asked for it.

    Raises:
        OutOfMemory: the fault `oom_at_node`.
        RuntimeError: the fault `fail_at_node`.
    """
    if faults.due("oom_at_node", class_type):
        raise OutOfMemory(_OUT_OF_MEMORY)
    if faults.due("fail_at_node", class_type):
        raise RuntimeError("The stand-in was told to fail here.")


def described(error: Exception, values: Mapping[str, list[Any]]) -> dict[str, Any]:
    """What `execution_error` says of an exception and of the inputs that led to it."""
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    tips = _OUT_OF_MEMORY_TIPS if isinstance(error, OutOfMemory) else ""
    return {
        "exception_message": f"{error}\n{tips}",
        "exception_type": getattr(error, "reported_as", f"{module}{kind.__qualname__}"),
        "traceback": traceback.format_tb(error.__traceback__),
        "current_inputs": {name: [_shown(v) for v in given] for name, given in values.items()},
    }


def _shown(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
