"""Preparing photos for a training: photos a second and peak memory; prints JSON.

    python -m benchmarks.dataset [--photos 100] [--format jpeg|png]

The photos are 6000 x 4000 (24 MP), made in a process of their own, so that the peak is that of the
preparation, its interpreter and imports included. Limits: >= 4 photos/s on two cores, <= 400 MB;
`cpu_s_per_photo` below 0.5 says the same on a machine that is busy with something else.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from worker.pictures import PictureOptions, Pictures
from worker.training.captions import TemplateCaptioner
from worker.training.dataset import judge_photos, write_captions
from worker.training.fetching import Fetched, Limits

SIZE = (6000, 4000)
DIFFERENT = 4


def make_photos(folder: Path, count: int, image_format: str) -> None:
    """Photos with large shapes and grain; copies differ in a trailing byte and so in their hash."""
    for number in range(min(count, DIFFERENT)):
        random = np.random.default_rng(number)
        shapes = Image.fromarray(random.integers(0, 255, (8, 12, 3), dtype=np.uint8)).resize(SIZE)
        grain = Image.fromarray(random.integers(0, 255, (2000, 3000, 3), dtype=np.uint8))
        photo = Image.blend(shapes, grain.resize(SIZE), 0.12)
        photo.save(folder / f"{number:03d}", image_format, quality=92, compress_level=1)
    for number in range(DIFFERENT, count):
        path = folder / f"{number:03d}"
        shutil.copyfile(folder / f"{number % DIFFERENT:03d}", path)
        with path.open("ab") as file:
            file.write(bytes([number]))


def prepare(folder: Path, count: int) -> dict[str, float]:
    """Judge, scale, re-encode and caption what lies in the folder."""
    out = folder / "prepared"
    out.mkdir()
    fetched = [Fetched(number, str(number), folder / f"{number:03d}") for number in range(count)]
    limits = Limits(1024, 10**9, 10**9)
    pictures = Pictures(PictureOptions())
    begun, used = time.monotonic(), time.process_time()
    judged = judge_photos(fetched, out, limits, pictures, lambda: None, lambda _share: None)
    captioner = TemplateCaptioner("mrzkqv", "person")
    dataset = write_captions(judged, fetched, captioner, ("mrzkqv", "person"), lambda _share: None)
    seconds = time.monotonic() - begun
    return {
        "photos": len(dataset.photos),
        "seconds": round(seconds, 2),
        "photos_per_s": round(count / seconds, 2),
        "cpu_s_per_photo": round((time.process_time() - used) / count, 3),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "cores": len(os.sched_getaffinity(0)),
    }


def main() -> None:
    """Make, prepare, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--format", choices=("jpeg", "png"), default="jpeg")
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        maker = spawn.Process(target=make_photos, args=(folder, args.photos, args.format))
        maker.start()
        maker.join()
        megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        facts = prepare(folder, args.photos)
    print(json.dumps({"format": args.format, "read_mb": round(megabytes), **facts}))


if __name__ == "__main__":
    main()
