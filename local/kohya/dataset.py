"""The dataset file as sd-scripts reads it: known keys only, photos counted, captions looked for."""

import math
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_SUBSET: Final = frozenset({"image_dir", "class_tokens", "num_repeats", "caption_extension"})
_DATASET: Final = frozenset(
    {
        "resolution",
        "batch_size",
        "enable_bucket",
        "min_bucket_reso",
        "max_bucket_reso",
        "bucket_reso_steps",
        "bucket_no_upscale",
        "subsets",
    }
)
_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})


@dataclass(frozen=True)
class Dataset:
    """What is trained on; `batches` are the steps of one epoch."""

    photos: int
    batches: int


def read_dataset(path: Path) -> Dataset:
    """Read it as sd-scripts does: an unknown key ends the program, a missing caption warns."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    _refuse_unknown(document, frozenset({"general", "datasets"}))
    extension = document.get("general", {}).get("caption_extension", ".caption")
    photos, batches = 0, 0
    for dataset in document["datasets"]:
        _refuse_unknown(dataset, _DATASET)
        if min(dataset["resolution"]) < dataset["min_bucket_reso"]:
            sys.exit("AssertionError: min_bucket_reso must be equal or less than resolution")
        count = sum(_count(subset, extension) for subset in dataset["subsets"])
        photos += count
        batches += math.ceil(count / dataset["batch_size"])
    return Dataset(photos, batches)


def _count(subset: dict[str, Any], extension: str) -> int:
    _refuse_unknown(subset, _SUBSET)
    photos = [p for p in Path(subset["image_dir"]).glob("*") if p.suffix.lower() in _SUFFIXES]
    bare = sum(not photo.with_suffix(extension).is_file() for photo in photos)
    if bare:
        sys.stderr.write(f"WARNING neither caption file nor class tokens: {bare} images\n")
    return len(photos) * int(subset.get("num_repeats", 1))


def _refuse_unknown(table: dict[str, Any], known: frozenset[str]) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        sys.exit(f"voluptuous.error.MultipleInvalid: extra keys not allowed @ data{unknown}")
