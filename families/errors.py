"""What can be wrong with a family folder, or with a LoRA that is held against the families."""

from collections.abc import Iterable, Mapping
from typing import Any

from errors import CodedError, ErrorCode


class FamilyError(CodedError):
    """Base of this package's errors."""


class FamilyInvalid(FamilyError):
    """A family folder that cannot be used: said at start, with the folder's name."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"Family {name!r}: {problem}.")


class FamilyNotFound(FamilyError):
    """No folder of that name."""

    code = ErrorCode.INVALID_INPUT

    def __init__(self, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        super().__init__(
            f"base_model: there is no family {name!r}; this worker knows: {', '.join(known)}.",
            field="base_model",
            details={"known": known},
        )


class LoraRejected(FamilyError):
    """A safetensors file that is no LoRA of one known family; the message says what to do."""

    code = ErrorCode.INVALID_INPUT

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, field="source", details=details)


class LoraDamaged(FamilyError):
    """Parts of a LoRA that do not fit each other, or are missing."""

    code = ErrorCode.LORA_CORRUPT
