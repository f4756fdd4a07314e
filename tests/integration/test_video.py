"""The video branch on the local stack: clips that a player opens, read back from the bucket."""

import base64
import io
from typing import Any

import av
import pytest
import requests
from PIL import Image

from tests.integration.worker_harness import WorkerHarness, fetched, graph_of, picture, png

pytestmark = pytest.mark.process

SMALL = {"task": "video", "width": 256, "height": 256, "frames": 6, "fps": 6, "steps": 2}


def source(width: int = 640, height: int = 480) -> dict[str, str]:
    return {"base64": base64.b64encode(png(width, height)).decode()}


def by_kind(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    assert "outputs" in result, result
    return {output["kind"]: output for output in result["outputs"]}


@pytest.mark.parametrize(
    ("name", "content_type", "codec"),
    [("mp4", "video/mp4", "h264"), ("webm", "video/webm", "vp9")],
)
def test_a_clip_from_a_picture_is_what_the_result_says(
    harness: WorkerHarness, name: str, content_type: str, codec: str
) -> None:
    result = harness.run(SMALL | {"image": source(), "format": name})
    outputs = by_kind(result)
    clip = outputs["video"]
    body = fetched(clip["url"])
    with av.open(io.BytesIO(body), "r") as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == codec
        frames = list(container.decode(stream))
        assert (stream.width, stream.height) == (256, 256) == (clip["width"], clip["height"])
        assert float(stream.average_rate or 0) == 6.0 == clip["fps"]
    assert len(frames) == 6 == clip["frames"]
    assert clip["duration_s"] == pytest.approx(1.0)
    assert clip["content_type"] == content_type
    poster = picture(outputs["poster"]["url"])
    assert (poster.format, poster.size) == ("WEBP", (256, 256))


def test_an_animated_webp(harness: WorkerHarness) -> None:
    clip = by_kind(harness.run(SMALL | {"image": source(), "format": "webp"}))["video"]
    image = Image.open(io.BytesIO(fetched(clip["url"])))
    assert getattr(image, "n_frames", 1) == 6 == clip["frames"]
    assert clip["content_type"] == "image/webp"


def test_a_browser_plays_it_in_place_and_seeks(harness: WorkerHarness) -> None:
    clip = by_kind(harness.run(SMALL | {"image": source()}))["video"]
    answer = requests.get(clip["url"], headers={"Range": "bytes=0-99"}, timeout=10)
    assert answer.status_code == 206
    assert len(answer.content) == 100
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Content-Disposition"] == 'inline; filename="0.mp4"'


def test_from_a_prompt_the_start_frame_is_made_in_the_same_graph_and_delivered(
    harness: WorkerHarness,
) -> None:
    harness.register("mira", trigger="ohwx")
    before = harness.prompts_run()
    job = SMALL | {"prompt": "{trigger} person waves", "character_id": "mira", "seed": 3}
    result = harness.run(job)
    outputs = by_kind(result)
    assert harness.prompts_run() == before + 1
    assert result["workflow"]["name"] == "svd_from_prompt"
    assert result["character"]["character_id"] == "mira"
    start = picture(outputs["image"]["url"])
    assert start.size == (256, 256)
    graph = graph_of(start)
    assert graph["26"]["inputs"]["text"] == "ohwx person waves"
    assert graph["3"]["inputs"]["init_image"] == ["28", 0]
    assert outputs["video"]["frames"] == 6


@pytest.mark.parametrize(
    ("size", "expected"), [((800, 450), (1024, 576)), ((450, 800), (576, 1024))]
)
def test_an_open_size_follows_the_pictures_orientation(
    harness: WorkerHarness, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    job = {"task": "video", "image": source(*size), "frames": 2, "steps": 1}
    clip = by_kind(harness.run(job))["video"]
    assert (clip["width"], clip["height"]) == expected


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"frames": 60}, "frames", "at most 50"),
        ({"width": 1024, "height": 1024, "frames": 25}, "frames", "14,745,600"),
        ({"width": 264}, "width", "multiple of 64"),
        ({"params": {"image_steps": 3}}, "params.image_steps", "not a parameter"),
        ({"prompt": "a wave"}, "prompt", "no such input"),
    ],
)
def test_what_the_workflow_does_not_allow_is_refused(
    harness: WorkerHarness, change: dict[str, Any], field: str, words: str
) -> None:
    before = harness.prompts_run()
    result = harness.run(SMALL | {"image": source()} | change)
    assert (result["code"], result["field"]) == ("invalid_input", field)
    assert words in result["error"]
    assert harness.prompts_run() == before


def test_an_oom_is_tried_again_with_tiled_decode(harness: WorkerHarness) -> None:
    harness.faults(oom_at_node="VAEDecode", times=1)
    result = harness.run(SMALL | {"image": source(), "prompt": None} | {"seed": 77})
    assert by_kind(result)["video"]["frames"] == 6


def test_a_second_oom_names_what_to_lower(harness: WorkerHarness) -> None:
    harness.faults(oom_at_node="KSampler", times=2)
    result = harness.run(SMALL | {"image": source(), "seed": 78})
    assert result["code"] == "out_of_memory"
    assert "lower frames, width, height" in result["error"]
    harness.no_faults()
    assert by_kind(harness.run(SMALL | {"image": source(), "seed": 79}))


@pytest.mark.parametrize("fault", ["empty_output", "truncate_output"])
def test_a_file_that_does_not_open_is_no_success(harness: WorkerHarness, fault: str) -> None:
    harness.faults(**{fault: True, "times": 2})
    result = harness.run(SMALL | {"image": source()}, job_id=f"broken-{fault}")
    assert result["code"] == "execution_failed"
    assert [key for key in harness.keys("base/outputs/") if f"/broken-{fault}/" in key] == []


def test_progress_samples_then_decodes_then_encodes(harness: WorkerHarness) -> None:
    harness.faults(step_latency_s=0.2, decode_latency_s=0.7)
    harness.run(SMALL | {"image": source(), "steps": 6, "seed": 80})
    stages = [update["stage"] for update in harness.updates]
    assert stages.index("sampling") < stages.index("decoding")
    percents = [update["percent"] for update in harness.updates]
    assert percents == sorted(percents)
