"""Characters from photos alone: created, used at once, and the same calls once a LoRA is there."""

import contextlib
import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from local.s3 import S3Server
from lora_registry.character import CharacterRecord
from lora_registry.errors import CharacterNotFound
from tests.integration.training.training_harness import STAND_IN, TrainingHarness, make_tokenizers
from tests.integration.worker_harness import (
    WorkerHarness,
    copied_workflows,
    graph_of,
    picture,
    png,
    settings_for,
)
from worker.cancel import CancelToken
from worker.service import Worker

pytestmark = pytest.mark.process

SMALL = {"task": "image", "prompt": "a lighthouse", "width": 256, "height": 256, "steps": 2}
GRAPH_CHANGES: dict[str, dict[str, Any]] = {
    "40": {"class_type": "LoadImage", "inputs": {"image": "second.png"}},
    "41": {
        "class_type": "WanImageToVideo",
        "inputs": {
            "positive": ["6", 0],
            "negative": ["7", 0],
            "vae": ["4", 2],
            "width": 256,
            "height": 256,
            "length": 1,
            "batch_size": 1,
            "start_image": ["40", 0],
        },
    },
}
DECLARED = """
title = "A picture of somebody by photos"
kind = "image"
base_model = "next_year"
references = ["reference_1", "reference_2"]

[roles]
prompt = "6.text"
width = "11.width"
height = "11.height"
count = "13.amount"
steps = "3.steps"
seed = "3.seed"

[inputs.reference_1]
bind = "10.image"
kind = "image"
required = true

[inputs.reference_2]
bind = "40.image"
kind = "image"
required = false

[[outputs]]
node = "9"
kind = "image"
"""


def write_workflow(folder: Path) -> None:
    target = folder / "by_photos"
    target.mkdir()
    graph = json.loads((folder / "sdxl_img2img" / "graph.json").read_text()) | GRAPH_CHANGES
    graph["3"]["inputs"] |= {"positive": ["41", 0], "negative": ["41", 1], "denoise": 1.0}
    (target / "graph.json").write_text(json.dumps(graph))
    (target / "workflow.toml").write_text(DECLARED)


@pytest.fixture(scope="module")
def opened(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingHarness]:
    folder = tmp_path_factory.mktemp("instant")
    workflows = copied_workflows(folder)
    write_workflow(workflows)
    tokenizers = make_tokenizers(folder)
    settings = settings_for(
        s3,
        folder,
        WORKFLOWS_DIR=str(workflows),
        KOHYA_DIR=str(STAND_IN),
        KOHYA_TOKENIZERS=str(tokenizers),
    )
    with Worker(settings) as worker:
        worker.wait_ready()
        yield TrainingHarness(worker, folder)


@pytest.fixture
def harness(opened: TrainingHarness) -> Iterator[TrainingHarness]:
    yield opened
    assert opened.leftovers() == []


def create(
    harness: WorkerHarness, character_id: str, *colours: str, **fields: Any
) -> dict[str, Any]:
    sources = []
    for colour in colours:
        key = f"inputs/{character_id}/{colour}.png"
        harness.put(key, png(2000, 1500, colour))
        sources.append({"key": key})
    job = {"task": "characters", "action": "create", "character_id": character_id}
    return harness.run({**job, "references": sources, **fields})


def graph(result: dict[str, Any]) -> dict[str, Any]:
    assert "error" not in result, result
    return graph_of(picture(result["outputs"][0]["url"]))


def test_photos_are_kept_small_and_without_metadata(harness: TrainingHarness) -> None:
    made = create(harness, "ada", "teal", "olive", name="Ada", class_noun="woman", trigger="adx")
    assert made["warnings"] == []
    record = made["character"]
    assert (record["name"], record["active"], record["base_model"]) == ("Ada", None, "")
    for reference in record["references"]:
        body = harness.resources.store.get(reference["key"]).body
        image = Image.open(io.BytesIO(body))
        assert (image.format, image.size) == ("JPEG", (1536, 1152))
        assert (reference["width"], reference["height"], reference["size"]) == (
            *image.size,
            len(body),
        )
        assert dict(image.getexif()) == {}


def test_a_character_of_photos_is_used_at_once(harness: TrainingHarness) -> None:
    create(harness, "bea", "teal", "olive", class_noun="woman")
    result = harness.run(SMALL | {"character_id": "bea"})
    assert result["workflow"]["name"] == "by_photos"
    assert result["prompt"] == "the woman in images 1 and 2, a lighthouse"
    assert result["character"] == {
        "character_id": "bea",
        "trigger": "the woman in images 1 and 2",
        "references": 2,
    }
    assert result["outputs"][0]["key"].startswith("characters/bea/outputs/")
    sent = graph(result)
    assert sent["10"]["inputs"]["image"].endswith("-reference_1.jpg")
    assert sent["40"]["inputs"]["image"].endswith("-reference_2.jpg")
    marked = harness.run(SMALL | {"character_id": "bea", "prompt": "{trigger} reads"})
    assert marked["prompt"] == "the woman in images 1 and 2 reads"


def test_one_photo_leaves_the_second_place_out(harness: TrainingHarness) -> None:
    create(harness, "cai", "teal")
    result = harness.run(SMALL | {"character_id": "cai"})
    assert result["prompt"] == "the person in image 1, a lighthouse"
    assert "40" not in graph(result)


