"""The registry's documents, pure: what a character is, and what a job needs of it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from lora_registry.errors import (
    CharacterDeleted,
    DocumentInvalid,
    NoActiveVersion,
    OnlyReferences,
)

SCHEMA_VERSION: Final = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Status = Literal["active", "deleted"]


class Document(BaseModel):
    """Base of what lies in the bucket; fields of a later release survive a rewrite by this one."""

    model_config = ConfigDict(extra="allow", frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """The document as it is stored."""
        return self.model_dump_json(indent=1).encode()


class ActiveVersion(BaseModel):
    """The record's copy of its active version: all that a generation job needs to find the file.

    `size` is in bytes; `strength` is what a job uses that names none.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str
    key: str
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    rank: Annotated[int, Field(ge=1)]
    strength: float


class FamilyVersion(ActiveVersion):
    """The active version for one base model; `previous` are those that a rollback goes back to."""

    trigger: str
    class_noun: str
    previous: tuple[str, ...] = ()


class Reference(BaseModel):
    """A photo of the character, which workflows with an input for references take as it is.

    `size` is in bytes, `width` and `height` in pixels.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    key: str
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    content_type: str
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]


class VersionLikeness(BaseModel):
    """How alike a version's preview pictures are to the photos it was trained on, 0 to 1.

    `by_prompt` is the mean of each prompt; `photos` were judged; `step` is the one chosen.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    score: float
    by_prompt: dict[str, float]
    scorer: str
    scorer_version: str
    photos: int
    step: int


class CharacterVersion(Document):
    """One trained or registered LoRA; written once, never changed."""

    character_id: str
    id: str
    job_id: str
    key: str
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    rank: Annotated[int, Field(ge=1)]
    strength: float
    format: str
    trigger: str
    class_noun: str
    base_model: str
    created_at: AwareDatetime
    training: dict[str, Any] | None = None
    likeness: VersionLikeness | None = None

    @property
    def active(self) -> ActiveVersion:
        """The copy that a record carries while this version is the active one."""
        return ActiveVersion(
            id=self.id,
            key=self.key,
            sha256=self.sha256,
            size=self.size,
            rank=self.rank,
            strength=self.strength,
        )

    def of_family(self, previous: tuple[str, ...]) -> FamilyVersion:
        """The entry that a record has while this version is its base model's active one."""
        return FamilyVersion(
            **self.active.model_dump(),
            trigger=self.trigger,
            class_noun=self.class_noun,
            previous=previous,
        )


class CharacterRecord(Document):
    """A character as a generation job reads it, in one object.

    `active` is the version activated last, whatever its base model: what a job gets that leaves its
    workflow open. `trigger`, `class_noun` and `base_model` are its own; an instant character has
    none yet, and an empty base model. `families` has the active version of each base model.
    `references` are photos for workflows that take those. `previous` are the versions that a
    rollback goes back to, the latest last; `writes` are the last write ids, by which a writer knows
    its own success behind a lost reply and a retried job its earlier run. `swept` is set on a
    tombstone whose files are being removed: it cannot be restored any more.
    """

    character_id: str
    name: str
    trigger: str
    class_noun: str
    base_model: str
    status: Status = "active"
    swept: bool = False
    active: ActiveVersion | None = None
    previous: tuple[str, ...] = ()
    families: dict[str, FamilyVersion] = {}
    references: tuple[Reference, ...] = ()
    revision: Annotated[int, Field(ge=0)] = 0
    write_id: str = ""
    writes: tuple[str, ...] = ()
    created_at: AwareDatetime
    updated_at: AwareDatetime

    @property
    def deleted(self) -> bool:
        """Whether this is a tombstone."""
        return self.status == "deleted"

    def summary(self) -> dict[str, Any]:
        """The line of a listing, JSON-ready."""
        fields = {"character_id", "name", "status", "trigger", "active", "updated_at"}
        return self.model_dump(mode="json", include=fields)


_D = TypeVar("_D", bound=Document)


@dataclass(frozen=True, slots=True)
class UsableVersion:
    """What a generation job needs of a character; `size` in bytes, `strength` the default."""

    character_id: str
    name: str
    trigger: str
    class_noun: str
    base_model: str
    version: str
    key: str
    sha256: str
    size: int
    rank: int
    strength: float


def parse_record(body: bytes, key: str) -> CharacterRecord:
    """Read a record document, an older release's too. Raises DocumentInvalid."""
    return migrated(_parse(CharacterRecord, body, key))


def migrated(record: CharacterRecord) -> CharacterRecord:
    """The same with its active version among `families`.

    A release before them wrote none; and where such a release changes a record of this one, it
    changes `active` alone, so that `active` is what counts.
    """
    active, known = record.active, record.families.get(record.base_model)
    if active is None or (known is not None and known.id == active.id):
        return record
    entry = FamilyVersion(
        **active.model_dump(),
        trigger=record.trigger,
        class_noun=record.class_noun,
        previous=record.previous,
    )
    return record.model_copy(update={"families": {**record.families, record.base_model: entry}})


def parse_version(body: bytes, key: str) -> CharacterVersion:
    """Read a version document. Raises DocumentInvalid."""
    return _parse(CharacterVersion, body, key)


def _parse(kind: type[_D], body: bytes, key: str) -> _D:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["loc"] == ("schema_version",):
            reason = "a newer release wrote it, update this worker"
        else:
            reason = f"{'.'.join(map(str, first['loc'])) or 'it'} is damaged"
        raise DocumentInvalid(key, reason) from error


def milliseconds(at: float) -> datetime:
    """Epoch seconds as the registry keeps times: UTC, whole milliseconds."""
    exact = datetime.fromtimestamp(at, UTC)
    return exact.replace(microsecond=exact.microsecond // 1000 * 1000)


def usable(record: CharacterRecord, base_model: str | None = None) -> UsableVersion:
    """The active version of a record: of that base model where it has one, else the latest.

    Raises:
        CharacterDeleted, NoActiveVersion.
    """
    if record.deleted:
        raise CharacterDeleted(record.character_id)
    if record.active is None:
        raise (OnlyReferences if record.references else NoActiveVersion)(record.character_id)
    families = migrated(record).families
    family = base_model if base_model in families else record.base_model
    active = families[family]
    return UsableVersion(
        character_id=record.character_id,
        name=record.name,
        trigger=active.trigger,
        class_noun=active.class_noun,
        base_model=family,
        version=active.id,
        key=active.key,
        sha256=active.sha256,
        size=active.size,
        rank=active.rank,
        strength=active.strength,
    )


def pinned(record: CharacterRecord, version: CharacterVersion) -> UsableVersion:
    """A version that a job names itself; its own trigger counts, not the active one's.

    Raises:
        CharacterDeleted: there is a tombstone.
    """
    if record.deleted:
        raise CharacterDeleted(record.character_id)
    return UsableVersion(
        character_id=record.character_id,
        name=record.name,
        trigger=version.trigger,
        class_noun=version.class_noun,
        base_model=version.base_model,
        version=version.id,
        key=version.key,
        sha256=version.sha256,
        size=version.size,
        rank=version.rank,
        strength=version.strength,
    )
