"""Worker ready, first picture, seconds a picture for one and for four, and a clip."""

import time
from typing import Any

from benchmarks.gpu.bench import (
    Bench,
    as_source,
    execution_s,
    median,
    photo,
    picture_job,
    run_job,
)
from benchmarks.gpu.memory import watched
from worker.service import Worker


def measure(bench: Bench) -> dict[str, Any]:
    """With our ComfyUI options and with none, in turns; each worker starts with nothing loaded."""
    begun = time.monotonic()
    with bench.worker() as worker:
        ready_s = round(time.monotonic() - begun, 2)
        ours = pictures(bench, worker)
        clip = clips(bench, worker)
    with bench.worker_on_defaults() as worker:
        defaults = pictures(bench, worker)
    return {"worker_ready_s": ready_s, "ours": ours, "comfyui_defaults": defaults, "clip": clip}


def pictures(bench: Bench, worker: Worker) -> dict[str, Any]:
    """The first picture, then medians of one and of four at a time."""
    figures: dict[str, Any] = {"first_picture_s": _whole_s(bench, worker, 1)}
    for count in (1, 4):
        with watched() as peak:
            answers = [
                run_job(worker, picture_job(bench, count=count)) for _ in range(bench.sizes.runs)
            ]
        figures[f"of_{count}"] = {
            "gpu_s": median([execution_s(answer) for answer in answers]),
            "job_s": median([answer["timings_ms"]["total"] / 1000 for answer in answers]),
            "gpu_s_per_picture": median([execution_s(answer) / count for answer in answers]),
            "peak_vram_mib": peak.vram,
            "peak_ram_mib": peak.ram,
        }
    return figures


def clips(bench: Bench, worker: Worker) -> dict[str, Any]:
    """The first clip (SVD takes SDXL's place on the card), then the median of the next ones."""
    sizes = bench.sizes
    job = {
        "task": "video",
        "workflow": "svd",
        "image": as_source(photo(0, sizes.clip_height)),
        "width": sizes.clip_width,
        "height": sizes.clip_height,
        "frames": sizes.frames,
        "steps": sizes.clip_steps,
    }
    with watched() as peak:
        answers = [
            run_job(worker, job | {"seed": bench.seed()}) for _ in range(1 + min(sizes.runs, 2))
        ]
    first, *later = [execution_s(answer) for answer in answers]
    return {
        "frames": sizes.frames,
        "first_gpu_s": round(first, 3),
        "gpu_s": median(later),
        "peak_vram_mib": peak.vram,
        "picture_after_it_s": _whole_s(bench, worker, 1),
    }


def _whole_s(bench: Bench, worker: Worker, count: int) -> float:
    answer = run_job(worker, picture_job(bench, count=count))
    return round(float(answer["timings_ms"]["total"]) / 1000, 2)
