"""What was recorded from ComfyUI 0.33.0 must be said again, word for word."""

import uuid
from typing import Any

import pytest

from tests.conformance.conversation import converse, plain, recorded, transcript
from tests.conformance.servers import Server

_REJECTED = [
    "rejected_dangling_link",
    "rejected_missing_checkpoint",
    "rejected_missing_input",
    "rejected_missing_lora",
    "rejected_no_outputs",
    "rejected_unknown_node",
    "rejected_value_out_of_range",
]
_MORE_REJECTED = {entry["name"]: entry for entry in transcript("more_rejections")}
_RUN = ("EmptyImage", "SaveImage")
_TRUNCATED_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"


def _color() -> int:
    return uuid.uuid4().int % 2**24


def _same_conversation(server: Server, name: str, color: int = 0, **body: Any) -> None:
    """Say a recorded graph again, in a colour of its own: else it may come from the cache."""
    graph, before = recorded(name)
    for node in graph.values():
        if "color" in node["inputs"]:
            node["inputs"]["color"] = color
    now = converse(server, graph, **body)
    for data in (*now.of("execution_cached"), now.history["status"]["messages"][1][1]):
        # A checkpoint that another test loaded; no output of these graphs needs it.
        data["nodes"] = [name for name in data["nodes"] if graph[name]["class_type"] in _RUN]
    assert plain(now.response, server) == plain(before.response)
    assert plain(now.messages, server) == plain(before.messages)
    assert plain(now.history, server) == plain(before.history)


def test_two_images_then_the_same_from_cache(server: Server) -> None:
    color = _color()
    _same_conversation(server, "success_two_images", color)
    _same_conversation(server, "success_all_cached", color)


def test_prompt_id_of_the_client(server: Server) -> None:
    prompt_id = str(uuid.uuid4())
    _same_conversation(server, "success_client_prompt_id", _color(), prompt_id=prompt_id)
    assert prompt_id in server.get(f"/history/{prompt_id}").json()


def test_error_while_running(server: Server) -> None:
    (server.input / "corrupt.png").write_bytes(_TRUNCATED_PNG)
    _same_conversation(server, "error_at_runtime")


@pytest.mark.parametrize("name", _REJECTED)
def test_rejection(server: Server, name: str) -> None:
    graph, before = recorded(name)
    now = converse(server, graph)
    assert now.status == before.status == 400
    assert plain(now.response, server) == plain(before.response)


@pytest.mark.parametrize("name", sorted(_MORE_REJECTED))
def test_more_rejections(server: Server, name: str) -> None:
    entry = _MORE_REJECTED[name]
    answer = server.post("/prompt", entry["request"])
    assert answer.status_code == entry["status"]
    if entry["status"] == 400:
        assert plain(answer.json(), server) == plain(entry["response"])


def test_misc_endpoints(server: Server) -> None:
    for entry in transcript("misc_endpoints"):
        method, path = entry["http"].split()
        if path.startswith("/system_stats"):
            continue  # a machine's own numbers: see test_endpoints
        answer = server.get(path) if method == "GET" else server.post(path, {})
        assert answer.status_code == entry["status"], path
        if entry["response"]:
            assert plain(answer.json(), server) == plain(entry["response"]), path
