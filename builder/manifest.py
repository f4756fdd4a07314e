"""models.toml as values: which file, from where, how large, which hash, for which images."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from builder.errors import ManifestInvalid

MANIFEST: Final = Path(__file__).with_name("models.toml")
_HUB: Final = "huggingface.co"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a Hugging Face repository: `org/name`, a commit or branch, a path in it."""

    repository: str
    revision: str
    path: str


@dataclass(frozen=True, slots=True)
class Model:
    """One pinned file; `folder` is below the models folder, `bytes` its exact size.

    `name` is what workflows call it; the file is called `file`, or else as its url ends.
    """

    name: str
    folder: str
    url: str
    sha256: str
    bytes: int
    licence: str
    targets: tuple[str, ...]
    verified: bool = True
    file: str = ""

    @property
    def relative(self) -> PurePosixPath:
        """Where it lies below a models folder: `checkpoints/svd_xt.safetensors`."""
        return PurePosixPath(self.folder) / (self.file or self._last_of_url)

    @property
    def _last_of_url(self) -> str:
        return unquote(urlsplit(self.url).path.rpartition("/")[2])

    @property
    def hub(self) -> HubFile | None:
        """Its place on Hugging Face, when its url says that it comes from there."""
        parts = urlsplit(self.url)
        match unquote(parts.path).split("/"):
            case ["", org, name, "resolve", revision, *path] if parts.hostname == _HUB and path:
                return HubFile(f"{org}/{name}", revision, "/".join(path))
        return None


def load(path: Path = MANIFEST) -> tuple[Model, ...]:
    """Read a manifest, every field checked.

    Raises:
        ManifestInvalid: naming the model and the field.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ManifestInvalid(f"{path.name}: {error}") from error
    models = tuple(_model(entry) for entry in document.get("model", ()))
    for kind in ("name", "relative"):
        counted = Counter(str(getattr(model, kind)) for model in models)
        if doubled := [what for what, count in counted.items() if count > 1]:
            raise ManifestInvalid(f"{path.name}: more than one model is {', '.join(doubled)}")
    return models


def select(
    models: Iterable[Model], *, target: str | None = None, names: Iterable[str] = ()
) -> tuple[Model, ...]:
    """The models of an image, and those named (by name or by folder/file).

    Raises:
        ManifestInvalid: a name that no model has.
    """
    known = tuple(models)
    chosen = [model for model in known if target in model.targets]
    for wanted in names:
        found = [model for model in known if wanted in {model.name, str(model.relative)}]
        if not found:
            raise ManifestInvalid(f"no model is called {wanted!r}")
        chosen += [model for model in found if model not in chosen]
    return tuple(chosen)


def _model(entry: Mapping[str, Any]) -> Model:
    title = entry.get("name", "a model without name")
    unknown = entry.keys() - {field.name for field in fields(Model)}
    if unknown:
        raise ManifestInvalid(f"{title}: unknown field {', '.join(sorted(unknown))}")
    try:
        model = Model(**{**entry, "targets": tuple(entry["targets"])})
    except (KeyError, TypeError) as error:
        raise ManifestInvalid(f"{title}: {error} is missing") from error
    if fault := _fault(model):
        raise ManifestInvalid(f"{title}: {fault}")
    return model


def _fault(model: Model) -> str | None:
    if not _SHA256.fullmatch(model.sha256):
        return "sha256 must be 64 lower-case hexadecimal digits"
    if model.bytes < 1:
        return "bytes must be the file's size"
    if urlsplit(model.url).scheme not in {"https", "http", "s3"}:
        return "url must be https, http or s3"
    if not (model.file or model._last_of_url):  # noqa: SLF001 - of the same module
        return "url does not end with a file's name; give file"
    if model.relative.is_absolute() or ".." in model.relative.parts or "/" in model.file:
        return "folder and file must stay below the models folder"
    return None
