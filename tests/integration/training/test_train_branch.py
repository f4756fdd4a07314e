"""The train branch on the local stack: photos in, a usable character out, whatever happens."""

import io
import json
import threading
import time
from typing import Any

import pytest
from PIL import Image
from safetensors import safe_open

from tests.integration.training.training_harness import TrainingHarness, photo
from tests.integration.worker_harness import fetched, graph_of, picture
from worker import train
from worker.cancel import CancelToken
from worker.contract import TrainJob, parse_job
from worker.errors import EngineCrashed
from worker.resources import JobContext, Progress
from worker.training.preparation import prepare
from worker.training.record import TrainingRecord
from worker.training.work import TrainingFolder, TrainingProgress

pytestmark = pytest.mark.process

STAGES = [
    "photos",
    "captions",
    "training",
    "checking",
    "choosing",
    "registering",
    "previews",
    "uploading",
]


class Recorder(Progress):
    """Everything that is reported, nothing throttled."""

    def __init__(self) -> None:
        super().__init__(lambda _: None)
        self.stages: list[str] = []
        self.percents: list[float] = []
        self.steps: list[int] = []
        self.etas: list[float] = []

    def report(
        self,
        stage: str,
        percent: float,
        *,
        step: int | None = None,
        steps: int | None = None,
        eta_s: float | None = None,
        loss: float | None = None,
    ) -> None:
        assert (step is None) is (steps is None)
        self.stages.append(stage)
        self.percents.append(percent)
        self.steps += [] if step is None else [step]
        self.etas += [] if eta_s is None else [eta_s]
        assert loss is None or step is not None


