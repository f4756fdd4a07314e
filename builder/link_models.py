"""Link a volume's models into a folder of the worker's: `python -m builder.link_models --into DIR`.

The folder lies below WORK_DIR, where any user may write, root file system read-only or not; the
worker names it to ComfyUI.

The image's entrypoint runs it before the worker, so it imports little and reads no model: names,
sizes and the blob names of a Hugging Face cache decide. A model that is nowhere is no fault here;
the job that needs it says so.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from builder.library import Shelves, link
from builder.manifest import MANIFEST, Model, load


def link_models(
    models: Sequence[Model], folder: Path, shelves: Shelves, baked: Path | None = None
) -> list[Path]:
    """Link every model that is neither in `folder` nor baked in but on a shelf; the links made."""
    made = []
    for model in models:
        place = folder / model.relative
        if baked is not None and (baked / model.relative).is_file():
            continue
        if place.is_file() or (found := shelves.find(model)) is None:
            continue
        if found.absolute() != place.absolute():
            link(found, place)
            made.append(place)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; prints one line a link."""
    shelves = Shelves()
    parser = argparse.ArgumentParser(prog="python -m builder.link_models", description=__doc__)
    parser.add_argument("--into", type=Path, required=True, help="the models folder")
    parser.add_argument("--baked", type=Path, help="models folder of the image, looked at first")
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    parser.add_argument("--volume", type=Path, action="append", default=list(shelves.folders))
    parser.add_argument("--hub-cache", type=Path, action="append", default=list(shelves.hub_caches))
    given = parser.parse_args(arguments)
    found = Shelves(tuple(given.volume), tuple(given.hub_cache))
    for place in link_models(load(given.manifest), given.into, found, given.baked):
        print(f"linked {place} -> {place.resolve()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
