"""Which step of a training becomes the character: real faces, shown by the stand-in by step."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from safetensors import safe_open

from tests.faces import mixed, obama_photos
from tests.integration.training.training_harness import TrainingHarness
from tests.integration.worker_harness import fetched, picture

pytestmark = pytest.mark.process


def show(harness: TrainingHarness, by_step: Mapping[int, bytes]) -> None:
    """What the stand-in shows of each step."""
    rules = []
    for step, body in by_step.items():
        path = harness.folder / f"of-step-{step}.jpg"
        path.write_bytes(body)
        rules.append({"loras": [f"step{step:08d}"], "picture": str(path)})
    (harness.folder / "shown.json").write_text(json.dumps(rules))


def job(harness: TrainingHarness, character_id: str, **fields: Any) -> dict[str, Any]:
    """A training of eight steps, four of them shown once on one prompt."""
    images = []
    for number, body in enumerate(obama_photos(6)):
        key = f"inputs/faces/{number}.jpg"
        harness.put(key, body, "image/jpeg")
        images.append({"key": key})
    return harness.job(character_id, images=images, gate_seeds=1, **fields)


def test_the_earliest_of_the_most_alike_steps_becomes_the_version(faces: TrainingHarness) -> None:
    # 4 and 6 look the same; the last one has turned into somebody else.
    show(faces, {2: mixed(0.6), 4: mixed(0.0), 6: mixed(0.0), 8: mixed(0.9)})
    result = faces.run(job(faces, "best"), job_id="best-1")
    gate = result["gate"]
    assert [one["step"] for one in gate["checkpoints"]] == [2, 4, 6, 8]
    assert [one["chosen"] for one in gate["checkpoints"]] == [False, True, False, False]
    scores = [one["likeness"] for one in gate["checkpoints"]]
    assert scores[1] == scores[2] > scores[0] > scores[3]
    # At every strength the stand-in shows the same, so the least one will do.
    assert [one["strength"] for one in gate["strengths"]] == [0.7, 0.85, 1.0]
    assert (gate["step"], gate["strength"]) == (4, 0.7)

    version = faces.resources.registry.version("best", result["character"]["version"])
    assert version.strength == 0.7
    assert version.likeness is not None
    assert (version.likeness.score, version.likeness.step) == (scores[1], 4)
    assert version.likeness.photos == 6
    assert version.training is not None
    assert version.training["steps"] == 4
    weights = faces.folder / "best.safetensors"
    weights.write_bytes(fetched(next(o["url"] for o in result["outputs"] if o["kind"] == "lora")))
    with safe_open(weights, framework="numpy") as opened:
        assert opened.metadata()["steps"] == "4"

    kinds = [(output["kind"], output["key"].rsplit("/", 1)[-1]) for output in result["outputs"]]
    assert ("sheet", "checkpoints.png") in kinds
    assert ("curve", "likeness.png") in kinds
    sheet = next(output for output in result["outputs"] if output["kind"] == "sheet")
    assert picture(sheet["url"]).width > 6 * 256
    assert result["previews"]["status"] == "done"
    assert not [key for key in faces.keys("characters/best/training/") if "best-1." in key]
    loras = faces.resources.settings.loras_folder
    assert not [*loras.glob("*-step*")]


def test_below_the_gate_a_version_is_kept_and_not_activated(faces: TrainingHarness) -> None:
    show(faces, {step: mixed(0.8) for step in (2, 4, 6, 8)})
    result = faces.run(job(faces, "gated", likeness_gate=0.5))
    assert not result["character"]["active"]
    assert any("below likeness_gate 0.5" in warning for warning in result["warnings"])
    record = faces.resources.registry.get("gated")
    assert record.active is None


def test_one_checkpoint_is_measured_and_taken(faces: TrainingHarness) -> None:
    show(faces, {8: mixed(0.0)})
    result = faces.run(job(faces, "single", checkpoints=1, likeness_gate=0.5))
    assert [one["step"] for one in result["gate"]["checkpoints"]] == [8]
    assert result["character"]["active"]


def test_after_a_crash_the_earlier_steps_are_there(
    faces: TrainingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOHYA_FAULTS", str(faces.kohya_faults))
    faces.trainer_starts("kill@5", "-")
    show(faces, {2: mixed(0.0), 4: mixed(0.5), 6: mixed(0.5), 8: mixed(0.5)})
    result = faces.run(job(faces, "crashed"))
    assert [one["step"] for one in result["gate"]["checkpoints"]] == [2, 4, 6, 8]
    assert result["gate"]["step"] == 2


def test_a_training_whose_steps_cannot_be_shown_ends_with_its_last(
    faces: TrainingHarness,
) -> None:
    faces.faults(fail_at_node="VAEDecode", times=1)
    result = faces.run(job(faces, "unshown"))
    assert result["gate"]["not_measured"]
    assert "step" not in result["gate"]
    assert result["character"]["active"]
    assert result["previews"]["status"] == "done"
    version = faces.resources.registry.version("unshown", result["character"]["version"])
    assert version.likeness is None
    assert version.training is not None
    assert version.training["steps"] == 8
