"""The image branch on the local stack: jobs in, pictures fetched by their presigned URLs out."""

import base64
import dataclasses
import hashlib
import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from local.lora_file import write_demo_lora
from local.s3 import S3Server
from lora_registry.tensorfile import read_header
from lora_registry.versions import NewVersion
from tests.integration.worker_harness import (
    WorkerHarness,
    fetched,
    graph_of,
    picture,
    png,
    settings_for,
)
from worker.availability import Availability
from worker.cancel import CancelToken
from worker.generation.warmup import warm_up
from worker.service import Worker
from workflows.library import load_library

pytestmark = pytest.mark.process

SMALL = {"task": "image", "prompt": "a lighthouse", "width": 256, "height": 256, "steps": 2}


def loras_in(graph: dict[str, Any]) -> list[tuple[str, float]]:
    """The LoRA chain of a graph, first to last."""
    node, chain = graph["3"]["inputs"]["model"][0], []
    while node != "4":
        inputs = graph[node]["inputs"]
        chain.append((inputs["lora_name"], inputs["strength_model"]))
        node = inputs["model"][0]
    return chain[::-1]


def test_a_picture_without_a_character(harness: WorkerHarness) -> None:
    result = harness.run(SMALL | {"seed": 11, "negative_prompt": "fog"}, job_id="plain")
    (output,) = result["outputs"]
    assert result["workflow"]["name"] == "sdxl"
    body = fetched(output["url"])
    assert hashlib.sha256(body).hexdigest() == output["sha256"]
    assert len(body) == output["bytes"]
    assert output["key"].startswith("base/outputs/")
    assert re.search(r"/plain/[0-9a-f]{8}/0\.png$", output["key"])
    image = picture(output["url"])
    assert (image.width, image.height) == (256, 256) == (output["width"], output["height"])
    graph = graph_of(image)
    assert graph["6"]["inputs"]["text"] == "a lighthouse" == result["prompt"]
    assert graph["7"]["inputs"]["text"] == "fog"
    assert graph["3"]["inputs"]["seed"] == 11 == result["seed"]
    assert loras_in(graph) == []


def test_one_character_with_its_trigger_and_strength(harness: WorkerHarness) -> None:
    version = harness.register("mira", trigger="ohwx")
    result = harness.run(SMALL | {"character_id": "mira", "strength": 0.7})
    assert result["character"] == {
        "character_id": "mira",
        "version": version,
        "strength": 0.7,
        "trigger": "ohwx",
    }
    assert result["prompt"] == "ohwx, a lighthouse"
    assert result["outputs"][0]["key"].startswith("characters/mira/outputs/")
    usable = harness.resources.registry.resolve("mira")
    graph = graph_of(picture(result["outputs"][0]["url"]))
    assert loras_in(graph) == [(f"{usable.sha256}.safetensors", 0.7)]


def test_four_characters_with_own_strengths_and_pinned_versions(harness: WorkerHarness) -> None:
    first = harness.register("ana", trigger="aaa", seed=1)
    second = harness.register("ana", trigger="aab", seed=2)
    for number, name in enumerate(["ben", "cem", "dia"], start=3):
        harness.register(name, trigger=f"{name}x", seed=number)
    characters = [
        {"character_id": "ana", "version": first, "strength": 0.1},
        {"character_id": "ben", "strength": 0.2},
        {"character_id": "cem", "strength": 0.3},
        {"character_id": "dia"},
    ]
    result = harness.run(SMALL | {"characters": characters, "prompt": "{trigger:ben} and friends"})
    assert result["characters"][0]["version"] == first != second
    assert result["prompt"] == "aaa, cemx, diax, benx and friends"
    graph = graph_of(picture(result["outputs"][0]["url"]))
    assert [strength for _, strength in loras_in(graph)] == [0.1, 0.2, 0.3, 1.0]


@pytest.mark.parametrize("way", ["base64", "key"])
def test_a_picture_from_a_picture(harness: WorkerHarness, way: str) -> None:
    body = png(600, 300)
    harness.put("inputs/start.png", body)
    source = (
        {"key": "inputs/start.png"} if way == "key" else {"base64": base64.b64encode(body).decode()}
    )
    job = {"task": "image", "prompt": "a pier", "init_image": source, "denoise": 0.4, "steps": 2}
    result = harness.run(job)
    assert result["workflow"]["name"] == "sdxl_img2img"
    image = picture(result["outputs"][0]["url"])
    assert image.width / image.height == pytest.approx(2.0, abs=0.1)
    graph = graph_of(image)
    assert graph["3"]["inputs"]["denoise"] == 0.4
    assert graph["11"]["inputs"]["width"] == image.width