def outputs(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    assert "error" not in result, result
    return {output["kind"]: output for output in result["outputs"]}


def versions(harness: TrainingHarness, character_id: str) -> list[str]:
    return harness.keys(f"characters/{character_id}/versions/")


def test_photos_become_a_character(harness: TrainingHarness) -> None:
    images = [*harness.photos(), {"key": "inputs/photos/0.jpg"}, {"key": "inputs/none.jpg"}]
    images[1]["caption"] = "reading on a harness"
    result = harness.run(
        harness.job("mira", images=images, name="Mira", preview_prompts=None), job_id="first"
    )
    character = result["character"]
    assert (character["name"], character["active"]) == ("Mira", True)
    assert character["version"].endswith("-first")

    kinds = [each["verdict"] for each in result["dataset"]["photos"]]
    assert kinds[6:] == ["rejected", "rejected"]
    assert "rejected" not in kinds[:6]
    captions = [each.get("caption") for each in result["dataset"]["photos"]]
    trigger = character["trigger"]
    assert captions[:2] == [f"{trigger} person", f"{trigger} person, reading on a harness"]
    assert any("rejected" in warning for warning in result["warnings"])

    check_weights(harness, result)
    check_pictures(result)
    report = json.loads(fetched(result["manifest"]["url"]))
    assert "http" not in json.dumps(report)
    assert report["check"] == result["check"]


def check_weights(harness: TrainingHarness, result: dict[str, Any]) -> None:
    found = outputs(result)
    weights = harness.folder / "fetched.safetensors"
    weights.write_bytes(fetched(found["lora"]["url"]))
    with safe_open(weights, framework="numpy") as opened:
        metadata = opened.metadata()
    assert metadata["trigger"] == result["character"]["trigger"]
    assert metadata["dataset_digest"] == result["dataset"]["digest"]
    assert metadata["steps"] == "8"
    assert metadata["trainer"] == result["training"]["trainer"] == "kohya (sd-scripts v0.10.1)"
    assert result["check"]["modules"] == result["check"]["modules_learned"] == 722


def check_pictures(result: dict[str, Any]) -> None:
    found = outputs(result)
    assert picture(found["sheet"]["url"]).height > 3 * 512
    assert picture(found["curve"]["url"]).size == (960, 540)
    assert result["previews"]["status"] == "done"
    assert all(each["difference"] > 0 for each in result["previews"]["pictures"])


def test_the_next_job_uses_it_without_a_restart(harness: TrainingHarness) -> None:
    generation = harness.resources.engine.generation
    trained = harness.run(harness.job("vera"))["character"]
    small = {"prompt": "x", "steps": 1, "width": 256, "height": 256}
    image = harness.run({"task": "image", "character_id": "vera", **small})
    assert image["character"]["version"] == trained["version"]
    graph = graph_of(picture(image["outputs"][0]["url"]))
    assert trained["trigger"] in graph["6"]["inputs"]["text"]
    assert harness.resources.engine.generation == generation


def test_progress_covers_the_whole_job(harness: TrainingHarness) -> None:
    recorder = Recorder()
    context = JobContext("progress", CancelToken(), recorder, harness.folder / "job")
    context.folder.mkdir()
    job = parse_job(harness.job("progress"))
    assert isinstance(job, TrainJob)
    train.run(job, harness.resources, context)
    assert list(dict.fromkeys(recorder.stages)) == STAGES
    assert recorder.percents == sorted(recorder.percents)
    assert recorder.percents[-1] == 100
    assert recorder.etas
    assert min(recorder.etas) == 0


def test_an_archive_trained_by_comfyui(harness: TrainingHarness) -> None:
    job = harness.job("archie", archive=harness.archive(), trainer="comfyui", rank=2, steps=4)
    result = harness.run(job)
    found = outputs(result)
    assert result["dataset"]["photos"][0]["name"] == "set/0.jpg"
    assert result["dataset"]["photos"][0]["caption"].endswith(", standing by a window")
    assert result["training"]["trainer"].startswith("comfyui (")
    assert result["training"]["alpha"] == 1.0
    assert result["check"]["modules"] >= 722
    assert found["lora"]["bytes"] == result["check"]["bytes"] or found["lora"]["bytes"] > 0
    assert result["previews"]["status"] == "done"


def test_comfyui_out_of_memory_is_tried_again(harness: TrainingHarness) -> None:
    harness.faults(oom_at_node="TrainLoraNode")
    result = harness.run(harness.job("oomy", trainer="comfyui", steps=2, batch_size=2))
    assert "error" not in result, result


def test_comfyui_that_dies_training_is_ready_for_the_next_job(harness: TrainingHarness) -> None:
    harness.faults(crash_at="executing:TrainLoraNode")
    result = harness.run(harness.job("crashy", trainer="comfyui", steps=4))
    assert result["code"] == "engine_crashed"
    assert harness.resources.comfyui.system_stats()
    assert harness.keys("characters/crashy/") == []


def test_too_few_photos(harness: TrainingHarness) -> None:
    small = photo(50, (300, 300))
    harness.put("inputs/small.jpg", small, "image/jpeg")
    images = [*harness.photos(4), {"key": "inputs/small.jpg"}]
    result = harness.run(harness.job("nobody", images=images))
    assert result["code"] == "dataset_rejected"
    verdicts = [each["verdict"] for each in result["details"]["photos"]]
    assert verdicts.count("rejected") == 1
    assert harness.keys("characters/nobody/") == []


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        (["nan@3"], "training_diverged"),
        (["nan_file"], "training_diverged"),
        (["empty_lora"], "training_failed"),
        (["oom@1", "oom@1"], "out_of_memory"),
        (["disk_full@5"], "disk_full"),
    ],
)
def test_a_failed_training_leaves_nothing(
    harness: TrainingHarness, faults: list[str], code: str
) -> None:
    harness.resources.loras.free_space(
        10**12
    )  # a full disk is tried again only where this gives some
    harness.trainer_starts(*faults)
    result = harness.run(harness.job("failed", batch_size=2))
    assert result["code"] == code, result
    assert str(harness.folder) not in json.dumps(result)
    assert harness.keys("characters/failed/") == []
    assert harness.starts_left() == []
    harness.resources.engine.wait_ready()


