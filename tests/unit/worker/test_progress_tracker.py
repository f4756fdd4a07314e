from typing import Any

from worker.comfyui.client import Step
from worker.resources import Progress, ProgressTracker


class Recorded(Progress):
    def __init__(self) -> None:
        super().__init__(lambda _: None)
        self.seen: list[tuple[str, float]] = []

    def report(self, stage: str, percent: float, **_: Any) -> None:
        self.seen.append((stage, percent))


def graph(*samplers: str) -> dict[str, dict[str, Any]]:
    return {name: {"class_type": "KSampler", "inputs": {"steps": 2}} for name in samplers}


def walked(tracker: ProgressTracker, *steps: Step) -> None:
    for step in steps:
        tracker.on_step(step)


def test_one_sampler_fills_the_stage() -> None:
    progress = Recorded()
    walked(
        ProgressTracker(graph("3"), progress),
        Step("4", "CheckpointLoaderSimple", 0, 0),
        Step("3", "KSampler", 0, 0),
        Step("3", "KSampler", 1, 2),
        Step("3", "KSampler", 2, 2),
        Step("8", "VAEDecode", 0, 0),
        Step("9", "SaveImage", 0, 0),
    )
    assert progress.seen == [
        ("loading", 5.0),
        ("sampling", 47.5),
        ("sampling", 85.0),
        ("decoding", 85.0),
        ("encoding", 90.0),
    ]


def test_two_samplers_share_it_and_it_never_goes_back() -> None:
    progress = Recorded()
    walked(
        ProgressTracker(graph("23", "5"), progress),
        Step("23", "KSampler", 1, 2),
        Step("23", "KSampler", 2, 2),
        Step("28", "VAEDecode", 0, 0),
        Step("1", "ImageOnlyCheckpointLoader", 0, 0),
        Step("5", "KSampler", 1, 2),
        Step("5", "KSampler", 2, 2),
        Step("6", "VAEDecode", 0, 0),
    )
    percents = [percent for _, percent in progress.seen]
    assert percents == sorted(percents)
    assert [stage for stage, _ in progress.seen] == ["sampling"] * 4 + ["decoding"]


def test_other_nodes_say_nothing() -> None:
    progress = Recorded()
    walked(ProgressTracker(graph("3"), progress), Step("6", "CLIPTextEncode", 0, 0))
    assert progress.seen == []


def test_a_sampler_that_has_its_steps_from_a_scheduler_tells_them_too() -> None:
    progress = Recorded()
    guided = {
        "6": {"class_type": "BasicScheduler", "inputs": {"steps": 2}},
        "8": {"class_type": "SamplerCustomAdvanced", "inputs": {"latent_image": ["7", 0]}},
    }
    walked(
        ProgressTracker(guided, progress),
        Step("8", "SamplerCustomAdvanced", 1, 2),
        Step("8", "SamplerCustomAdvanced", 2, 2),
    )
    assert progress.seen == [("sampling", 47.5), ("sampling", 85.0)]