@pytest.mark.parametrize(
    ("name", "content_type", "kind"),
    [("png", "image/png", "PNG"), ("jpeg", "image/jpeg", "JPEG"), ("webp", "image/webp", "WEBP")],
)
def test_every_format(harness: WorkerHarness, name: str, content_type: str, kind: str) -> None:
    result = harness.run(SMALL | {"format": name, "quality": 80})
    (output,) = result["outputs"]
    assert output["content_type"] == content_type
    assert picture(output["url"]).format == kind


def test_eight_pictures_of_one_job(harness: WorkerHarness) -> None:
    result = harness.run(SMALL | {"count": 8})
    assert len({output["key"] for output in result["outputs"]}) == 8
    assert all(fetched(output["url"]) for output in result["outputs"])


def test_the_same_job_twice_is_the_same_picture_and_delivered_from_the_cache(
    harness: WorkerHarness,
) -> None:
    job = SMALL | {"seed": 5, "prompt": "twice"}
    first, second = harness.run(job), harness.run(job)
    assert first["outputs"][0]["key"] != second["outputs"][0]["key"]
    one, two = (picture(result["outputs"][0]["url"]) for result in (first, second))
    assert one.tobytes() == two.tobytes()
    assert second["timings_ms"]["execution"] < first["timings_ms"]["execution"]


def test_a_job_without_a_seed_draws_one_that_a_retry_draws_again(harness: WorkerHarness) -> None:
    one = harness.run(SMALL, job_id="job-1")
    again = harness.run(SMALL, job_id="job-1")
    other = harness.run(SMALL, job_id="job-2")
    assert one["seed"] == again["seed"] != other["seed"]


def test_a_late_copy_of_a_job_takes_back_nothing_of_the_first(harness: WorkerHarness) -> None:
    """RunPod delivers at least once: both runs have the same id, the second is cancelled late."""
    first = harness.run(SMALL, job_id="copied")
    cancel = CancelToken()

    class CancelledAtTheEnd:
        """The store; once the outputs are on their way the job is cancelled."""

        def __getattr__(self, name: str) -> Any:
            if name == "presign":
                return self.presign
            return getattr(store, name)

        def presign(self, key: str, *args: Any, **options: Any) -> Any:
            if key.endswith("manifest.json"):
                while not stored:
                    time.sleep(0.01)
                stored[0].wait(10)
                cancel.cancel()
            return store.presign(key, *args, **options)

        def upload(self, *args: Any, **options: Any) -> Any:
            stored.append(threading.Event())
            info = store.upload(*args, **options)
            stored[-1].set()
            return info

    stored: list[threading.Event] = []
    store, resources = harness.resources.store, harness.worker.resources
    harness.worker.resources = dataclasses.replace(resources, store=CancelledAtTheEnd())  # type: ignore[arg-type] # the store and a cancel
    try:
        second = harness.run(SMALL, job_id="copied", cancel=cancel)
    finally:
        harness.worker.resources = resources
    assert second["code"] == "cancelled"
    keys = {output["key"] for output in first["outputs"]} | {first["manifest"]["key"]}
    assert keys == {key for key in harness.keys("base/outputs/") if "/copied/" in key}
    assert fetched(first["outputs"][0]["url"])


def test_the_manifest_has_all_it_takes_to_make_the_picture_again(harness: WorkerHarness) -> None:
    harness.register("mira", trigger="ohwx")
    job = SMALL | {"character_id": "mira", "seed": 9}
    result = harness.run(job)
    manifest = json.loads(fetched(result["manifest"]["url"]))
    assert manifest["input"] == job
    assert manifest["seed"] == 9
    assert manifest["workflow"]["digest"] == harness.resources.workflows["sdxl"].digest
    assert manifest["loras"][0]["sha256"] == harness.resources.registry.resolve("mira").sha256
    assert manifest["versions"]["comfyui"] == "0.33.0"
    assert manifest["outputs"][0]["sha256"] == result["outputs"][0]["sha256"]
    assert "X-Amz-Signature" not in json.dumps(manifest)
    assert set(manifest["timings_ms"]) >= {"queued", "execution", "total"}


