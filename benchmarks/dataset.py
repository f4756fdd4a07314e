"""Preparing photos for a training, and refusing what is none; prints JSON.

    python -m benchmarks.dataset [--photos 100] [--format mixed|jpeg|heic|png]

The photos are a phone's: 4032 x 3024 (12 MP), made in a process of their own, so that the peak is
that of the preparation: this process, and two decoding ones at their largest. Limits: >= 4 photos/s
on two cores, <= 400 MB, refusals <= 1 s; `cpu_s_per_photo` below 0.5 says the same on a machine
that is busy with something else.
"""

import argparse
import io
import json
import multiprocessing
import os
import resource
import shutil
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

from lora_registry.errors import LoraCorrupt
from lora_registry.tensorfile import read_header
from worker.errors import ImageRejected
from worker.pictures import PictureOptions, Pictures
from worker.training.captions import TemplateCaptioner
from worker.training.dataset import judge_photos, write_captions
from worker.training.fetching import Fetched, Limits

SIZE = (4032, 3024)
DIFFERENT = 6
FORMATS = {"mixed": ("HEIF", "JPEG"), "jpeg": ("JPEG",), "heic": ("HEIF",), "png": ("PNG",)}


def make_photos(folder: Path, count: int, formats: tuple[str, ...]) -> None:
    """Photos with large shapes and grain; copies differ in a trailing byte and so in their hash."""
    pillow_heif.register_heif_opener()
    for number in range(min(count, DIFFERENT)):
        random = np.random.default_rng(number)
        shapes = Image.fromarray(random.integers(0, 255, (8, 12, 3), dtype=np.uint8)).resize(SIZE)
        grain = Image.fromarray(random.integers(0, 255, (1512, 2016, 3), dtype=np.uint8))
        photo = Image.blend(shapes, grain.resize(SIZE), 0.12)
        image_format = formats[number % len(formats)]
        options = {"compress_level": 1} if image_format == "PNG" else {"quality": 85}
        photo.save(folder / f"{number:03d}", image_format, **options)
    for number in range(DIFFERENT, count):
        path = folder / f"{number:03d}"
        shutil.copyfile(folder / f"{number % DIFFERENT:03d}", path)
        with path.open("ab") as file:
            file.write(b"\0\0\0\x0cfree" + bytes([0, 0, 0, number]))


def prepare(folder: Path, count: int) -> dict[str, float]:
    """Judge, scale, re-encode and caption what lies in the folder."""
    out = folder / "prepared"
    out.mkdir()
    fetched = [Fetched(number, str(number), folder / f"{number:03d}") for number in range(count)]
    limits = Limits(1024, 10**9, 10**9)
    pictures = Pictures(PictureOptions())
    begun, used = time.monotonic(), _cpu_s()
    judged = judge_photos(fetched, out, limits, pictures, lambda: None, lambda _share: None)
    captioner = TemplateCaptioner("mrzkqv", "person")
    dataset = write_captions(judged, fetched, captioner, ("mrzkqv", "person"), lambda _share: None)
    seconds = time.monotonic() - begun
    own, child = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "photos": len(dataset.photos),
        "seconds": round(seconds, 2),
        "photos_per_s": round(count / seconds, 2),
        "cpu_s_per_photo": round((_cpu_s() - used) / count, 3),
        "peak_mb": round(own + 2 * child, 1),
        "peak_own_mb": round(own, 1),
        "peak_of_a_decoding_process_mb": round(child, 1),
        "cores": len(os.sched_getaffinity(0)),
    }


def refusals(folder: Path) -> dict[str, dict[str, Any]]:
    """Seconds until bad files are refused, and what is said."""
    pictures = Pictures(PictureOptions())

    def decode(body: bytes) -> Callable[[], object]:
        return lambda: pictures.decode(body, field="photo", max_area=1_400_000)

    header = b'{"a":{"dtype":"F16","shape":[' + b",".join([b"9" * 4000] * 700)
    lora = folder / "lora"
    lora.write_bytes(struct.pack("<Q", len(header) + 26) + header + b'],"data_offsets":[0,2]}}  ')
    tried = {
        "PNG of 177 MP, 0.2 MB": decode(_png_header(13300, 13300)),
        "progressive JPEG, 10,000 scans": decode(_with_scans(10_000)),
        "a web page": decode(b"<!doctype html><title>Log in</title>"),
        "half a JPEG": decode(_jpeg(4000, 3000)[:200_000]),
        "LoRA header of 2.8 MB, sides of 4,000 digits": lambda: read_header(lora),
    }
    return {name: _refusal(attempt) for name, attempt in tried.items()}


def _refusal(attempt: Callable[[], object]) -> dict[str, Any]:
    begun, said = time.monotonic(), "taken"
    try:
        attempt()
    except (ImageRejected, LoraCorrupt) as error:
        said = str(error)
    return {"seconds": round(time.monotonic() - begun, 2), "said": said}


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = zlib.compress(bytes(width + 1) * height)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _jpeg(width: int, height: int, **options: Any) -> bytes:
    body = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(body, "JPEG", **options)
    return body.getvalue()


def _with_scans(count: int) -> bytes:
    body = _jpeg(640, 480, progressive=True)
    last = body.rindex(b"\xff\xda")
    return body[:last] + body[last:-2] * count + body[-2:]


def _cpu_s() -> float:
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in spent)


def main() -> None:
    """Make, prepare, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--format", choices=FORMATS, default="mixed")
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        maker = spawn.Process(target=make_photos, args=(folder, args.photos, FORMATS[args.format]))
        maker.start()
        maker.join()
        megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        # Counted before: a process that has been waited for is among the children.
        facts = prepare(folder, args.photos)
        refused = refusals(folder)
    shown = {"format": args.format, "read_mb": round(megabytes), **facts, "refusals": refused}
    print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
