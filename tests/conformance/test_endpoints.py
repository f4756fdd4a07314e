"""Everything else a client may ask: nodes, models, files, history, sockets."""

import io
import json
import uuid
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.conformance.conversation import connected, converse
from tests.conformance.graphs import picture, two_colours
from tests.conformance.servers import ROOT, Server

_RECORDED = json.loads((ROOT / "local" / "comfyui" / "object_info.json").read_text())
# Inputs whose choices are the files that a server finds.
_FILE_CHOICES = ("ckpt_name", "lora_name", "image", "folder", "existing_lora", "vae_name")


def _png() -> bytes:
    body = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(body, "PNG")
    return body.getvalue()


@pytest.mark.parametrize("class_type", sorted(_RECORDED["nodes"]))
def test_node_spec_is_as_recorded(server: Server, class_type: str) -> None:
    served = server.get(f"/object_info/{class_type}").json()[class_type]
    known = json.loads(json.dumps(_RECORDED["nodes"][class_type]))
    for spec in (served, known):
        for name in _FILE_CHOICES:
            spec["input"].get("required", {}).pop(name, None)
    assert served == known


def test_all_nodes_at_once_are_the_single_ones(server: Server) -> None:
    every = server.get("/object_info").json()
    assert set(_RECORDED["nodes"]) <= set(every)
    assert every["KSampler"] == server.get("/object_info/KSampler").json()["KSampler"]


def test_system_stats_has_what_a_client_reads(server: Server) -> None:
    stats = server.get("/system_stats").json()
    assert stats["system"]["comfyui_version"] == "0.33.0"
    (device,) = stats["devices"]
    assert device["vram_free"] <= device["vram_total"]
    assert (stats["system"]["deploy_environment"] == "stand-in") is not server.real


def test_a_new_lora_is_listed_at_once(server: Server) -> None:
    name = f"{uuid.uuid4().hex}.safetensors"
    (server.loras / name).write_bytes(b"")
    assert name in server.get("/models/loras").json()
    loader = server.get("/object_info/LoraLoader").json()["LoraLoader"]
    assert name in loader["input"]["required"]["lora_name"][0]
    (server.loras / name).unlink()


def test_unknown_model_folder(server: Server) -> None:
    assert server.get("/models/nothing").status_code == 404


def test_below_api_is_the_same(server: Server) -> None:
    assert server.get("/api/queue").json() == server.get("/queue").json()
    assert server.get("/api/object_info/NoSuchNode").json() == {}


def test_view_gives_the_file(server: Server) -> None:
    talk = converse(server, two_colours(f"viewed/{uuid.uuid4().hex}"))
    file = talk.outputs["2"]["images"][0]
    answer = server.get("/view", **file)
    assert answer.content == (server.output / file["subfolder"] / file["filename"]).read_bytes()
    assert answer.headers["Content-Type"] == "image/png"
    assert file["filename"] in answer.headers["Content-Disposition"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 404),
        ({"filename": "none.png"}, 404),
        ({"filename": "../x.png"}, 400),
        ({"filename": "/etc/passwd"}, 400),
        ({"filename": ""}, 400),
        ({"filename": "x.png", "type": "models"}, 400),
        ({"filename": "x.png", "subfolder": "../.."}, 403),
        ({"filename": "x.png", "subfolder": "/etc"}, 403),
    ],
)
def test_view_refuses_what_lies_outside(server: Server, query: dict[str, str], status: int) -> None:
    assert server.get("/view", **query).status_code == status


def test_upload_keeps_other_files_of_that_name(server: Server) -> None:
    name = f"{uuid.uuid4().hex}.png"

    def upload(body: bytes, **form: str) -> requests.Response:
        url = f"http://{server.address}/upload/image"
        return requests.post(url, files={"image": (name, body)}, data=form, timeout=30)

    stem = Path(name).stem
    assert upload(_png()).json() == {"name": name, "subfolder": "", "type": "input"}
    assert upload(_png()).json()["name"] == name
    assert upload(b"other").json()["name"] == f"{stem} (1).png"
    assert upload(b"third", overwrite="true").json()["name"] == name
    assert (server.input / name).read_bytes() == b"third"
    assert upload(b"x", subfolder="deep/er").json()["subfolder"] == "deep/er"
    assert (server.input / "deep" / "er" / name).read_bytes() == b"x"
    assert upload(b"x", subfolder="../..").status_code == 400


def test_history_is_deleted_by_id_and_as_a_whole(server: Server) -> None:
    first = converse(server, two_colours("history/a")).response["prompt_id"]
    second = converse(server, two_colours("history/b")).response["prompt_id"]
    assert list(server.get("/history", max_items="1").json()) == [second]
    assert server.post("/history", {"delete": [first]}).status_code == 200
    assert server.get(f"/history/{first}").json() == {}
    server.post("/history", {"clear": True})
    assert server.get("/history").json() == {}


def test_bodies_that_are_no_json(server: Server) -> None:
    url = f"http://{server.address}"
    assert requests.post(f"{url}/prompt", data=b"", timeout=30).status_code == 500
    assert requests.post(f"{url}/interrupt", data=b"", timeout=30).status_code == 200


def test_socket_without_an_id_is_given_one(server: Server) -> None:
    with connected(server, "") as socket:
        (greeting,) = socket.messages
    assert greeting["type"] == "status"
    assert len(greeting["data"]["sid"]) == 32


def test_features_are_exchanged_over_the_socket(server: Server) -> None:
    with connected(server) as socket:
        socket.send({"type": "feature_flags", "data": {}})
        said = socket.receive()
    assert said == {"type": "feature_flags", "data": server.get("/features").json()}


def test_prompts_without_a_client_are_not_told_to_others(server: Server) -> None:
    """Only `progress_state` and `status` go to everybody then."""
    with connected(server) as socket:
        server.post("/prompt", {"prompt": two_colours(f"nobody/{uuid.uuid4().hex}")})
        left = None
        while left != 0:
            left = socket.wait_for("status")["data"]["status"]["exec_info"]["queue_remaining"]
        assert {message["type"] for message in socket.messages} == {"status", "progress_state"}


def test_a_client_that_comes_back_is_told_what_runs(slow: Server) -> None:
    with connected(slow) as first:
        graph = picture("back", seed=uuid.uuid4().int % 2**32, steps=60)
        slow.post("/prompt", {"prompt": graph, "client_id": first.client_id})
        while first.wait_for("executing")["data"]["node"] != "3":
            pass
    with connected(slow, first.client_id) as again:
        assert again.receive() == {"type": "executing", "data": {"node": "3"}}
        slow.post("/interrupt", {})
        again.wait_for("execution_interrupted")