def test_base64_never_ends_up_in_the_manifest(harness: WorkerHarness) -> None:
    text = base64.b64encode(png()).decode()
    result = harness.run(SMALL | {"init_image": {"base64": text}, "denoise": 0.5})
    manifest = fetched(result["manifest"]["url"]).decode()
    assert text not in manifest
    assert "base64_sha256" in manifest


def test_a_workflow_dropped_into_the_folder_is_usable_as_it_is(harness: WorkerHarness) -> None:
    """No line of Python knows `sdxl_soft` or its parameter; the folder is written here."""
    folder = harness.worker.settings.workflows_dir / "sdxl_soft"
    folder.mkdir(exist_ok=True)
    source = harness.worker.settings.workflows_dir / "sdxl"
    graph = json.loads((source / "graph.json").read_text())
    graph["20"] = {
        "class_type": "CLIPSetLastLayer",
        "inputs": {"stop_at_clip_layer": -1, "clip": ["4", 1]},
    }
    for encoder in ("6", "7"):
        graph[encoder]["inputs"]["clip"] = ["20", 0]
    (folder / "graph.json").write_text(json.dumps(graph))
    (folder / "workflow.toml").write_text(
        (source / "workflow.toml").read_text()
        + '\n[params.clip_layer]\ntype = "int"\nbind = "20.stop_at_clip_layer"\n'
        + "default = -1\nminimum = -24\nmaximum = -1\n"
    )
    library = load_library(harness.worker.settings.workflows_dir)
    availability = Availability(library, harness.resources.comfyui)
    availability.check_all()
    before = harness.worker.resources
    harness.worker.resources = dataclasses.replace(
        before, workflows=library, availability=availability
    )
    try:
        harness.register("mira", trigger="ohwx")
        job = SMALL | {"workflow": "sdxl_soft", "character_id": "mira"}
        result = harness.run(job | {"params": {"clip_layer": -2}})
        graph = graph_of(picture(result["outputs"][0]["url"]))
        assert graph["20"]["inputs"]["stop_at_clip_layer"] == -2
        assert graph["20"]["inputs"]["clip"] == ["lora_1", 1]
        refused = harness.run(job | {"params": {"clip_layer": 3}})
        assert refused["code"] == "invalid_input"
        assert refused["field"] == "params.clip_layer"
    finally:
        harness.worker.resources = before


def test_progress_goes_up_and_names_steps(harness: WorkerHarness) -> None:
    harness.faults(step_latency_s=0.15)
    harness.run(SMALL | {"steps": 12, "prompt": "slow"})
    percents = [update["percent"] for update in harness.updates]
    assert percents == sorted(percents)
    sampling = [update for update in harness.updates if update["stage"] == "sampling"]
    assert len(sampling) >= 2
    assert all(update["steps"] == 12 for update in sampling)


def test_a_cancel_frees_the_gpu_and_leaves_nothing(harness: WorkerHarness) -> None:
    harness.faults(step_latency_s=0.2)
    token = CancelToken()
    timer = threading.Timer(1.0, token.cancel)
    timer.start()
    begun = time.monotonic()
    result = harness.run(
        SMALL | {"steps": 100, "prompt": "never"}, job_id="cancelled", cancel=token
    )
    assert result["code"] == "cancelled"
    assert time.monotonic() - begun < 4.0
    assert [key for key in harness.keys("base/outputs/") if "/cancelled/" in key] == []


def test_a_job_that_takes_too_long_says_so(harness: WorkerHarness) -> None:
    harness.faults(step_latency_s=0.2)
    result = harness.run(SMALL | {"steps": 100, "timeout_s": 1, "prompt": "late"})
    assert result["code"] == "timeout"
    assert "timeout_s" in result["error"]


