"""Workflows of every kind on the local stack: files in and out, by named inputs."""

import base64
import io
import json
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from local.s3 import S3Server
from local.stack import ROOT
from tests.integration.worker_harness import (
    WorkerHarness,
    copied_workflows,
    fetched,
    graph_of,
    picture,
    png,
    settings_for,
)
from worker.service import Worker

pytestmark = pytest.mark.process

SMALL = {"prompt": "a lighthouse", "width": 256, "height": 256, "steps": 2}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


MASKS = {
    "1": node("LoadImage", image="x.png"),
    "2": node("MaskToImage", mask=["1", 1]),
    "3": node("SaveImage", images=["2", 0], filename_prefix="x"),
    "4": node("SaveImage", images=["1", 0], filename_prefix="x"),
}
SOUND = {
    "1": node("LoadAudio", audio="x.wav"),
    "2": node("SaveAudio", audio=["1", 0], filename_prefix="x"),
}
FRAMES = {
    "1": node("LoadVideo", file="x.mp4"),
    "2": node("GetVideoComponents", video=["1", 0]),
    "3": node("CreateVideo", images=["2", 0], fps=["2", 2]),
    "4": node("SaveVideo", video=["3", 0], filename_prefix="x", format="auto", codec="auto"),
}
OWN_FILE = {
    "1": node("LoadImage", image="stamp.png"),
    "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
}
# Steps and guidance from nodes of their own, as Flux's and Wan's exports have them.
GUIDED = {
    "1": node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
    "2": node("CLIPTextEncode", text="", clip=["1", 1]),
    "3": node("BasicGuider", model=["1", 0], conditioning=["2", 0]),
    "4": node("RandomNoise", noise_seed=0),
    "5": node("KSamplerSelect", sampler_name="euler"),
    "6": node("BasicScheduler", model=["1", 0], scheduler="simple", steps=4, denoise=1.0),
    "7": node("EmptyLatentImage", width=64, height=64, batch_size=1),
    "8": node(
        "SamplerCustomAdvanced",
        noise=["4", 0],
        guider=["3", 0],
        sampler=["5", 0],
        sigmas=["6", 0],
        latent_image=["7", 0],
    ),
    "9": node("VAEDecode", samples=["8", 0], vae=["1", 2]),
    "10": node("SaveImage", images=["9", 0], filename_prefix="x"),
}
TOMLS = {
    "masks": (
        MASKS,
        (
            'title = "A"\nkind = "image"\n'
            'inputs.init_image = { bind = "1.image", kind = "image" }\n'
            'outputs = [{ node = "3", name = "mask" }, { node = "4", name = "picture" }]\n'
        ),
    ),
    "sound": (
        SOUND,
        (
            'title = "A"\nkind = "audio"\ninputs.sound = { bind = "1.audio", kind = "audio" }\n'
            'outputs = [{ node = "2" }]\n'
        ),
    ),
    "frames": (
        FRAMES,
        (
            'title = "A"\nkind = "video"\ninputs.clip = { bind = "1.file", kind = "video" }\n'
            'outputs = [{ node = "4" }]\n'
        ),
    ),
    "stamp": (OWN_FILE, 'title = "A"\nkind = "image"\noutputs = [{ node = "2" }]\n'),
    "guided": (
        GUIDED,
        (
            'title = "A"\nkind = "image"\noutputs = [{ node = "10" }]\n'
            '[roles]\nseed = "4.noise_seed"\n[limits.seed]\nminimum = 5\nmaximum = 9\n'
            '[params.text]\ntype = "string"\nbind = "2.text"\ntriggers = true\n'
        ),
    ),
}


@pytest.fixture(scope="module", name="worker")
def _worker(
    s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WorkerHarness, Path]]:
    folder = tmp_path_factory.mktemp("workflows")
    flows = copied_workflows(folder)
    for name, (graph, toml) in TOMLS.items():
        (flows / name).mkdir()
        (flows / name / "graph.json").write_text(json.dumps(graph))
        (flows / name / "workflow.toml").write_text(toml)
    (flows / "stamp" / "files").mkdir()
    (flows / "stamp" / "files" / "stamp.png").write_bytes(png(32, 16, "red"))
    for name in ("sdxl_refiner", "sdxl_controlnet", "upscale"):
        shutil.copytree(ROOT / "docs" / "drop-ins" / name, flows / name)
    for place in (
        "checkpoints/sd_xl_refiner_1.0.safetensors",
        "controlnet/controlnet-openpose-sdxl-1.0.safetensors",
        "upscale_models/RealESRGAN_x4plus.pth",
    ):
        path = folder / "models" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with Worker(settings_for(s3, folder, WORKFLOWS_DIR=str(flows))) as opened:
        opened.wait_ready()
        yield WorkerHarness(opened, folder), flows


