"""Where things lie in the bucket, and how identifiers look.

    characters/{id}/character.json                    the record
    characters/{id}/versions/{version}.json           one per LoRA, immutable
    characters/{id}/loras/{sha256}.safetensors        weights, immutable, addressed by content
    characters/{id}/training/{version}/…              what a training leaves beside its weights
    characters/{id}/references/{sha256}.jpg           photos of it, immutable, addressed by content
    characters/{id}/training/{version}/identity.json  the face of its photos, as numbers
    registry/conditions.json                          which write conditions the store enforces
    registry/newest/{inverted time}-{id}              empty markers: characters by creation time

The prefix that several deployments in one bucket may use is the store's business.
"""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from lora_registry import fields
from lora_registry.errors import refused_as

CHARACTERS: Final = "characters/"
CONDITIONS: Final = "registry/conditions.json"
PROBES: Final = "registry/probe/"
NEWEST: Final = "registry/newest/"

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]")
_MAX_JOB_PART: Final = 80
_STAMP: Final = "%Y%m%dT%H%M%S"
_STAMP_LENGTH: Final = 18  # 20261122T142141 and three digits of milliseconds
_LAST_MS: Final = 10**13 - 1  # 13 digits hold every time until the year 2286
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def checked_character_id(character_id: str) -> str:
    """Answer the id if it is one. Raises InvalidRequest."""
    with refused_as("character_id"):
        return fields.character_id(character_id)


def checked_version_id(version: str) -> str:
    """Answer the version id if it is one. Raises InvalidRequest."""
    with refused_as("version"):
        return fields.version_id(version)


def is_character_id(name: str) -> bool:
    """Whether a folder's name can be a character's."""
    return re.fullmatch(fields.CHARACTER_ID, name) is not None


def record_key(character_id: str) -> str:
    """The one mutable object of a character."""
    return f"{CHARACTERS}{checked_character_id(character_id)}/character.json"


def folder(character_id: str) -> str:
    """Everything of a character, its outputs included."""
    return f"{CHARACTERS}{checked_character_id(character_id)}/"


def versions_prefix(character_id: str) -> str:
    """Where a character's version documents are."""
    return f"{folder(character_id)}versions/"


def version_key(character_id: str, version: str) -> str:
    """A version's immutable document."""
    return f"{versions_prefix(character_id)}{checked_version_id(version)}.json"


def version_of(key: str) -> str:
    """The version id that a version document's key names."""
    return key.rsplit("/", 1)[-1].removesuffix(".json")


def weights_prefix(character_id: str) -> str:
    """Where a character's weight files are."""
    return f"{folder(character_id)}loras/"


def weights_key(character_id: str, sha256: str) -> str:
    """A weight file, named by its content."""
    return f"{weights_prefix(character_id)}{sha256}.safetensors"


def references_prefix(character_id: str) -> str:
    """Where a character's reference photos are."""
    return f"{folder(character_id)}references/"


def reference_key(character_id: str, sha256: str) -> str:
    """A reference photo, a JPEG named by its content."""
    return f"{references_prefix(character_id)}{sha256}.jpg"


def training_prefix(character_id: str, version: str) -> str:
    """Captions, dataset manifest, loss curve and preview sheet of one training."""
    return f"{folder(character_id)}training/{checked_version_id(version)}/"


def identity_key(character_id: str, version: str) -> str:
    """The face that a version's photos show, as numbers."""
    return f"{training_prefix(character_id, version)}identity.json"


def job_part(job_id: str) -> str:
    """A job id as it stands in a version id; unusual ones keep apart by a hash of the whole."""
    safe = _UNSAFE.sub("_", job_id)
    if safe == job_id and 0 < len(job_id) <= _MAX_JOB_PART:
        return job_id
    digest = hashlib.sha256(job_id.encode()).hexdigest()[:12]
    return f"{safe[: _MAX_JOB_PART - 13]}-{digest}"


def version_id(at: datetime, job_id: str) -> str:
    """An id that sorts by time (milliseconds) and carries the job that made the version."""
    return f"{at.strftime(_STAMP)}{at.microsecond // 1000:03d}-{job_part(job_id)}"


def made_by(version: str, job_id: str) -> bool:
    """Whether this job made this version, whatever the clock said then."""
    return version[_STAMP_LENGTH:] == f"-{job_part(job_id)}"


def made_at(version: str) -> datetime | None:
    """The time in a version id; None for an id that carries none."""
    stamp = version[:_STAMP_LENGTH]
    try:
        second = datetime.strptime(stamp[:-3], _STAMP).replace(tzinfo=UTC)
        return second + timedelta(milliseconds=int(stamp[-3:]))
    except ValueError:
        return None


def newest_key(character_id: str, created_at: datetime) -> str:
    """The marker whose key sorts a character before every older one."""
    inverted = _LAST_MS - (created_at - _EPOCH) // timedelta(milliseconds=1)
    return f"{NEWEST}{inverted:013d}-{character_id}"


def newest_of(key: str) -> str:
    """The character id that a marker's key names."""
    return key.removeprefix(NEWEST).partition("-")[2]