REFUSED: list[tuple[dict[str, Any], str, str | None]] = [
    ({"character_id": "nobody"}, "character_not_found", "character_id"),
    (
        {"character_id": "mira", "version": "20000101T000000000-none"},
        "version_not_found",
        "version",
    ),
    ({"workflow": "flux"}, "workflow_not_found", "workflow"),
    ({"sampler": "no_such_sampler"}, "workflow_rejected", None),
    ({"init_image": {"key": "secrets/x.png"}}, "source_forbidden", "init_image.key"),
    ({"init_image": {"key": "inputs/none.png"}}, "source_unreachable", "init_image.key"),
    ({"init_image": {"base64": "bm8gcGljdHVyZQ=="}}, "image_rejected", "init_image"),
    ({"init_image": {"base64": "%%%"}}, "invalid_input", "init_image.base64"),
    ({"init_image": {"url": "http://127.0.0.1/x.png"}}, "source_forbidden", "init_image.url"),
    ({"init_image": {"url": "http://169.254.169.254/"}}, "source_forbidden", "init_image.url"),
    ({"init_image": {"url": "http://[::1]/"}}, "source_forbidden", "init_image.url"),
    ({"init_image": {"url": "file:///etc/passwd"}}, "source_forbidden", "init_image.url"),
    ({"params": {"nothing": 1}}, "invalid_input", "params.nothing"),
    ({"task": "sing"}, "invalid_input", "task"),
]


@pytest.mark.parametrize(("change", "code", "field"), REFUSED)
def test_bad_input_is_refused_without_a_gpu(
    harness: WorkerHarness, change: dict[str, Any], code: str, field: str | None
) -> None:
    harness.register("mira", trigger="ohwx")
    before = harness.prompts_run()
    result = harness.run(SMALL | change)
    assert (result["code"], result.get("field")) == (code, field)
    assert "outputs" not in result
    assert "/tmp" not in json.dumps(result)  # noqa: S108 - no path of the worker in an answer
    assert "Traceback" not in json.dumps(result)
    assert harness.prompts_run() == before


def test_a_deleted_character_is_not_found_until_it_is_restored(harness: WorkerHarness) -> None:
    harness.register("gone", trigger="ggg", seed=40)
    assert harness.run({"task": "characters", "action": "delete", "character_id": "gone"})
    refused = harness.run(SMALL | {"character_id": "gone"})
    assert refused["code"] == "character_not_found"
    assert "restore" in refused["error"]
    harness.run({"task": "characters", "action": "restore", "character_id": "gone"})
    assert "outputs" in harness.run(SMALL | {"character_id": "gone"})


def test_a_character_of_another_base_model_is_refused_not_rendered_wrong(
    harness: WorkerHarness,
) -> None:
    path = harness.folder / "old.safetensors"
    write_demo_lora(path, rank=1, seed=70)
    new = NewVersion("old", "old", path, "sd15", "kohya", 1, "ooo")
    harness.resources.registry.add_version(new)
    before = harness.prompts_run()
    refused = harness.run(SMALL | {"character_id": "old", "workflow": "sdxl"})
    assert (refused["code"], refused["field"]) == ("invalid_input", "character_id")
    assert refused["details"] == {"character": "sd15", "workflow": "sdxl"}
    refused = harness.run(SMALL | {"character_id": "old"})
    assert (refused["code"], refused["field"]) == ("invalid_input", "character_id")
    assert refused["details"] == {"base_models": ["sd15"]}
    assert harness.prompts_run() == before


def test_a_lora_whose_bytes_were_swapped_is_corrupt_and_gone(harness: WorkerHarness) -> None:
    harness.register("bad", trigger="bbb", seed=50)
    usable = harness.resources.registry.resolve("bad")
    size = usable.size
    harness.put(usable.key, b"x" * size, "application/octet-stream")
    before = harness.prompts_run()
    result = harness.run(SMALL | {"character_id": "bad"})
    assert result["code"] == "lora_corrupt"
    assert harness.prompts_run() == before
    assert not list(harness.worker.settings.loras_folder.glob(f"{usable.sha256}*.safetensors"))


def test_characters_can_be_registered_listed_and_used_through_jobs(harness: WorkerHarness) -> None:
    path = harness.folder / "leo.safetensors"
    write_demo_lora(path, rank=1, seed=60)
    harness.put("inputs/leo.safetensors", path.read_bytes(), "application/octet-stream")
    registered = harness.run(
        {
            "task": "characters",
            "action": "register",
            "character_id": "leo",
            "trigger": "zkv",
            "source": {"key": "inputs/leo.safetensors"},
        }
    )
    assert registered["character"]["active"]["sha256"]
    listed = harness.run({"task": "characters", "action": "list", "limit": 200})
    assert "leo" in [character["character_id"] for character in listed["characters"]]
    got = harness.run({"task": "characters", "action": "get", "character_id": "leo"})
    assert len(got["versions"]) == 1
    assert harness.run(SMALL | {"character_id": "leo"})["character"]["trigger"] == "zkv"