@pytest.fixture(name="harness")
def _harness(worker: tuple[WorkerHarness, Path]) -> Iterator[WorkerHarness]:
    harness, _ = worker
    yield harness
    assert harness.leftovers() == []


def source(body: bytes) -> dict[str, str]:
    return {"base64": base64.encodebytes(body).decode()}


def half_transparent() -> bytes:
    image = Image.new("RGBA", (128, 64), "red")
    image.paste((255, 0, 0, 0), (0, 0, 64, 64))
    body = io.BytesIO()
    image.save(body, "PNG")
    return body.getvalue()


def outputs(result: dict[str, Any]) -> list[dict[str, Any]]:
    assert "outputs" in result, result
    found: list[dict[str, Any]] = result["outputs"]
    return found


def test_transparency_reaches_the_mask_of_its_loader_and_outputs_have_names(
    harness: WorkerHarness,
) -> None:
    job = {"task": "image", "workflow": "masks", "init_image": source(half_transparent())}
    mask, whole = outputs(harness.run(job))
    assert (mask["name"], whole["name"], mask["node"]) == ("mask", "picture", "3")
    assert mask["key"].endswith("/mask.png")
    pixels = np.asarray(picture(mask["url"]).convert("L"))
    assert pixels.shape == (64, 128)
    assert pixels[:, :64].min() == 255
    assert pixels[:, 64:].max() == 0


def sound(seconds: int = 1) -> bytes:
    body = io.BytesIO()
    with wave.open(body, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(range(256)) * 62 * seconds)
    return body.getvalue()


