"""Pictures from strangers, decoded in a child process where time and memory have an end.

A decoder is C code that no thread of ours can break off: a file of half a megabyte can keep one
busy for half a minute, or ask for gigabytes. So each picture gets a small process of its own, ended
by a deadline or a cancel, and only so many run at a time, whatever number of jobs is in flight. Its
start takes 0.1 s.
"""

import json
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from worker.cancel import Deadline
from worker.child import ChildProcess
from worker.errors import ImageRejected
from worker.media import Alpha, Bounds, Picture

Check = Callable[[], None]

_ROOT: Final = Path(__file__).resolve().parent.parent
_CHECK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class PictureOptions:
    """What decoding may take.

    Attributes:
        max_pixels: of what must really be decoded.
        timeout_s: for one picture; 50 MP take 3 s.
        memory_bytes: for one picture: 50 MP as HEIC take 370 MB, with a profile 520 MB.
        at_once: processes at a time, over all jobs.
    """

    max_pixels: int = 50_000_000
    timeout_s: float = 20.0
    memory_bytes: int = 800_000_000
    at_once: int = 2


class Pictures:
    """Decodes pictures for all jobs; safe to share between threads.

    Args:
        options: the bounds.
        folder: an existing folder for temporary files; the system's when None.
    """

    def __init__(self, options: PictureOptions, folder: Path | None = None) -> None:
        self._options = options
        self._folder = folder
        self._slots = threading.BoundedSemaphore(options.at_once)

    def decode(
        self,
        source: bytes | Path,
        *,
        field: str,
        max_side: int | None = None,
        max_area: int | None = None,
        alpha: Alpha = "white",
        check_cancelled: Check | None = None,
    ) -> Picture:
        """The first frame of a picture: upright, in sRGB, without metadata, scaled as asked.

        Args:
            source: the file's bytes, or the file.
            field: the job's field, for the errors.
            max_side: scale down to this longest side, never up.
            max_area: scale down to about so many pixels.
            alpha: flatten transparency on white (RGB), or keep it (RGBA where there is any).
            check_cancelled: called 20 times a second; what it raises ends the decoding.

        Raises:
            ImageRejected: not a picture that we read, too large, damaged, or beyond the bounds.
            OSError: the disk is full.
        """
        bounds = Bounds(self._options.max_pixels, max_side, max_area, alpha)
        with tempfile.TemporaryDirectory(prefix="picture-", dir=self._folder) as name:
            folder = Path(name)
            given = source if isinstance(source, Path) else folder / "given"
            if isinstance(source, bytes):
                given.write_bytes(source)
            order = {
                "file": str(given),
                "field": field,
                "bounds": asdict(bounds),
                "memory_bytes": self._options.memory_bytes,
            }
            self._wait_for_slot(check_cancelled)
            try:
                self._run(order, folder, field, check_cancelled)
            finally:
                self._slots.release()
            return _decoded(folder, field)

    def _wait_for_slot(self, check_cancelled: Check | None) -> None:
        while not self._slots.acquire(timeout=_CHECK_S):
            if check_cancelled is not None:
                check_cancelled()

    def _run(
        self, order: dict[str, Any], folder: Path, field: str, check_cancelled: Check | None
    ) -> None:
        (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
        deadline = Deadline(self._options.timeout_s)
        child = ChildProcess(
            [sys.executable, "-s", "-m", "worker.picture_child", str(folder)],
            name="picture",
            cwd=_ROOT,
            env={"PYTHONDONTWRITEBYTECODE": "1"},  # nothing of ours: it handles strangers' bytes
            stop_timeout_s=0,
        )
        with child:
            while child.wait(_CHECK_S) is None:
                if check_cancelled is not None:
                    check_cancelled()
                if deadline.passed:
                    raise ImageRejected(
                        f"{field}: the picture takes longer than {deadline.seconds:g} s to decode; "
                        "save it anew as JPEG or PNG.",
                        field=field,
                    )


def _decoded(folder: Path, field: str) -> Picture:
    try:
        found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    except FileNotFoundError:  # the decoder itself crashed, or was out of memory beyond words
        raise ImageRejected(f"{field}: the picture is damaged.", field=field) from None
    if "errno" in found:
        raise OSError(found["errno"], "a decoded picture could not be written")
    if "rejected" in found:
        raise ImageRejected(found["rejected"], field=field, details=found["details"])
    pixels = (folder / "pixels").read_bytes()
    image = Image.frombytes(found["mode"], tuple(found["size"]), pixels)
    return Picture(image, found["width"], found["height"])
