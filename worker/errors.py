"""What can go wrong in the worker, as nouns with facts; each carries the code that a caller sees.

The contract (codes, whether to try again) is `errors` at the top level. What the bucket says
(`storage_unavailable`) is `lora_registry.store.StoreError`.
"""

from errors import CodedError, ErrorCode


class WorkerError(CodedError):
    """Base of this package's errors."""


class InvalidInput(WorkerError):
    """A field of the job is missing, unknown, of the wrong type or out of range."""

    code = ErrorCode.INVALID_INPUT


class InvalidSettings(WorkerError):
    """The environment cannot be used: one line per setting."""


class ImageRejected(WorkerError):
    """A picture that is not one, is too large, or does not decode."""

    code = ErrorCode.IMAGE_REJECTED


class DatasetRejected(WorkerError):
    """Too few usable photos, or an archive beyond its bounds; `details` has the verdicts."""

    code = ErrorCode.DATASET_REJECTED


class SourceUnreachable(WorkerError):
    """A source that did not answer, answered with an error, or was too large or too slow."""

    code = ErrorCode.SOURCE_UNREACHABLE


class SourceForbidden(WorkerError):
    """A source that we will not fetch: private address, other scheme, key outside its prefix."""

    code = ErrorCode.SOURCE_FORBIDDEN


class EngineUnavailable(WorkerError):
    """ComfyUI does not answer, or did not become ready."""

    code = ErrorCode.ENGINE_UNAVAILABLE


class EngineCrashed(WorkerError):
    """ComfyUI, or the trainer, ended while it had work of ours."""

    code = ErrorCode.ENGINE_CRASHED


class WorkflowRejected(WorkerError):
    """ComfyUI refused the graph; `details` names node, input and allowed values."""

    code = ErrorCode.WORKFLOW_REJECTED


class ModelMissing(WorkerError):
    """A model file that the workflow names is not where ComfyUI looks."""

    code = ErrorCode.MODEL_MISSING


class ExecutionFailed(WorkerError):
    """A node failed; `details` has its id, type and message."""

    code = ErrorCode.EXECUTION_FAILED


class OutputDamaged(ExecutionFailed):
    """ComfyUI wrote a file that does not open, though it said it was done; a second try may."""


class OutOfMemory(WorkerError):
    """The GPU's memory did not suffice, a second try included."""

    code = ErrorCode.OUT_OF_MEMORY


class TrainingFailed(WorkerError):
    """The trainer ended without a LoRA that passes the checks."""

    code = ErrorCode.TRAINING_FAILED


class TrainingDiverged(WorkerError):
    """The loss became NaN, or the weights did."""

    code = ErrorCode.TRAINING_DIVERGED


class TimedOut(WorkerError):
    """The job's own deadline passed."""

    code = ErrorCode.TIMEOUT


class Cancelled(WorkerError):
    """The job was cancelled from outside."""

    code = ErrorCode.CANCELLED


class DiskFull(WorkerError):
    """The local disk has no space left; `worker.service` then has the LoRA cache give some back."""

    code = ErrorCode.DISK_FULL


class Internal(WorkerError):
    """Something unforeseen; the log has it, the caller only learns the job's id."""
