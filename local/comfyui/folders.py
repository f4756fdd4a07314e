"""The folders ComfyUI reads models from and writes outputs to, and its file naming."""

import mimetypes
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import yaml  # type: ignore[import-untyped]

FolderType = Literal["input", "output", "temp"]

_MODEL_SUFFIXES: Final = frozenset(
    {".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}
)
_IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tiff"})
# Kind of model -> folder names below the models directory; ComfyUI's own list.
_MODEL_FOLDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "checkpoints": ("checkpoints",),
    "loras": ("loras",),
    "vae": ("vae",),
    "text_encoders": ("text_encoders", "clip"),
    "diffusion_models": ("unet", "diffusion_models"),
    "clip_vision": ("clip_vision",),
    "style_models": ("style_models",),
    "embeddings": ("embeddings",),
    "controlnet": ("controlnet", "t2i_adapter"),
    "gligen": ("gligen",),
    "upscale_models": ("upscale_models",),
    "hypernetworks": ("hypernetworks",),
    "photomaker": ("photomaker",),
}
_LEGACY_NAMES: Final = {"unet": "diffusion_models", "clip": "text_encoders"}


class OutsideOutputFolder(Exception):
    """A file name prefix that leads out of the output folder; ComfyUI's own words."""

    reported_as = "Exception"


class Folders:
    """Every folder of one server. Listings are read anew each time: new files count at once."""

    def __init__(self, *, models: Path, output: Path, input: Path, temp: Path) -> None:  # noqa: A002 - ComfyUI's name for it
        self._by_type: dict[str, Path] = {"input": input, "output": output, "temp": temp}
        self._models = {
            kind: [models / name for name in names] for kind, names in _MODEL_FOLDERS.items()
        }
        for folder in self._by_type.values():
            folder.mkdir(parents=True, exist_ok=True)

    def by_type(self, folder_type: str) -> Path | None:
        """`input`, `output` or `temp`; None for any other word."""
        return self._by_type.get(folder_type)

    @property
    def input(self) -> Path:
        """Where LoadImage reads from."""
        return self._by_type["input"]

    @property
    def output(self) -> Path:
        """Where Save nodes write to."""
        return self._by_type["output"]

    @property
    def temp(self) -> Path:
        """Where previews go."""
        return self._by_type["temp"]

    def add_extra_paths(self, config: Path) -> None:
        """Take model folders from a file in the format of ComfyUI's `extra_model_paths.yaml`.

        Raises:
            OSError, yaml.YAMLError: the file cannot be read; ComfyUI doesn't start then either.
        """
        sections = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
        for section in sections.values():
            self._add_section(dict(section or {}), config.parent)

    def _add_section(self, section: dict[str, Any], config_folder: Path) -> None:
        base = config_folder / Path(section.pop("base_path", "")).expanduser()
        first = bool(section.pop("is_default", False))
        for kind, lines in section.items():
            known = self._models.setdefault(_LEGACY_NAMES.get(kind, kind), [])
            for line in filter(None, str(lines).split("\n")):
                known.insert(0 if first else len(known), base / line)

    def kinds(self) -> list[str]:
        """The kinds of models, as `GET /models` lists them."""
        return list(self._models)

    def models(self, kind: str) -> list[str] | None:
        """Names of the model files of a kind, sorted, with their subfolders; None: no such kind."""
        folders = self._models.get(_LEGACY_NAMES.get(kind, kind))
        if folders is None:
            return None
        return sorted({name for folder in folders for name in _files(folder, _MODEL_SUFFIXES)})

    def model(self, kind: str, name: str) -> Path:
        """The file of a model.

        Raises:
            FileNotFoundError: in ComfyUI's words.
        """
        plain = os.path.normpath(f"/{name}").lstrip("/")
        for folder in self._models[kind]:
            if (folder / plain).is_file():
                return folder / plain
        raise FileNotFoundError(f"Model in folder '{kind}' with filename '{name}' not found.")

    def input_images(self) -> list[str]:
        """What LoadImage offers: pictures directly in the input folder."""
        return sorted(
            entry.name
            for entry in self.input.iterdir()
            if entry.is_file() and entry.suffix.lower() in _IMAGE_SUFFIXES
        )

    def input_files(self, *kinds: str) -> list[str]:
        """Files directly in the input folder whose content types begin so, by their suffix."""
        return sorted(
            entry.name
            for entry in self.input.iterdir()
            if entry.is_file() and (mimetypes.guess_type(entry.name)[0] or "").startswith(kinds)
        )

    def input_folders(self) -> list[str]:
        """Every folder below the input folder, as the dataset nodes offer them."""
        found = (entry for entry in self.input.rglob("*") if entry.is_dir())
        return sorted(str(entry.relative_to(self.input)) for entry in found)

    def input_file(self, name: str) -> Path:
        """The file a LoadImage value names; `name [output]` names one of another folder.

        Raises:
            ValueError: it leads out of that folder.
        """
        plain, folder_type = annotated(name)
        folder = self._by_type[folder_type or "input"]
        if not _inside(folder, folder / plain):
            raise ValueError(f"Invalid file path: {plain!r}")
        return folder / plain


class SavePath:
    """Where a Save node writes: `subfolder/name_00001_.ext`, counting on from what is there."""

    def __init__(self, folder: Path, prefix: str, *, width: int = 0, height: int = 0) -> None:
        wanted = os.path.normpath(_expand(prefix, width, height))
        self.subfolder, self.name = os.path.split(wanted)
        self.folder = folder / self.subfolder
        if not _inside(folder, self.folder):
            raise OutsideOutputFolder(
                "**** ERROR: Saving image outside the output folder is not allowed."
                f"\n full_output_folder: {self.folder.resolve()}\n         output_dir: {folder}"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.counter = 1 + max(map(self._number, self.folder.iterdir()), default=0)

    def next_name(self, suffix: str) -> str:
        """The next file name, `.png` and the like included; each call counts on."""
        name = f"{self.name}_{self.counter:05}_{suffix}"
        self.counter += 1
        return name

    def _number(self, entry: Path) -> int:
        if not entry.name.startswith(f"{self.name}_"):
            return 0
        digits = entry.name[len(self.name) + 1 :].split(".")[0].split("_")[0]
        return int(digits) if digits.isdecimal() else 0


def annotated(name: str) -> tuple[str, FolderType | None]:
    """Split ComfyUI's `file.png [output]` into the name and the folder it names, if any."""
    types: tuple[FolderType, ...] = ("output", "input", "temp")
    for folder_type in types:
        if name.endswith(f"[{folder_type}]"):
            return name.removesuffix(f"[{folder_type}]")[:-1], folder_type
    return name, None


def _expand(prefix: str, width: int, height: int) -> str:
    now = time.localtime()
    values = {
        "width": str(width),
        "height": str(height),
        "year": f"{now.tm_year}",
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


def _files(folder: Path, suffixes: Iterable[str]) -> list[str]:
    if not folder.is_dir():
        return []
    return [
        str(Path(parent, name).relative_to(folder))
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if Path(name).suffix.lower() in suffixes
    ]


def _inside(folder: Path, path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except ValueError:  # a NUL in the name
        return False
