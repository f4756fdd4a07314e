"""The process of one picture: reads an order in a folder, leaves pixels or a refusal there.

Its own memory is bounded by the kernel, and nobody waits for it longer than `worker.pictures` does.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

from worker import media
from worker.errors import ImageRejected


def main(folder: Path) -> None:
    """Decode what the order in `folder` names."""
    order = json.loads((folder / "order.json").read_text(encoding="utf-8"))
    # Data, not address space: the codecs' libraries map far more than they use.
    resource.setrlimit(resource.RLIMIT_DATA, (order["memory_bytes"], order["memory_bytes"]))
    found = _found(order, folder)
    (folder / "found.tmp").write_text(json.dumps(found), encoding="utf-8")
    (folder / "found.tmp").rename(folder / "found.json")


def _found(order: dict[str, Any], folder: Path) -> dict[str, Any]:
    try:
        picture = media.picture_of(
            Path(order["file"]), order["field"], media.Bounds(**order["bounds"])
        )
    except ImageRejected as error:
        return {"rejected": str(error), "details": dict(error.details)}
    try:
        (folder / "pixels").write_bytes(picture.image.tobytes())
    except OSError as error:
        return {"errno": error.errno}
    return {
        "mode": picture.image.mode,
        "size": picture.image.size,
        "width": picture.width,
        "height": picture.height,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
