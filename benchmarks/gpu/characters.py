"""Switching between characters: many LoRAs in rotation, and the first step after a switch."""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.gpu.bench import PROMPT, Bench, execution_s, median, picture_job, run_job
from benchmarks.gpu.memory import watched
from benchmarks.gpu.weights import write_loras
from lora_registry.versions import NewVersion
from worker.cancel import CancelToken
from worker.comfyui.client import Step
from worker.service import Worker
from workflows.binding import LoraUse, Values, bind

SHIPPED: Final = "LoraLoader"
LOADERS: Final = (SHIPPED, "LoraLoaderBypass")
_SAMPLER: Final = "KSampler"


def measure(bench: Bench) -> dict[str, Any]:
    """Use each character twice, from the bucket and from the disk; then step by step."""
    with bench.worker() as worker:
        names = register(bench, worker)
        without = [execution_s(run_job(worker, picture_job(bench))) for _ in range(3)][1:]
        with watched() as peak:
            cold, warm = (_round(bench, worker, names) for _ in range(2))
        return {
            "loras": len(names),
            "rank": bench.sizes.rank,
            "without_gpu_s": median(without),
            "from_the_bucket": cold,
            "from_the_disk": warm,
            "peak_vram_mib": peak.vram,
            "loaders": switches(bench, worker, names),
        }


def register(bench: Bench, worker: Worker) -> list[str]:
    """Characters with LoRAs of their own; the files reach the worker through the bucket."""
    sizes, names = bench.sizes, list[str]()
    for path in write_loras(bench.stack.folder / "made", sizes.loras, rank=sizes.rank):
        name = f"bench-{len(names):02d}"
        new = NewVersion(name, f"register-{name}", path, "sdxl", "kohya", sizes.rank, "ohwx")
        worker.resources.registry.add_version(new)
        names.append(name)
    return names


def _round(bench: Bench, worker: Worker, names: Sequence[str]) -> dict[str, float]:
    answers = [run_job(worker, picture_job(bench, character_id=name)) for name in names]
    return {
        "gpu_s": median([execution_s(answer) for answer in answers]),
        "fetch_ms": median([answer["timings_ms"]["loras"] for answer in answers]),
        "job_s": median([answer["timings_ms"]["total"] / 1000 for answer in answers]),
    }


def switches(bench: Bench, worker: Worker, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """For each way that this ComfyUI has to apply a LoRA: the first step after a switch."""
    chosen = names[: bench.sizes.switches]
    found = [name for name in LOADERS if worker.resources.comfyui.object_info(name)]
    return {loader: _switching(bench, worker, chosen, loader) for loader in found}


def _switching(bench: Bench, worker: Worker, names: Sequence[str], loader: str) -> dict[str, float]:
    _stepped(bench, worker, names[-1], loader)  # models are loaded, and it is a switch from now on
    switched = [_stepped(bench, worker, name, loader) for name in names]
    same = [_stepped(bench, worker, names[-1], loader) for _ in range(2)]
    return {
        "first_step_after_a_switch_ms": median([seen.first_ms for seen in switched]),
        "first_step_without_one_ms": median([seen.first_ms for seen in same]),
        "step_ms": median([ms for seen in switched for ms in seen.later_ms]),
        "gpu_s_after_a_switch": median([seen.whole_s for seen in switched]),
        "gpu_s_without_one": median([seen.whole_s for seen in same]),
    }


@dataclass(slots=True)
class _Stepped:
    """When the sampler began and when each of its steps was over."""

    marks: list[float] = field(default_factory=list)
    whole_s: float = 0.0

    def on_step(self, step: Step) -> None:
        if step.node_type == _SAMPLER:
            self.marks.append(time.monotonic())

    @property
    def first_ms(self) -> float:
        return (self.marks[1] - self.marks[0]) * 1000

    @property
    def later_ms(self) -> list[float]:
        return [(end - begin) * 1000 for begin, end in itertools.pairwise(self.marks[1:])]


def _stepped(bench: Bench, worker: Worker, name: str, loader: str) -> _Stepped:
    resources, seen, sizes = worker.resources, _Stepped(), bench.sizes
    version = resources.registry.resolve(name)
    roles: Mapping[str, Any] = {
        "prompt": f"ohwx {PROMPT}",
        "width": sizes.side,
        "height": sizes.side,
        "steps": max(sizes.steps, 2),
        "seed": bench.seed(),
    }
    with resources.loras.lease(version) as path:
        uses = (LoraUse(path.name, 1.0),)
        bound = bind(
            resources.workflows["sdxl"], Values(f"bench/{bench.seed()}", roles, loras=uses)
        )
        graph = {
            node: spec | {"class_type": loader} if spec["class_type"] == SHIPPED else spec
            for node, spec in bound.graph.items()
        }
        execution = resources.comfyui.run(
            graph,
            timeout_s=resources.settings.job_timeout_s,
            cancel=CancelToken(),
            on_step=seen.on_step,
            on_files=lambda _node, _files: None,
        )
    resources.comfyui.delete_folder("bench")
    seen.whole_s = execution.executed_ms / 1000
    return seen
