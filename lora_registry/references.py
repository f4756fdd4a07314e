"""Reference photos in the bucket: a character that no LoRA was trained for yet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lora_registry import fields, layout
from lora_registry.character import Reference
from lora_registry.errors import InvalidRequest, refused_as
from lora_registry.store import Store
from lora_registry.tensorfile import sha256_of

MAX_REFERENCES: Final = 5
REFERENCE_TYPE: Final = "image/jpeg"


@dataclass(frozen=True, slots=True)
class NewReference:
    """A photo about to be kept: a local JPEG without metadata; sides in pixels."""

    path: Path
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class NewCharacter:
    """Photos about to be registered, and what is said about their character.

    Attributes:
        character_id: whose they are.
        job_id: the job that brings them; the same id again changes nothing again.
        photos: 1 to 5, the best first; they take the place of those that there are.
        trigger: the word that will call the character; None keeps the present one, or is the id.
        class_noun: what the character is; None keeps the present one, or is "person".
        name: the display name; None keeps the present one, or is the id.
    """

    character_id: str
    job_id: str
    photos: Sequence[NewReference]
    trigger: str | None = None
    class_noun: str | None = None
    name: str | None = None


def checked(new: NewCharacter) -> NewCharacter:
    """The same with every text in its one form, or refused; cheap.

    Raises:
        InvalidRequest: with the field.
    """
    with refused_as("character_id"):
        fields.character_id(new.character_id)
    if not 1 <= len(new.photos) <= MAX_REFERENCES:
        raise InvalidRequest(
            f"references must be 1 to {MAX_REFERENCES} photos.", field="references"
        )
    return replace(
        new,
        trigger=_text("trigger", new.trigger),
        class_noun=_text("class_noun", new.class_noun),
        name=_text("name", new.name),
    )


def _text(field: str, given: str | None) -> str | None:
    with refused_as(field):
        return None if given is None else fields.short_text(given)


def upload(
    store: Store, new: NewCharacter, check_cancelled: Callable[[], None] | None
) -> tuple[Reference, ...]:
    """Send the photos, also those that are there: a sweep then takes them for new.

    A photo that is given twice is kept once.

    Raises:
        StoreError: the store failed; doing it again is safe.
    """
    sent: dict[str, Reference] = {}
    for photo in new.photos:
        sha256 = sha256_of(photo.path, check_cancelled=check_cancelled)
        if sha256 in sent:
            continue
        key = layout.reference_key(new.character_id, sha256)
        store.upload(
            photo.path,
            key,
            REFERENCE_TYPE,
            metadata={"sha256": sha256},
            check_cancelled=check_cancelled,
            shared=True,
        )
        sent[sha256] = Reference(
            key=key,
            sha256=sha256,
            size=photo.path.stat().st_size,
            content_type=REFERENCE_TYPE,
            width=photo.width,
            height=photo.height,
        )
    return tuple(sent.values())
