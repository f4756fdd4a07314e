"""Answers that ComfyUI gives when it is unwell, from a server of a few lines."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator

import pytest

from worker.comfyui.events import OutputFile
from worker.comfyui.http import ComfyUIHTTP, EngineUnreachable, PromptRefused
from worker.errors import EngineUnavailable, ExecutionFailed

ID = "b9a736da-30f3-4a36-a00b-71fe38f72aa0"
EMPTY_QUEUE = b'{"queue_running": [], "queue_pending": []}'

# Status and body of an answer; None closes the connection without one.
Answer = tuple[int, bytes] | None


class Server(http.server.ThreadingHTTPServer):
    """Answers what `answer` says for "METHOD /path", and notes what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.answer: Callable[[str], Answer] = lambda _: (200, b"{}")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def handle_any(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        what = f"{self.command} {self.path.split('?')[0]}"
        self.server.asked.append(what)
        answer = self.server.answer(what)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(answer[1])))
        self.end_headers()
        self.wfile.write(answer[1])

    do_GET = do_POST = handle_any  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as opened:
        thread = threading.Thread(target=opened.serve_forever, args=(0.01,))
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


@pytest.fixture
def comfyui(server: Server) -> Iterator[ComfyUIHTTP]:
    opened = ComfyUIHTTP(f"http://127.0.0.1:{server.server_port}")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "answer", [(500, b"{}"), (200, b"<html>"), (200, b"[]"), (302, b""), (404, b"x"), None]
)
def test_an_answer_that_is_none_is_unavailable(
    server: Server, comfyui: ComfyUIHTTP, answer: Answer
) -> None:
    server.answer = lambda _: answer
    with pytest.raises(EngineUnavailable) as caught:
        comfyui.system_stats()
    assert "html" not in str(caught.value)
    with pytest.raises(EngineUnavailable):
        comfyui.submit({}, ID, "me")


def test_a_broken_connection_is_tried_again_once(server: Server, comfyui: ComfyUIHTTP) -> None:
    answers: list[Answer] = [None, (200, b'{"system": {}}'), None, None]
    server.answer = lambda _: answers.pop(0)
    assert comfyui.system_stats() == {"system": {}}
    with pytest.raises(EngineUnreachable):
        comfyui.system_stats()
    assert answers == []


@pytest.mark.parametrize("known", ["running", "over", "no"])
def test_a_prompt_whose_answer_got_lost_is_queued_once(
    server: Server, comfyui: ComfyUIHTTP, known: str
) -> None:
    def answer(what: str) -> Answer:
        match what.split("/")[1]:
            case "prompt":
                first = server.asked.count("POST /prompt") == 1
                return None if first else (200, b'{"node_errors": {}}')
            case "queue" if known == "running":
                return 200, json.dumps({"queue_running": [[0, ID, {}, {}, []]]}).encode()
            case "history" if known == "over":
                return 200, json.dumps({ID: {"outputs": {}, "status": {}}}).encode()
            case _:
                return 200, b"{}"

    server.answer = answer
    assert comfyui.submit({}, ID, "me") == {}
    assert server.asked.count("POST /prompt") == (2 if known == "no" else 1)


def test_a_refusal_carries_its_body(server: Server, comfyui: ComfyUIHTTP) -> None:
    server.answer = lambda _: (400, b'{"error": {"type": "prompt_no_outputs"}}')
    with pytest.raises(PromptRefused) as caught:
        comfyui.submit({}, ID, "me")
    assert caught.value.body == {"error": {"type": "prompt_no_outputs"}}


@pytest.mark.parametrize(
    ("status", "kind"), [(404, ExecutionFailed), (403, ExecutionFailed), (500, EngineUnavailable)]
)
def test_a_file_that_cannot_be_viewed(
    server: Server, comfyui: ComfyUIHTTP, status: int, kind: type[Exception]
) -> None:
    server.answer = lambda _: (status, b"")
    with pytest.raises(kind), comfyui.view(OutputFile("9", "images", "x.png")):
        pass