def clip() -> bytes:
    body = io.BytesIO()
    with av.open(body, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(4):
            pixels = np.full((64, 64, 3), number * 40, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return body.getvalue()


def test_a_sound_goes_in_and_comes_out(harness: WorkerHarness) -> None:
    job = {"task": "workflow", "workflow": "sound", "inputs": {"sound": source(sound())}}
    (output,) = outputs(harness.run(job))
    assert (output["kind"], output["content_type"]) == ("audio", "audio/flac")
    assert output["duration_s"] == pytest.approx(0.992, abs=0.01)


@pytest.mark.parametrize("task", ["workflow", "video"])
def test_a_clip_goes_in_and_comes_out_as_its_node_writes_it(
    harness: WorkerHarness, task: str
) -> None:
    job = {"task": task, "workflow": "frames", "inputs": {"clip": source(clip())}}
    output, poster = outputs(harness.run(job))
    assert (output["kind"], output["frames"], output["fps"]) == ("video", 4, 8.0)
    assert poster["kind"] == "poster"


def test_files_of_the_workflow_are_placed_for_it(harness: WorkerHarness) -> None:
    (output,) = outputs(harness.run({"task": "image", "workflow": "stamp"}))
    assert picture(output["url"]).size == (32, 16)


def test_a_sampler_without_steps_of_its_own_tells_them_and_keeps_to_its_seeds(
    harness: WorkerHarness,
) -> None:
    harness.faults(step_latency_s=0.3)  # progress is told every half second
    result = harness.run({"task": "workflow", "workflow": "guided"})
    harness.no_faults()
    assert 5 <= result["seed"] <= 9
    assert "sampling" in {update["stage"] for update in harness.updates}


def test_a_text_of_a_param_takes_triggers(harness: WorkerHarness) -> None:
    job = {"task": "workflow", "workflow": "guided", "params": {"text": "{trigger} on a hill"}}
    assert graph_of(picture(outputs(harness.run(job))[0]["url"]))["2"]["inputs"]["text"] == (
        " on a hill"
    )
    named = harness.run(job | {"params": {"text": "{trigger:leo} on a hill"}})
    assert (named["code"], named["field"]) == ("invalid_input", "params.text")


@pytest.mark.parametrize(
    ("job", "field", "words"),
    [
        ({"task": "image", "workflow": "sound"}, "workflow", "task 'workflow'"),
        ({"task": "video", "workflow": "sdxl", "prompt": "x"}, "workflow", "task 'image'"),
        ({"task": "workflow", "workflow": "sound"}, "inputs.sound", "is required"),
        ({"task": "workflow", "workflow": "stamp", "prompt": "x"}, "prompt", "no such input"),
        (
            {"task": "workflow", "workflow": "stamp", "inputs": {"maks": "inputs/x"}},
            "inputs.maks",
            "no such input",
        ),
        (
            {
                "task": "video",
                "workflow": "frames",
                "format": "webm",
                "inputs": {"clip": "inputs/x"},
            },
            "format",
            "which writes mp4",
        ),
        (
            {"task": "workflow", "workflow": "sound", "inputs": {"sound": source(png())}},
            "inputs.sound",
            "is not a sound",
        ),
        (
            {"task": "workflow", "workflow": "frames", "inputs": {"clip": source(sound())}},
            "inputs.clip",
            "is not a video",
        ),
        (
            {
                "task": "workflow",
                "workflow": "frames",
                "inputs": {"clip": source(b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/a.ts\n")},
            },
            "inputs.clip",
            "is not a video",
        ),
        ({"task": "image"}, "prompt", "is required"),
    ],
)
def test_what_cannot_be_is_refused_before_the_gpu(
    harness: WorkerHarness, job: dict[str, Any], field: str, words: str
) -> None:
    before = harness.prompts_run()
    result = harness.run(job)
    assert (result.get("code"), result.get("field")) == ("invalid_input", field), result
    assert words in result["error"]
    assert harness.prompts_run() == before


def test_inpainting_with_a_mask_of_its_own(harness: WorkerHarness) -> None:
    job = SMALL | {
        "task": "image",
        "init_image": source(png(256, 256)),
        "inputs": {"mask": source(png(64, 64, "white"))},
        "params": {"grow": 3},
    }
    result = harness.run(job)
    assert result["workflow"]["name"] == "sdxl_inpaint"
    graph = graph_of(picture(outputs(result)[0]["url"]))
    assert graph["16"]["class_type"] == "SetLatentNoiseMask"
    assert graph["15"]["inputs"]["expand"] == 3


def test_inpainting_where_the_picture_is_transparent_or_a_word_about_it(
    harness: WorkerHarness,
) -> None:
    job = SMALL | {"task": "image", "workflow": "sdxl_inpaint"}
    result = harness.run(job | {"init_image": source(half_transparent())})
    assert outputs(result)[0]["width"] == 256
    refused = harness.run(job | {"init_image": source(png(256, 256))})
    assert refused["field"] == "inputs.mask"
    assert "transparent" in refused["error"]


@pytest.mark.parametrize(
    ("name", "more", "size"),
    [
        ("sdxl_hires", {"params": {"scale": 2.0}}, (512, 512)),
        ("sdxl_refiner", {"params": {"switch_at": 1}}, (256, 256)),
        ("sdxl_controlnet", {"inputs": {"control": source(png(300, 200))}}, (256, 256)),
    ],
)
def test_the_other_picture_workflows_run_with_a_character(
    harness: WorkerHarness, name: str, more: dict[str, Any], size: tuple[int, int]
) -> None:
    harness.register("mira", trigger="ohwx")
    job = SMALL | {"task": "image", "workflow": name, "character_id": "mira"} | more
    result = harness.run(job)
    image = picture(outputs(result)[0]["url"])
    assert image.size == size
    assert graph_of(image)["6"]["inputs"]["text"] == "ohwx, a lighthouse"
    assert graph_of(image)["3"]["inputs"]["model"] == ["lora_1", 0]


def test_an_upscaler_takes_a_picture_and_nothing_else(harness: WorkerHarness) -> None:
    job = {"task": "workflow", "workflow": "upscale", "inputs": {"image": source(png(40, 30))}}
    (output,) = outputs(harness.run(job))
    assert output["name"] == "enlarged"
    assert fetched(output["url"])


@pytest.mark.parametrize("file_format", ["png", "webp"])
def test_metadata_stays_unless_the_job_says_otherwise(
    harness: WorkerHarness, file_format: str
) -> None:
    job = SMALL | {"task": "image", "prompt": "a secret lighthouse", "format": file_format}
    bare = outputs(harness.run(job | {"metadata": "strip"}))[0]
    kept = outputs(harness.run(job))[0]
    assert b"secret" not in fetched(bare["url"])
    assert (b"secret" in fetched(kept["url"])) is (file_format == "png")
    assert (bare["width"], bare["key"][-5:]) == (kept["width"], kept["key"][-5:])


def test_a_clip_without_its_graph(harness: WorkerHarness) -> None:
    inputs = {"clip": source(clip())}
    job = {"task": "video", "workflow": "frames", "inputs": inputs, "metadata": "strip"}
    output, poster = outputs(harness.run(job))
    assert b"class_type" not in fetched(output["url"])
    assert output["frames"] == 4
    assert fetched(poster["url"])
