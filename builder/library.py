"""Files that are already there: on a network volume, or in RunPod's cached-model folder.

A model is linked into the models folder rather than copied: ComfyUI (0.33.0) refuses links that
lead out of its input folder, but follows those in model folders, and the trainer is given resolved
paths. Links are absolute, for relative ones break the trainer's check of its base model.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.errors import HashMismatch
from builder.manifest import Model

_BLOB: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Shelves:
    """Where to look: models folders laid out as ours, and Hugging Face cache folders (`hub`)."""

    folders: Sequence[Path] = (Path("/runpod-volume/models"),)
    hub_caches: Sequence[Path] = (Path("/runpod-volume/huggingface-cache/hub"),)

    def find(self, model: Model) -> Path | None:
        """The first file that is this model by name and size, its bytes unread.

        In a Hugging Face cache a large file's blob is named by its sha256, so a snapshot that
        leads to another blob is passed over.
        """
        for path in self._candidates(model):
            if path.is_file() and path.stat().st_size == model.bytes and _may_be(path, model):
                return path
        return None

    def _candidates(self, model: Model) -> Iterator[Path]:
        for folder in self.folders:
            yield folder / model.relative
        if (hub := model.hub) is None:
            return
        for cache in self.hub_caches:
            snapshots = cache / f"models--{hub.repository.replace('/', '--')}" / "snapshots"
            yield snapshots / hub.revision / hub.path
            yield from sorted(snapshots.glob(f"*/{hub.path}"))


def _may_be(path: Path, model: Model) -> bool:
    blob = path.resolve().name
    return not _BLOB.fullmatch(blob) or blob == model.sha256


def digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: Path, model: Model) -> None:
    """Compare a file's content with the manifest.

    Raises:
        HashMismatch: naming both hashes.
    """
    found = digest(path)
    if found != model.sha256:
        raise HashMismatch(str(path), model.sha256, found)


def link(source: Path, place: Path) -> None:
    """Make `place` a link to `source`, whole or not at all; what was there before goes."""
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{place.name}.{os.getpid()}.link")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(source.absolute())
    fresh.replace(place)
