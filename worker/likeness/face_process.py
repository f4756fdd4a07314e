"""The process that finds faces: reads orders as JSON lines, answers each with one line.

The only importer of dlib. It ends when nobody asks for a while or when its input is closed, and is
killed from outside when a picture keeps it too long (`worker.likeness.scorer`).
"""

import base64
import json
import os
import resource
import select
import sys
from pathlib import Path
from typing import Any, Final

import dlib
import face_recognition_models
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

MEMORY_BYTES: Final = 600_000_000  # of data; 150 MB are measured
MAX_SIDE: Final = 2048  # a face chip has 150 px, so more only costs
SEARCHED_SIDE: Final = 1024
MAX_FACES: Final = 12  # the largest ones of a crowd; each takes 0.08 s to describe
_CHUNK_BYTES: Final = 65_536
_FAINT: Final = -0.4  # detector score from which on something is like a face


class FaceFinder:
    """dlib's detector, its 5-point predictor and its ResNet of 128 numbers, on the CPU.

    The 68-point predictor of the same package is left alone: its training data may not be used
    commercially.
    """

    def __init__(self) -> None:
        self._detector = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(
            face_recognition_models.pose_predictor_five_point_model_location()
        )
        self._encoder = dlib.face_recognition_model_v1(
            face_recognition_models.face_recognition_model_location()
        )

    def look(self, path: Path, *, thorough: bool) -> dict[str, Any]:
        """Every face of a picture, the largest first; boxes in pixels of the file.

        Args:
            path: a picture of our own making.
            thorough: look for small faces too (from 4 % of the long side instead of 8 %) where
                large ones are found; they are looked for in any case where there is no large one.
        """
        with Image.open(path) as image:
            width, height = image.size
            image.draft("RGB", (MAX_SIDE, MAX_SIDE))
            pixels = image.convert("RGB")
        pixels.thumbnail((MAX_SIDE, MAX_SIDE))
        searched = pixels.copy()
        searched.thumbnail((SEARCHED_SIDE, SEARCHED_SIDE))
        boxes, faint = self._boxes(np.asarray(searched), thorough=thorough)
        whole, scale = np.asarray(pixels), pixels.width / searched.width
        return {
            "width": width,
            "height": height,
            "faint": faint,
            "faces": [
                self._described(whole, dlib.scale_rect(box, scale), width / pixels.width)
                for box in boxes
            ],
        }

    def _boxes(self, pixels: Pixels, *, thorough: bool) -> tuple[list[Any], int]:
        """The faces' boxes, the largest first, and how many more places only remind of a face."""
        found: list[Any] = []
        faint = 0
        for upsampling in (1,) if thorough else (0, 1):
            boxes, scores, _ = self._detector.run(pixels, upsampling, _FAINT)
            found = [box for box, score in zip(boxes, scores, strict=True) if score >= 0]
            faint = len(boxes) - len(found)
            if found:
                break
        return sorted(found, key=lambda box: -box.width())[:MAX_FACES], faint

    def _described(self, pixels: Pixels, box: Any, scale: float) -> dict[str, Any]:
        shape = self._predictor(pixels, box)
        numbers = np.asarray(self._encoder.compute_face_descriptor(pixels, shape), "<f4")
        sides = (box.left(), box.top(), box.right(), box.bottom())
        return {
            "box": [round(side * scale) for side in sides],
            "embedding": base64.b64encode(numbers.tobytes()).decode(),
        }


def main(idle_s: float) -> None:
    """Answer orders until the input ends, or none comes for `idle_s` seconds."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    finder, unfinished = FaceFinder(), b""
    # No buffered reading: a line that waits in a buffer is one that select does not see.
    while select.select([0], [], [], idle_s)[0] and (chunk := os.read(0, _CHUNK_BYTES)):
        *lines, unfinished = (unfinished + chunk).split(b"\n")
        for line in lines:
            sys.stdout.write(json.dumps(_answer(finder, json.loads(line))) + "\n")
            sys.stdout.flush()


def _answer(finder: FaceFinder, order: dict[str, Any]) -> dict[str, Any]:
    try:
        found = finder.look(Path(order["file"]), thorough=order["thorough"])
    # What Pillow and dlib raise for bytes that are broken, or for want of memory.
    except (OSError, SyntaxError, ValueError, RuntimeError, MemoryError) as error:
        found = {"failed": type(error).__name__}
    return {"order": order["order"], **found}


if __name__ == "__main__":
    main(float(sys.argv[1]))