def test_a_cancelled_training_leaves_nothing(
    harness: TrainingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOHYA_STEP_S", "0.05")
    cancel = CancelToken()
    done: list[dict[str, Any]] = []
    job = harness.job("stopped", steps=10_000)
    thread = threading.Thread(target=lambda: done.append(harness.run(job, cancel=cancel)))
    thread.start()
    deadline = time.monotonic() + 30
    while not any(update.get("step", 0) >= 3 for update in harness.updates):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    asked = time.monotonic()
    cancel.cancel()
    thread.join(20)
    assert time.monotonic() - asked < 5
    assert done[0]["code"] == "cancelled"
    assert harness.keys("characters/stopped/") == []


@pytest.mark.parametrize(
    "fault",
    [
        {"fail_at_node": "KSampler"},
        {"truncate_output": True},
        {"empty_output": True},
        {"missing_output": True},
    ],
)
def test_previews_that_fail_do_not_cost_the_character(
    harness: TrainingHarness, fault: dict[str, Any]
) -> None:
    harness.faults(**fault, times=100)
    result = harness.run(harness.job("plain"))
    assert "error" not in result, result
    found = outputs(result)
    assert result["previews"]["status"] == "failed"
    assert result["previews"]["problem"]
    assert "sheet" not in found
    assert harness.resources.registry.get("plain").active is not None


def test_the_same_job_again_is_answered_and_not_trained(harness: TrainingHarness) -> None:
    job = harness.job("again")
    first = harness.run(job, job_id="once")
    harness.trainer_starts("crash@1")
    second = harness.run(job, job_id="once")
    assert harness.starts_left() == ["crash@1"]
    same = ("character", "dataset", "training", "check", "previews", "warnings", "seed")
    assert {name: first[name] for name in same} == {name: second[name] for name in same}
    assert [o["key"] for o in first["outputs"]] == [o["key"] for o in second["outputs"]]
    assert len(versions(harness, "again")) == 1
    assert harness.resources.registry.get("again").revision == 1


def test_a_second_job_makes_a_second_version(harness: TrainingHarness) -> None:
    one = harness.run(harness.job("twice", trigger="zqvkmr"), job_id="one")
    two = harness.run(harness.job("twice", activate=False), job_id="two")
    assert len(versions(harness, "twice")) == 2
    assert two["character"]["active"] is False
    assert two["character"]["trigger"] == "zqvkmr"
    head = harness.resources.registry.get("twice")
    assert head.active is not None
    assert head.active.id == one["character"]["version"]


def test_a_deleted_character_is_refused_before_anything_is_trained(
    harness: TrainingHarness,
) -> None:
    harness.run(harness.job("gone"))
    harness.resources.registry.delete("gone")
    harness.trainer_starts("none")
    assert harness.run(harness.job("gone"))["code"] == "character_not_found"
    assert harness.starts_left() == ["none"]


class Died:
    """Runs part of a job and then stops, as a worker does that is killed."""

    def __init__(self, harness: TrainingHarness, character_id: str) -> None:
        self.harness = harness
        self.raw = harness.job(character_id)
        job = parse_job(self.raw)
        assert isinstance(job, TrainJob)
        self.job_id = f"{character_id}-job"
        folder = harness.folder / self.job_id
        folder.mkdir()
        cancel, progress = CancelToken(), Progress(lambda _: None)
        context = JobContext(self.job_id, cancel, progress, folder)
        training = TrainingFolder(harness.trainings, self.job_id)
        training.__enter__()  # and never left: nobody cleans up behind a killed process
        steps = TrainingProgress(progress)
        self.work = train.begin(job, None, harness.resources, context, training, steps)

    def trained(self) -> TrainingRecord:
        """The job up to the checked LoRA."""
        dataset, described = prepare(self.work)
        spec = train.plan(self.work, dataset)
        weights = train.train(self.work, spec, dataset)
        return train.verify(self.work, spec, described, weights)

    def retry(self) -> dict[str, Any]:
        """The job again, with a trainer that must not be started."""
        self.harness.trainer_starts("crash@1")
        result = self.harness.run(self.raw, job_id=self.job_id)
        assert self.harness.starts_left() == ["crash@1"]
        assert len(versions(self.harness, result["character"]["character_id"])) == 1
        return result


def test_a_worker_that_died_after_the_training(harness: TrainingHarness) -> None:
    died = Died(harness, "trained")
    died.trained()
    result = died.retry()
    assert set(outputs(result)) == {"lora", "curve", "sheet", "report"}


def test_a_worker_that_died_after_the_registration(harness: TrainingHarness) -> None:
    died = Died(harness, "registered")
    train.register(died.work, died.trained())
    died.work.folder.__exit__(None, None, None)  # another worker has none of these files
    result = died.retry()
    assert result["dataset"]["digest"]
    curve = Image.open(io.BytesIO(fetched(outputs(result)["curve"]["url"])))
    assert (38, 96, 190) in {colour for _, colour in curve.getcolors(2**20) or []}
    assert not [key for key in harness.keys("characters/registered/") if "record" in key]


def test_a_worker_that_died_between_version_and_head(harness: TrainingHarness) -> None:
    died = Died(harness, "headless")
    train.register(died.work, died.trained())
    died.work.folder.__exit__(None, None, None)
    harness.resources.store.delete("characters/headless/character.json")
    result = died.retry()
    assert result["character"]["active"] is True


def test_a_worker_that_died_in_the_middle_of_the_training(harness: TrainingHarness) -> None:
    died = Died(harness, "half")
    harness.trainer_starts("kill@6", "kill@6", "kill@6")
    with pytest.raises(EngineCrashed):
        died.trained()
    recorder = Recorder()
    context = JobContext(died.job_id, CancelToken(), recorder, harness.folder / died.job_id)
    train.run(died.work.job, harness.resources, context)
    assert recorder.steps[0] == 4  # the state saved before the kill; not from the beginning
    assert recorder.steps[-1] == 8
    assert recorder.stages.count("photos") == 0
