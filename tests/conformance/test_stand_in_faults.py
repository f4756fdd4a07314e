"""The faults that only the stand-in has, each seen by a client."""

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import websocket
from PIL import Image

from tests.conformance.conversation import Conversation, connected, converse
from tests.conformance.graphs import picture, two_colours
from tests.conformance.servers import Server, running


@pytest.fixture(name="faulty")
def _faulty(stand_in: Server) -> Iterator[Server]:
    """A stand-in without faults, before and after."""
    requests.delete(f"http://{stand_in.address}/stand-in/faults", timeout=30)
    yield stand_in
    requests.delete(f"http://{stand_in.address}/stand-in/faults", timeout=30)


def _fresh() -> str:
    return f"fault/{uuid.uuid4().hex}"


def _first_file(server: Server, talk: Conversation) -> Path:
    file: dict[str, str] = talk.outputs["9"]["images"][0]
    return server.output / file["subfolder"] / file["filename"]


def _seed() -> int:
    return uuid.uuid4().int % 2**32


def test_out_of_memory_once(faulty: Server) -> None:
    faulty.faults(oom_at_node="KSampler")
    graph = picture(_fresh(), seed=_seed())
    (error,) = converse(faulty, graph).of("execution_error")
    assert error["exception_type"] == "torch.OutOfMemoryError"
    assert error["node_type"] == "KSampler"
    assert "out of memory" in error["exception_message"]
    assert converse(faulty, graph).history["status"]["completed"]


@pytest.mark.parametrize("fault", ["truncate_output", "empty_output", "missing_output"])
def test_damaged_files(faulty: Server, fault: str) -> None:
    faulty.faults(**{fault: True})
    path = _first_file(faulty, converse(faulty, picture(_fresh(), seed=_seed())))
    with pytest.raises((OSError, SyntaxError)), Image.open(path) as image:
        image.load()


def test_disk_full(faulty: Server) -> None:
    faulty.faults(disk_full=True)
    (error,) = converse(faulty, picture(_fresh(), seed=_seed())).of("execution_error")
    assert (error["node_type"], error["exception_type"]) == ("SaveImage", "OSError")
    assert "No space left" in error["exception_message"]


def test_lost_history(faulty: Server) -> None:
    faulty.faults(lose_history=True)
    talk = converse(faulty, picture(_fresh(), seed=_seed()))
    assert talk.history is None
    assert talk.of("execution_success")


def test_history_comes_late(faulty: Server) -> None:
    faulty.faults(history_delay_s=0.2)
    talk = converse(faulty, two_colours(_fresh()))
    said = talk.of("execution_success")[0]["timestamp"] / 1000
    assert time.time() - said >= 0.2


def test_latency_per_step(faulty: Server) -> None:
    faulty.faults(step_latency_s=0.12)
    talk = converse(faulty, picture(_fresh(), seed=_seed(), steps=4))
    assert [data["value"] for data in talk.of("progress")] == [1, 2, 3, 4]
    stamps = [kept[1]["timestamp"] for kept in talk.history["status"]["messages"]]
    assert stamps[-1] - stamps[0] >= 480


def test_a_dropped_socket_and_the_truth_in_history(faulty: Server) -> None:
    faulty.faults(drop_socket_at="executing:KSampler")
    with connected(faulty) as socket:
        body = {"prompt": picture(_fresh(), seed=_seed()), "client_id": socket.client_id}
        prompt_id = faulty.post("/prompt", body).json()["prompt_id"]
        with pytest.raises((websocket.WebSocketException, OSError)):
            socket.wait_for("execution_success")
    deadline = time.monotonic() + 10
    history: dict[str, Any] = {}
    while not history and time.monotonic() < deadline:
        history = faulty.get(f"/history/{prompt_id}").json()
    assert history[prompt_id]["status"]["completed"]


def test_http_errors_of_one_route(faulty: Server) -> None:
    faulty.faults(http_error_at="GET /queue", times=2)
    assert [faulty.get("/queue").status_code for _ in range(3)] == [500, 500, 200]


def test_the_wrong_name_is_refused(faulty: Server) -> None:
    answer = faulty.post("/stand-in/faults", {"explode_at": "start"})
    assert answer.status_code == 400
    assert "crash_at" in answer.json()["error"]


def test_a_crash_happens_once_over_restarts(tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps({"crash_at": "step:1"}))
    graph = picture(_fresh(), seed=1)
    with (
        running("stand-in", tmp_path, ["--stand-in-faults", str(faults)]) as server,
        pytest.raises((websocket.WebSocketException, OSError)),
    ):
        converse(server, graph)
    with running("stand-in", tmp_path, ["--stand-in-faults", str(faults)]) as server:
        assert converse(server, graph).history["status"]["completed"]


def test_a_hang_answers_http_and_ignores_interrupts(tmp_path: Path) -> None:
    with running("stand-in", tmp_path) as server, connected(server) as socket:
        server.faults(hang_at="step:1")
        body = {"prompt": picture(_fresh(), seed=1), "client_id": socket.client_id}
        prompt_id = server.post("/prompt", body).json()["prompt_id"]
        socket.wait_for("progress")
        server.post("/interrupt", {"prompt_id": prompt_id})
        other = server.post("/prompt", {"prompt": two_colours(_fresh())}).json()["prompt_id"]
        time.sleep(0.3)  # long enough for either prompt to end, if it could
        queue = server.get("/queue").json()
        assert [entry[1] for entry in queue["queue_running"]] == [prompt_id]
        assert [entry[1] for entry in queue["queue_pending"]] == [other]


def test_a_start_that_fails(tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps({"start_fail": True}))
    options = ["--stand-in-faults", str(faults)]
    with (
        pytest.raises(RuntimeError, match="told to fail"),
        running("stand-in", tmp_path, options),
    ):
        pass


def test_a_benchmark_picture_costs_next_to_nothing(tmp_path: Path) -> None:
    with running("stand-in", tmp_path, ["--stand-in-picture-bytes", "1500000"]) as server:
        graphs = [picture(_fresh(), seed=seed) for seed in range(3)]
        for graph in graphs:
            graph["5"]["inputs"].update(width=1024, height=1024)
        talks = [converse(server, graph) for graph in graphs]
        assert 1_400_000 < _first_file(server, talks[-1]).stat().st_size < 1_700_000
        stamps = [kept[1]["timestamp"] for kept in talks[-1].history["status"]["messages"]]
        assert stamps[-1] - stamps[0] < 100


def test_it_says_what_it_is(stand_in: Server) -> None:
    assert "STAND-IN" in stand_in.log.read_text()
    assert "stand-in" in stand_in.get("/").text
