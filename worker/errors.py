"""What can go wrong, as nouns with facts; each carries the code that a caller sees.

`lora_registry` and `workflows` import nothing of ours, so they have base errors of their own with
the same four attributes (`code`, `retryable`, `field`, `details`); `CodedError` is that shape. What
the bucket says (`storage_unavailable`) is `lora_registry.store.StoreError`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

ErrorCode = Literal[
    "invalid_input",
    "character_not_found",
    "version_not_found",
    "workflow_not_found",
    "workflow_rejected",
    "model_missing",
    "image_rejected",
    "dataset_rejected",
    "source_unreachable",
    "source_forbidden",
    "storage_unavailable",
    "lora_corrupt",
    "engine_unavailable",
    "engine_crashed",
    "out_of_memory",
    "execution_failed",
    "training_failed",
    "training_diverged",
    "timeout",
    "cancelled",
    "conflict",
    "disk_full",
    "internal",
]


@runtime_checkable
class CodedError(Protocol):
    """What errors of every package share; the message is one sentence a person can act on."""

    @property
    def code(self) -> str:
        """One of `ErrorCode`."""

    @property
    def retryable(self) -> bool:
        """Whether the same job can succeed later."""

    @property
    def field(self) -> str | None:
        """The job's field at fault, dotted."""

    @property
    def details(self) -> Mapping[str, Any]:
        """Further facts, JSON values only."""


class WorkerError(Exception):
    """Base of this package's errors.

    Args:
        message: one sentence a person can act on; no traceback, no path of this machine.
        field: the job's field at fault, dotted (`init_image.url`).
        details: further facts, JSON values only.
    """

    code: ClassVar[ErrorCode] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.field = field
        self.details: Mapping[str, Any] = details or {}


class InvalidInput(WorkerError):
    """A field of the job is missing, unknown, of the wrong type or out of range."""

    code = "invalid_input"


class InvalidSettings(WorkerError):
    """The environment cannot be used: one line per setting."""


class ImageRejected(WorkerError):
    """A picture that is not one, is too large, or does not decode."""

    code = "image_rejected"


class DatasetRejected(WorkerError):
    """Too few usable photos, or an archive beyond its bounds; `details` has the verdicts."""

    code = "dataset_rejected"


class SourceUnreachable(WorkerError):
    """A source that did not answer, answered with an error, or was too large or too slow."""

    code = "source_unreachable"


class SourceForbidden(WorkerError):
    """A source that we will not fetch: private address, other scheme, key outside its prefix."""

    code = "source_forbidden"


class EngineUnavailable(WorkerError):
    """ComfyUI does not answer, or did not become ready."""

    code = "engine_unavailable"
    retryable = True


class EngineCrashed(WorkerError):
    """ComfyUI, or the trainer, ended while it had work of ours."""

    code = "engine_crashed"
    retryable = True


class WorkflowRejected(WorkerError):
    """ComfyUI refused the graph; `details` names node, input and allowed values."""

    code = "workflow_rejected"


class ModelMissing(WorkerError):
    """A model file that the workflow names is not where ComfyUI looks."""

    code = "model_missing"


class ExecutionFailed(WorkerError):
    """A node failed; `details` has its id, type and message."""

    code = "execution_failed"


class OutOfMemory(WorkerError):
    """The GPU's memory did not suffice, a second try included."""

    code = "out_of_memory"


class TrainingFailed(WorkerError):
    """The trainer ended without a LoRA that passes the checks."""

    code = "training_failed"


class TrainingDiverged(WorkerError):
    """The loss became NaN, or the weights did."""

    code = "training_diverged"


class TimedOut(WorkerError):
    """The job's own deadline passed."""

    code = "timeout"


class Cancelled(WorkerError):
    """The job was cancelled from outside."""

    code = "cancelled"


class DiskFull(WorkerError):
    """No room on the local disk, the cache's own space given back already."""

    code = "disk_full"
    retryable = True


class Internal(WorkerError):
    """Something unforeseen; the log has it, the caller only learns the job's id."""
