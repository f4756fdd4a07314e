"""The file that moves characters between buckets: a tar of documents and weights.

Members bear the keys of the bucket: `characters/{id}/character.json`, `…/versions/{version}.json`,
`…/loras/{sha256}.safetensors`, `…/training/{version}/…`, `…/references/{sha256}.jpg`. Outputs stay
behind. The last member,
`manifest.json`, lists every other with size and SHA-256, so an archive that is cut off is known
before anything is written. It is not compressed: weights do not get smaller.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from lora_registry import layout
from lora_registry.character import (
    CharacterRecord,
    CharacterVersion,
    Sha256,
    milliseconds,
    parse_record,
    parse_version,
)
from lora_registry.errors import ArchiveInvalid, DocumentInvalid
from lora_registry.tensorfile import sha256_of

_MANIFEST: Final = "manifest.json"
_MAX_DOCUMENT: Final = 64 * 1024 * 1024
_CHUNK: Final = 1024 * 1024
_PARTS: Final = frozenset({"character.json", "versions", "loras", "training", "references"})


class Member(BaseModel):
    """One file of an archive; `size` in bytes."""

    name: str
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Manifest(BaseModel):
    """The archive's last member."""

    schema_version: Literal[1] = 1
    created_at: AwareDatetime
    members: tuple[Member, ...]


class ArchiveWriter:
    """Writes members one after the other; the file appears whole when the block ends well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._members: list[Member] = []

    def __enter__(self) -> Self:
        self._tar = tarfile.open(self._part, "w", format=tarfile.PAX_FORMAT)
        return self

    def __exit__(self, *exc: object) -> None:
        self._tar.close()
        self._part.unlink(missing_ok=True)

    def add(self, name: str, path: Path) -> None:
        """Add a local file under a bucket's key."""
        with path.open("rb") as file:
            self._add(name, file)
        size = path.stat().st_size
        self._members.append(Member(name=name, size=size, sha256=sha256_of(path)))

    def finish(self, now: float) -> None:
        """Write the manifest and give the file its name; `now` in epoch seconds."""
        manifest = Manifest(created_at=milliseconds(now), members=tuple(self._members))
        self._add(_MANIFEST, io.BytesIO(manifest.model_dump_json(indent=1).encode()))
        self._tar.close()
        self._part.replace(self._path)

    def _add(self, name: str, file: IO[bytes]) -> None:
        info = tarfile.TarInfo(name)
        info.size = file.seek(0, io.SEEK_END)
        file.seek(0)
        self._tar.addfile(info, file)


class ArchiveReader:
    """An archive that was checked from end to end, opened for reading.

    Raises:
        ArchiveInvalid: on entering; it is cut off, damaged or not one of ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        try:
            self._tar = tarfile.open(self._path, "r:")
        except (tarfile.TarError, EOFError) as error:
            raise ArchiveInvalid("The archive is no tar file; export again.") from error
        try:
            self._files = {info.name: info for info in self._tar if info.isreg()}
            self._members = {member.name: member for member in self._manifest().members}
            self._check()
        except (tarfile.TarError, EOFError) as error:
            self._tar.close()
            raise ArchiveInvalid("The archive is damaged; export again.") from error
        except BaseException:
            self._tar.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._tar.close()

    def characters(self) -> dict[str, list[str]]:
        """The members of each character."""
        names: dict[str, list[str]] = {}
        for name in self._members:
            names.setdefault(_place_of(name)[0], []).append(name)
        return names

    def size(self, name: str) -> int:
        """A member's size in bytes."""
        return self._members[name].size

    def head(self, name: str) -> CharacterRecord:
        """A record document."""
        return parse_record(self._document(name), name)

    def version(self, name: str) -> CharacterVersion:
        """A version document."""
        return parse_version(self._document(name), name)

    def save(self, name: str, path: Path) -> None:
        """Copy a member to a local file."""
        with path.open("wb") as target:
            for chunk in self._chunks(name):
                target.write(chunk)

    def _manifest(self) -> Manifest:
        try:
            return Manifest.model_validate_json(self._document(_MANIFEST))
        except (KeyError, ValidationError) as error:
            raise ArchiveInvalid(
                "The archive has no manifest; it is cut off, export again."
            ) from error

    def _check(self) -> None:
        """Compare every member with the manifest, and the documents with each other."""
        for member in self._members.values():
            digest = hashlib.sha256()
            for chunk in self._chunks(member.name):
                digest.update(chunk)
            if digest.hexdigest() != member.sha256:
                raise ArchiveInvalid(f"The archive's member {member.name!r} is damaged.")
        for name in self._members:
            try:
                self._check_document(name)
            except DocumentInvalid as error:
                raise ArchiveInvalid(f"The archive's document {name!r} is damaged.") from error

    def _check_document(self, name: str) -> None:
        character_id, part = _place_of(name)
        if part == "character.json":
            record = self.head(name)
            actives = [record.active, *record.families.values()]
            named = {layout.version_key(character_id, each.id) for each in actives if each}
            named |= {reference.key for reference in record.references}
            if record.character_id != character_id or named - self._members.keys():
                raise ArchiveInvalid(f"The archive's record {name!r} names what is not in it.")
        elif part == "versions":
            self._check_version(name)

    def _check_version(self, name: str) -> None:
        version = self.version(name)
        if layout.version_key(version.character_id, version.id) != name:
            raise ArchiveInvalid(f"The archive's document {name!r} is another version's.")
        if version.key != layout.weights_key(version.character_id, version.sha256):
            raise ArchiveInvalid(f"The archive's document {name!r} names weights elsewhere.")
        weights = self._members.get(version.key)
        if weights is None or (weights.size, weights.sha256) != (version.size, version.sha256):
            raise ArchiveInvalid(f"The archive lacks the weights of {name!r}.")

    def _document(self, name: str) -> bytes:
        file = self._tar.extractfile(self._files[name])
        return file.read(_MAX_DOCUMENT) if file else b""

    def _chunks(self, name: str) -> Iterator[bytes]:
        if name not in self._files:
            raise ArchiveInvalid(f"The archive has no file {name!r}; it is cut off, export again.")
        file = self._tar.extractfile(self._files[name])
        while file and (chunk := file.read(_CHUNK)):
            yield chunk


def _place_of(name: str) -> tuple[str, str]:
    """Character id and kind of a member. Raises ArchiveInvalid."""
    folder, _, rest = name.partition("/")
    character_id, _, rest = rest.partition("/")
    parts = rest.split("/")
    if (
        f"{folder}/" != layout.CHARACTERS
        or not layout.is_character_id(character_id)
        or parts[0] not in _PARTS
        or not {"", ".", ".."}.isdisjoint(parts)
    ):
        raise ArchiveInvalid(f"The archive's member {name[:200]!r} is not a registry's.")
    return character_id, parts[0]