def test_two_characters_share_the_places(harness: TrainingHarness) -> None:
    create(harness, "dan", "teal", "olive", class_noun="man")
    create(harness, "eve", "navy", "red", class_noun="woman")
    both = [{"character_id": "dan"}, {"character_id": "eve"}]
    result = harness.run(
        SMALL | {"characters": both, "prompt": "{trigger:eve} greets {trigger:dan}"}
    )
    assert result["prompt"] == "the woman in image 2 greets the man in image 1"
    assert [used["references"] for used in result["characters"]] == [1, 1]


def test_more_characters_than_places_are_refused(harness: TrainingHarness) -> None:
    for name in ("fay", "gus", "hal"):
        create(harness, name, "teal")
    before = harness.prompts_run()
    all_of_them = [{"character_id": name} for name in ("fay", "gus", "hal")]
    refused = harness.run(SMALL | {"characters": all_of_them})
    assert (refused["code"], refused["field"]) == ("invalid_input", "character_id")
    assert "takes 2 reference photos, and there is none left for 'hal'" in refused["error"]
    assert harness.prompts_run() == before


def test_a_lora_takes_over_and_the_caller_changes_nothing(harness: TrainingHarness) -> None:
    create(harness, "ivy", "teal")
    by_photos = harness.run(SMALL | {"character_id": "ivy"})
    version = harness.register("ivy", trigger="ivx")
    by_lora = harness.run(SMALL | {"character_id": "ivy"})
    assert by_photos["workflow"]["name"] == "by_photos"
    assert by_lora["workflow"]["name"] == "sdxl"
    assert by_lora["character"]["version"] == version
    assert by_lora["prompt"] == "ivx, a lighthouse"
    still = harness.run(SMALL | {"character_id": "ivy", "workflow": "by_photos"})
    assert still["character"]["references"] == 1
    assert still["prompt"] == "the person in image 1, a lighthouse"


def test_a_workflow_without_references_says_what_to_do(harness: TrainingHarness) -> None:
    create(harness, "jon", "teal")
    harness.register("kim")
    sdxl = harness.run(SMALL | {"character_id": "jon", "workflow": "sdxl"})
    assert (sdxl["code"], sdxl["field"]) == ("version_not_found", "version")
    assert "choose a workflow that takes references" in sdxl["error"]
    photos = harness.run(SMALL | {"character_id": "kim", "workflow": "by_photos"})
    assert (photos["code"], photos["field"]) == ("invalid_input", "character_id")
    assert "takes reference photos and no LoRA; create 'kim'" in photos["error"]
    clip = harness.run({"task": "video", "prompt": "a walk", "character_id": "jon"})
    assert (clip["code"], clip["field"]) == ("invalid_input", "character_id")


def test_a_photo_that_is_gone_is_said(harness: TrainingHarness) -> None:
    made = create(harness, "lea", "teal")
    harness.resources.store.delete(made["character"]["references"][0]["key"])
    refused = harness.run(SMALL | {"character_id": "lea"})
    assert (refused["code"], refused["field"]) == ("character_not_found", "character_id")
    assert "is gone; create it again" in refused["error"]


def test_a_photo_that_is_refused_leaves_nothing(harness: TrainingHarness) -> None:
    harness.put("inputs/max/good.png", png())
    harness.put("inputs/max/bad.png", b"no picture")
    job = {"task": "characters", "action": "create", "character_id": "max"}
    good, bad = {"key": "inputs/max/good.png"}, {"key": "inputs/max/bad.png"}
    refused = harness.run({**job, "references": [good, bad]})
    assert (refused["code"], refused["field"]) == ("image_rejected", "references.1")
    for given in ([], [good] * 6):
        many = harness.run({**job, "references": given})
        assert (many["code"], many["field"]) == ("invalid_input", "references")
    none = harness.run(job)
    assert none["code"] == "invalid_input"
    assert harness.keys("characters/max/") == []


def test_a_character_is_usable_while_it_trains_and_when_that_fails(
    harness: TrainingHarness,
) -> None:
    cancel = CancelToken()
    harness.trainer_starts("hang@2")
    job = harness.job("nia", instant=True, class_noun="woman")
    with ThreadPoolExecutor(1) as thread:
        training = thread.submit(harness.run, job, cancel=cancel)
        try:
            meanwhile = appeared(harness, "nia")
        finally:
            cancel.cancel()
        assert training.result()["code"] == "cancelled"
    assert (meanwhile.active, len(meanwhile.references)) == (None, 5)
    assert harness.resources.registry.get("nia") == meanwhile
    by_photos = harness.run(SMALL | {"character_id": "nia"})
    assert by_photos["prompt"] == "the woman in images 1 and 2, a lighthouse"

    harness.trainer_starts("none")
    trained = harness.run(harness.job("nia"))
    assert trained["character"]["trigger"] == meanwhile.trigger
    record = harness.resources.registry.get("nia")
    assert record.references == meanwhile.references
    assert record.class_noun == "woman"
    assert harness.run(SMALL | {"character_id": "nia"})["workflow"]["name"] == "sdxl"


def appeared(harness: TrainingHarness, character_id: str) -> CharacterRecord:
    """The character as soon as it is there."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(CharacterNotFound):
            return harness.resources.registry.get(character_id)
        time.sleep(0.05)
    raise TimeoutError(character_id)
