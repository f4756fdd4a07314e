"""Output files and the cache: when they are whole, when they are written again, what is in them."""

import json
import uuid
from pathlib import Path

import av
from PIL import Image

from tests.conformance.conversation import Message, converse
from tests.conformance.graphs import node, two_colours, videos
from tests.conformance.servers import Server


def _unique(name: str) -> str:
    return f"{name}/{uuid.uuid4().hex[:8]}"


def _paths(server: Server, files: list[dict[str, str]]) -> list[Path]:
    return [server.output / file["subfolder"] / file["filename"] for file in files]


def test_a_file_is_whole_when_its_node_reports_it(server: Server) -> None:
    sizes = []

    def act(message: Message) -> None:
        if message["type"] == "executed":
            for path in _paths(server, message["data"]["output"]["images"]):
                with Image.open(path) as image:
                    image.load()
                    sizes.append(image.size)

    converse(server, two_colours(_unique("whole"), colour=uuid.uuid4().int % 2**24), act=act)
    assert sizes == [(64, 64)] * 2


def test_a_prompt_seen_before_writes_no_file_again(server: Server) -> None:
    graph = two_colours(_unique("gone"))
    first = converse(server, graph)
    files = first.outputs["2"]["images"]
    for path in _paths(server, files):
        path.unlink()
    again = converse(server, graph)
    assert again.outputs["2"]["images"] == files
    assert not any(path.exists() for path in _paths(server, files))


def test_another_prefix_makes_only_the_save_node_run(server: Server) -> None:
    colour = uuid.uuid4().int % 2**24
    converse(server, two_colours(_unique("first"), colour))
    again = converse(server, two_colours(_unique("second"), colour))
    assert again.of("execution_cached")[0]["nodes"] == ["1"]
    assert [data["node"] for data in again.of("executing")] == ["2", None]
    assert all(path.exists() for path in _paths(server, again.outputs["2"]["images"]))


def test_numbers_count_on(server: Server) -> None:
    prefix = _unique("count")
    names = []
    for colour in (1, 2):
        outputs = converse(server, two_colours(prefix, colour)).outputs
        names += [file["filename"].split("_", 1)[1] for file in outputs["2"]["images"]]
    assert names == ["00001_.png", "00002_.png", "00003_.png", "00004_.png"]


def test_a_changed_input_picture_is_read_again(server: Server) -> None:
    name = f"{uuid.uuid4().hex}.png"
    graph = {
        "1": node("LoadImage", image=name),
        "2": node("SaveImage", images=["1", 0], filename_prefix=_unique("loaded")),
    }
    colours = []
    for colour in ((255, 0, 0), (0, 0, 255)):
        Image.new("RGB", (64, 64), colour).save(server.input / name)
        (path,) = _paths(server, converse(server, graph).outputs["2"]["images"])
        with Image.open(path) as image:
            colours.append(image.convert("RGB").getpixel((5, 5)))
    assert colours == [(255, 0, 0), (0, 0, 255)]
    cached = converse(server, graph).of("execution_cached")[0]["nodes"]
    assert cached == ["1", "2"]


def test_pictures_carry_graph_and_workflow(server: Server) -> None:
    graph = two_colours(_unique("text"))
    extra = {"extra_pnginfo": {"workflow": {"nodes": [1, 2]}}}
    talk = converse(server, graph, extra_data=extra)
    (path, _) = _paths(server, talk.outputs["2"]["images"])
    with Image.open(path) as image:
        assert json.loads(image.info["prompt"]) == graph
        assert json.loads(image.info["workflow"]) == {"nodes": [1, 2]}


def test_videos_are_reported_as_animated_images(server: Server) -> None:
    prefix = _unique("videos")
    talk = converse(server, videos(prefix))
    for node_id, suffix in (("3", "mp4"), ("4", "webm"), ("5", "webp")):
        name = f"{suffix}_00001_.{suffix}"
        file = {"filename": name, "subfolder": prefix, "type": "output"}
        assert talk.outputs[node_id] == {"images": [file], "animated": [True]}
        said = [data for data in talk.of("executed") if data["node"] == node_id]
        assert said[0]["output"] == talk.outputs[node_id]


def test_videos_can_be_played(server: Server) -> None:
    prefix = _unique("played")
    converse(server, videos(prefix))
    for suffix, codec in (("mp4", "h264"), ("webm", "vp9")):
        with av.open(str(server.output / prefix / f"{suffix}_00001_.{suffix}")) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == codec
            assert (stream.width, stream.height, float(stream.average_rate or 0)) == (64, 64, 6.0)
            assert len(list(container.decode(stream))) == 3
    with Image.open(server.output / prefix / "webp_00001_.webp") as image:
        assert (image.format, image.size) == ("WEBP", (64, 64))
