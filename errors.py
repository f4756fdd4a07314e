"""The one error contract: every package's errors carry a code, and the code says the rest.

Imports nothing of ours, so that `lora_registry` and `workflows`, which may not import the worker,
share it. README's table of codes is tested against `RETRYABLE`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final


class ErrorCode(StrEnum):
    """What a caller's program branches on; a code never changes its meaning."""

    INVALID_INPUT = "invalid_input"
    CHARACTER_NOT_FOUND = "character_not_found"
    VERSION_NOT_FOUND = "version_not_found"
    WORKFLOW_NOT_FOUND = "workflow_not_found"
    WORKFLOW_REJECTED = "workflow_rejected"
    MODEL_MISSING = "model_missing"
    IMAGE_REJECTED = "image_rejected"
    DATASET_REJECTED = "dataset_rejected"
    SOURCE_UNREACHABLE = "source_unreachable"
    SOURCE_FORBIDDEN = "source_forbidden"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    STORAGE_REFUSED = "storage_refused"
    REGISTRY_CORRUPT = "registry_corrupt"
    LORA_CORRUPT = "lora_corrupt"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    ENGINE_CRASHED = "engine_crashed"
    OUT_OF_MEMORY = "out_of_memory"
    EXECUTION_FAILED = "execution_failed"
    TRAINING_FAILED = "training_failed"
    TRAINING_DIVERGED = "training_diverged"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    CONFLICT = "conflict"
    DISK_FULL = "disk_full"
    INTERNAL = "internal"
    # Of the HTTP API alone; no job fails with one.
    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate_limited"
    TOO_LARGE = "too_large"
    JOB_NOT_FOUND = "job_not_found"
    ENDPOINT_UNAVAILABLE = "endpoint_unavailable"


RETRYABLE: Final[Mapping[ErrorCode, bool]] = {
    ErrorCode.INVALID_INPUT: False,
    ErrorCode.CHARACTER_NOT_FOUND: False,
    ErrorCode.VERSION_NOT_FOUND: False,
    ErrorCode.WORKFLOW_NOT_FOUND: False,
    ErrorCode.WORKFLOW_REJECTED: False,
    ErrorCode.MODEL_MISSING: False,
    ErrorCode.IMAGE_REJECTED: False,
    ErrorCode.DATASET_REJECTED: False,
    ErrorCode.SOURCE_UNREACHABLE: False,
    ErrorCode.SOURCE_FORBIDDEN: False,
    ErrorCode.STORAGE_UNAVAILABLE: True,
    ErrorCode.STORAGE_REFUSED: False,
    ErrorCode.REGISTRY_CORRUPT: False,
    ErrorCode.LORA_CORRUPT: False,
    ErrorCode.ENGINE_UNAVAILABLE: True,
    ErrorCode.ENGINE_CRASHED: True,
    ErrorCode.OUT_OF_MEMORY: False,
    ErrorCode.EXECUTION_FAILED: False,
    ErrorCode.TRAINING_FAILED: False,
    ErrorCode.TRAINING_DIVERGED: False,
    ErrorCode.TIMEOUT: False,
    ErrorCode.CANCELLED: False,
    ErrorCode.CONFLICT: True,
    ErrorCode.DISK_FULL: True,
    ErrorCode.INTERNAL: False,
    ErrorCode.UNAUTHORIZED: False,
    ErrorCode.RATE_LIMITED: True,
    ErrorCode.TOO_LARGE: False,
    ErrorCode.JOB_NOT_FOUND: False,
    ErrorCode.ENDPOINT_UNAVAILABLE: True,
}
"""Whether the same job, sent again unchanged, can succeed."""


class CodedError(Exception):
    """Base of the errors of every package.

    Args:
        message: one sentence a person can act on; no traceback, no path of this machine.
        field: the job's field at fault, dotted (`init_image.url`).
        details: further facts, JSON values only.
    """

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL

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

    @property
    def retryable(self) -> bool:
        """Whether the same job can succeed later: a function of the code alone."""
        return RETRYABLE[self.code]
