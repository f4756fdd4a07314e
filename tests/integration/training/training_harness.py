"""A whole worker that trains with the stand-in, and photos to train on."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from local.stack import ROOT
from tests.integration.worker_harness import WorkerHarness
from worker.service import Worker

STAND_IN = ROOT / "local" / "kohya"


def make_tokenizers(folder: Path) -> Path:
    """What the stand-in looks for: the folders of both tokenizers."""
    tokenizers = folder / "tokenizers"
    for name in ("openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k"):
        (tokenizers / name).mkdir(parents=True)
    return tokenizers


def photo(seed: int, size: tuple[int, int] = (560, 640), image_format: str = "JPEG") -> bytes:
    """A sharp picture that is like no other."""
    random = np.random.default_rng(seed)
    shapes = Image.fromarray(random.integers(0, 255, (8, 7, 3), dtype=np.uint8)).resize(size)
    grain = random.normal(0, 20, (size[1], size[0], 1))
    pixels = np.clip(np.asarray(shapes) + grain, 0, 255).astype(np.uint8)
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, image_format)
    return body.getvalue()


class TrainingHarness(WorkerHarness):
    """A harness with photos in its bucket and faults in its trainer."""

    def __init__(self, worker: Worker, folder: Path) -> None:
        super().__init__(worker, folder)
        self.kohya_faults = folder / "kohya-faults"
        self.trainings = worker.settings.work_dir / "training"

    def photos(self, count: int = 6) -> list[dict[str, str]]:
        """Sources of photos in the bucket."""
        keys = [f"inputs/photos/{number}.jpg" for number in range(count)]
        for number, key in enumerate(keys):
            self.put(key, photo(number), "image/jpeg")
        return [{"key": key} for key in keys]

    def archive(self, count: int = 6) -> dict[str, str]:
        """A zip of photos in the bucket, the first with a caption."""
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w") as opened:
            for number in range(count):
                opened.writestr(f"set/{number}.jpg", photo(number))
            opened.writestr("set/0.txt", "standing by a window")
            opened.writestr("__MACOSX/set/._0.jpg", b"clutter")
        self.put("inputs/photos.zip", body.getvalue(), "application/zip")
        return {"key": "inputs/photos.zip"}

    def job(self, character_id: str, **fields: Any) -> dict[str, Any]:
        """A small training of a character."""
        job = {
            "task": "train",
            "character_id": character_id,
            "steps": 8,
            "rank": 1,
            "resolution": 512,
            "preview_prompts": ["{trigger} person on a hill"],
            **fields,
        }
        return job if "archive" in job else {"images": self.photos(), **job}

    def trainer_starts(self, *faults: str) -> None:
        """What befalls the next starts of the trainer, one after another."""
        self.kohya_faults.write_text("\n".join(faults))

    def starts_left(self) -> list[str]:
        """The starts that have not happened."""
        return self.kohya_faults.read_text().split()