def test_health_names_what_runs_here(harness: WorkerHarness) -> None:
    health = harness.run({"task": "health"})
    assert health["ok"]
    assert health["versions"]["comfyui"] == "0.33.0"
    assert health["workflows"]["sdxl"]["ok"]
    assert "image" not in health["cannot"]
    assert health["storage"]["ok"]
    assert health["families"]["sdxl"]["ok"]
    assert health["families"]["sdxl"]["workflows"]
    assert health["families"]["qwen_image"]["lacks"] == [
        "no workflow of this worker takes its LoRAs"
    ]
    assert health["comfyui"]["gpu"]


@pytest.mark.parametrize("name", ["sdxl", "sdxl_img2img", "svd", "svd_from_prompt"])
def test_every_workflow_can_warm_up_and_leaves_nothing(harness: WorkerHarness, name: str) -> None:
    before = harness.prompts_run()
    warm_up(harness.resources, name)
    assert harness.prompts_run() == before + 1


def test_a_lora_of_a_family_without_a_workflow_registers_with_a_warning(
    harness: WorkerHarness,
) -> None:
    path = harness.folder / "qwen.safetensors"
    name = "diffusion_model.transformer_blocks.40.attn.to_k"
    parts = {"lora_A": (4, 3072), "lora_B": (3072, 4)}
    save_file({f"{name}.{p}.weight": np.ones(s, np.float16) for p, s in parts.items()}, path)
    harness.put("inputs/qwen.safetensors", path.read_bytes())
    job = {
        "task": "characters",
        "action": "register",
        "character_id": "qwen",
        "source": {"key": "inputs/qwen.safetensors"},
    }
    refused = harness.run(job | {"base_model": "sdxl"})
    assert (refused["code"], refused["details"]["recognised"]) == ("invalid_input", ["qwen_image"])
    answer = harness.run(job | {"base_model": "qwen_image"})
    assert answer["character"]["base_model"] == "qwen_image"
    assert len(answer["warnings"]) == 1
    assert "No workflow of this worker runs on qwen_image" in answer["warnings"][0]
    used = harness.run(SMALL | {"character_id": "qwen"})
    assert "was trained on qwen_image" in used["error"]


@pytest.mark.parametrize("lost", [0.1, 1.0])
def test_a_lora_that_the_checkpoint_does_not_take_is_said_or_refused(
    harness: WorkerHarness, lost: float
) -> None:
    name = f"lost{round(lost * 10)}"
    harness.register(name, seed=round(90 + lost * 10))
    assert "warnings" not in harness.run(SMALL | {"character_id": name})
    sha256 = harness.resources.registry.get(name).active.sha256  # type: ignore[union-attr]  # just registered
    path = next(harness.worker.settings.loras_folder.glob(f"{sha256}*.safetensors"))
    log, digest = harness.resources.engine.lora_log, harness.resources.workflows["sdxl"].digest
    keys = sorted(read_header(path).tensors)
    for key in keys[: round(lost * len(keys))]:  # as ComfyUI prints it
        log.take(f"lora key not loaded: {key}")
    log.of_prompt(60, (path.name, digest))
    result = harness.run(SMALL | {"character_id": name})
    if lost < 1:
        assert "of the 722 modules" in result["warnings"][0]
        return
    assert (result["code"], result["field"]) == ("invalid_input", "character_id")
    assert f"takes none of the 722 modules of '{name}'" in result["error"]
    day = f"characters/{name}/outputs/"
    assert len([key for key in harness.keys(day) if key.endswith(".png")]) == 1  # the first job's


def test_a_worker_that_serves_health_alone_starts_without_its_bucket(
    s3: S3Server, tmp_path: Path
) -> None:
    settings = settings_for(
        s3, tmp_path, WORKER_TASKS="health", S3_ENDPOINT_URL="http://127.0.0.1:9"
    )
    with Worker(settings) as worker:
        worker.wait_ready()
        result = worker.run("j", {"task": "health"}, cancel=CancelToken(), send=lambda _: None)
    assert not result["ok"]
    assert result["comfyui"]["ok"]
    assert not result["storage"]["ok"]
