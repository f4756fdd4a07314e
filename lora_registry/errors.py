"""What the registry and the LoRA cache refuse, as nouns with facts.

What the bucket says is in `lora_registry.store` (`StoreError` and its leaves).
"""

import contextlib
from collections.abc import Iterator

from errors import CodedError, ErrorCode


class RegistryError(CodedError):
    """Base of this package's errors."""


class CharacterNotFound(RegistryError):
    """The store says that this character was never registered."""

    code = ErrorCode.CHARACTER_NOT_FOUND

    def __init__(self, character_id: str, message: str | None = None) -> None:
        super().__init__(
            message or f"There is no character {character_id!r}; train or register it first.",
            field="character_id",
            details={"character_id": character_id},
        )


class CharacterDeleted(CharacterNotFound):
    """The character has a tombstone; until it is swept it can be restored."""

    def __init__(self, character_id: str) -> None:
        super().__init__(
            character_id,
            f"Character {character_id!r} was deleted; restore it to use it again.",
        )


class CharacterInUse(RegistryError):
    """A sweep, or an erasure, met a character that is used; its files stay."""

    code = ErrorCode.CONFLICT

    def __init__(self, character_id: str, message: str | None = None) -> None:
        super().__init__(
            message or f"Character {character_id!r} is in use again; its files stay.",
            field="character_id",
            details={"character_id": character_id},
        )


class VersionNotFound(RegistryError):
    """No such version, or its weights are gone."""

    code = ErrorCode.VERSION_NOT_FOUND

    def __init__(self, character_id: str, version: str, message: str | None = None) -> None:
        super().__init__(
            message or f"Character {character_id!r} has no version {version!r}; list its versions.",
            field="version",
            details={"character_id": character_id, "version": version},
        )


class NoActiveVersion(VersionNotFound):
    """The character exists, but no version of it was made active yet."""

    def __init__(self, character_id: str) -> None:
        super().__init__(
            character_id,
            "",
            f"Character {character_id!r} has no active version; activate one of its versions.",
        )


class OnlyReferences(NoActiveVersion):
    """The character has photos, and no LoRA."""

    def __init__(self, character_id: str) -> None:
        VersionNotFound.__init__(
            self,
            character_id,
            "",
            f"Character {character_id!r} has reference photos and no LoRA yet; choose a workflow "
            "that takes references, or train it.",
        )


class ReferenceMissing(CharacterNotFound):
    """A photo that the record names is not in the bucket."""

    def __init__(self, character_id: str) -> None:
        super().__init__(
            character_id,
            f"A reference photo of character {character_id!r} is gone; create it again from its "
            "photos.",
        )


class NothingToRollBack(VersionNotFound):
    """No version was active before the present one."""

    def __init__(self, character_id: str) -> None:
        super().__init__(
            character_id,
            "",
            f"Character {character_id!r} had no other active version before; activate one by name.",
        )


class InvalidRequest(RegistryError):
    """An identifier, cursor or option outside what the registry accepts."""

    code = ErrorCode.INVALID_INPUT


@contextlib.contextmanager
def refused_as(field: str) -> Iterator[None]:
    """Turn what a rule of `lora_registry.fields` says into the refusal of a field."""
    try:
        yield
    except ValueError as error:
        raise InvalidRequest(f"{field} {error}.", field=field) from None


class LoraCorrupt(RegistryError):
    """The bytes are not what they should be: header, size, checksum, or a value not finite."""

    code = ErrorCode.LORA_CORRUPT


class WriteConflict(RegistryError):
    """Other writers won every attempt until the deadline; nothing was changed."""

    code = ErrorCode.CONFLICT

    def __init__(self, character_id: str, seconds: float) -> None:
        super().__init__(
            f"Character {character_id!r} is being changed by many others; nothing was written "
            f"within {seconds:g} s, try again.",
            field="character_id",
            details={"character_id": character_id},
        )


class DocumentInvalid(RegistryError):
    """A registry document that does not parse, or that a newer release wrote."""

    code = ErrorCode.REGISTRY_CORRUPT

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(
            f"The registry's document {key!r} cannot be used: {reason}.", details={"key": key}
        )
        self.key = key


class ArchiveInvalid(RegistryError):
    """An export archive that is damaged, incomplete or not one of ours."""

    code = ErrorCode.INVALID_INPUT


class CacheDiskFull(RegistryError):
    """No room on the local disk for a LoRA file, everything unused given back already."""

    code = ErrorCode.DISK_FULL


class CacheBusy(RegistryError):
    """Somebody else's download of the same file did not end within the time allowed."""

    code = ErrorCode.CONFLICT
