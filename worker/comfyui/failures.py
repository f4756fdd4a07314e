"""A failed node as the error that the caller gets."""

from worker.comfyui.events import Failed
from worker.comfyui.wording import plain
from worker.errors import DiskFull, ExecutionFailed, OutOfMemory, WorkerError

_NO_SPACE = ("[errno 28]", "no space left on device")
_NO_MEMORY = ("out of memory", "allocation on device")


def failure(event: Failed) -> WorkerError:
    """`OutOfMemory`, `DiskFull` or `ExecutionFailed`, with node, node type and message."""
    message = plain(event.message).rstrip(". ") or "no reason given"
    details = {
        "node": event.node,
        "node_type": event.node_type,
        "exception": plain(event.exception_type),
        "message": message,
    }
    where = f"Node {event.node} ({event.node_type})" if event.node else "The workflow"
    if _out_of_memory(event):
        return OutOfMemory(
            f"{where} ran out of GPU memory; ask for a smaller size or a lower count.",
            details=details,
        )
    if any(words in event.message.lower() for words in _NO_SPACE):
        return DiskFull(f"{where} found no room on the worker's disk.", details=details)
    return ExecutionFailed(f"{where} failed: {message}.", details=details)


def _out_of_memory(event: Failed) -> bool:
    # torch.OutOfMemoryError, torch.cuda.OutOfMemoryError; older drivers raise a RuntimeError.
    if event.exception_type.endswith("OutOfMemoryError"):
        return True
    return any(words in event.message.lower() for words in _NO_MEMORY)
