import json
from typing import Any

import pytest

from worker.comfyui.console import parse_line
from worker.comfyui.events import (
    Cached,
    Event,
    Executed,
    Executing,
    Failed,
    Interrupted,
    OutputFile,
    Started,
    Stepped,
    Succeeded,
    parse_history,
    parse_message,
    parse_outputs,
)
from worker.comfyui.failures import failure, plain
from worker.errors import DiskFull, ExecutionFailed, OutOfMemory, WorkerError

ID = "b9a736da-30f3-4a36-a00b-71fe38f72aa0"


def message(kind: str, **data: Any) -> str:
    return json.dumps({"type": kind, "data": {"prompt_id": ID, **data}})


@pytest.mark.parametrize(
    ("text", "event"),
    [
        (message("execution_start", timestamp=17), Started(17)),
        (message("execution_cached", nodes=["1", "2"]), Cached(frozenset({"1", "2"}))),
        (message("executing", node="3", display_node="3"), Executing("3")),
        (message("executing", node="3.0.1", display_node="3"), Executing("3")),
        (message("executing", node=None), None),
        (message("progress", node="3", value=2, max=20), Stepped("3", 2, 20)),
        (message("executed", node="9", output={}), Executed("9", "9", {})),
        (message("execution_success", timestamp=18), Succeeded(18)),
        (message("execution_interrupted", node_id="3", node_type="K"), Interrupted("3", "K")),
        (message("progress_state", nodes={}), None),
        (json.dumps({"type": "status", "data": {"status": {}}}), None),
        (json.dumps({"type": "execution_start", "data": {"prompt_id": "another"}}), None),
        ("[]", None),
        ("not json", None),
        ('{"type": 1, "data": []}', None),
    ],
)
def test_messages(text: str, event: Event | None) -> None:
    assert parse_message(text, ID) == event


def history(status: dict[str, Any], **rest: Any) -> list[Event]:
    return list(parse_history({"outputs": {}, "status": status, **rest}))


def test_history_tells_the_outputs_before_the_end() -> None:
    status = {
        "completed": True,
        "messages": [
            ["execution_start", {"timestamp": 1}],
            ["execution_cached", {"nodes": ["1"]}],
            ["execution_success", {"timestamp": 5}],
        ],
    }
    meta = {"2.0.0": {"display_node": "2"}}
    assert history(status, outputs={"2.0.0": {"images": []}}, meta=meta) == [
        Started(1),
        Cached(frozenset({"1"})),
        Executed("2.0.0", "2", {"images": []}),
        Succeeded(5),
    ]


def test_history_without_a_last_word() -> None:
    assert history({"completed": True}) == [Succeeded()]
    assert isinstance(history({"completed": False})[-1], Failed)
    assert isinstance(history({})[-1], Failed)


def test_a_blocked_branch_is_a_failure_though_the_prompt_goes_on() -> None:
    blocked = {"exception_type": "ExecutionBlocked", "exception_message": "Execution Blocked: no"}
    status = {"messages": [["execution_error", blocked], ["execution_success", {}]]}
    (event,) = history(status)
    assert isinstance(event, Failed)
    assert not event.ends_prompt


@pytest.mark.parametrize(
    ("exception", "text", "kind"),
    [
        ("torch.OutOfMemoryError", "Allocation on device 0", OutOfMemory),
        ("torch.cuda.OutOfMemoryError", "", OutOfMemory),
        ("RuntimeError", "CUDA error: out of memory", OutOfMemory),
        ("OSError", "[Errno 28] No space left on device: '/x/y.png'", DiskFull),
        ("OSError", "Truncated File Read\n", ExecutionFailed),
    ],
)
def test_failures(exception: str, text: str, kind: type[WorkerError]) -> None:
    error = failure(Failed("4", "LoadImage", exception, text))
    assert type(error) is kind
    assert error.details["node"] == "4"
    assert error.details["node_type"] == "LoadImage"
    assert "Node 4 (LoadImage)" in str(error)
    assert "/x" not in str(error) + json.dumps(error.details)


def test_outputs_of_all_kinds() -> None:
    output = {
        "images": [{"filename": "a.webm", "subfolder": "s", "type": "output"}],
        "animated": [True],
        "gifs": [{"filename": "b.mp4", "subfolder": "", "type": "temp", "format": "video/h264"}],
        "audio": [{"filename": "c.flac"}],
        "text": ["a caption"],
        "3d": [{"filename": "m.glb"}],
    }
    assert parse_outputs("9", output) == (
        OutputFile("9", "images", "a.webm", "s", "output", animated=True),
        OutputFile("9", "gifs", "b.mp4", "", "temp"),
        OutputFile("9", "audio", "c.flac"),
        OutputFile("9", "3d", "m.glb"),
    )


@pytest.mark.parametrize(
    "output",
    [None, [], {"images": None}, {"images": [1, {}, {"filename": ""}, {"filename": 3}]}],
)
def test_outputs_that_are_none(output: object) -> None:
    assert parse_outputs("9", output) == ()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot open '/comfyui/models/x.pt'", "cannot open 'x.pt'"),
        ('File "/a/b.py", line 3', 'File "b.py", line 3'),
        ("Error:/tmp/x and ~/y/z", "Error:x and z"),
        ("http://host:80/a/b stays, so do 1/2 and a / b", None),
        ("two\n  lines\t", "two lines"),
    ],
)
def test_plain_words(text: str, shown: str | None) -> None:
    assert plain(text) == (text if shown is None else shown)


def test_plain_words_are_bounded() -> None:
    assert len(plain("x" * 10_000_000)) == 300


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("\x1b[32m[INFO]\x1b[0m got prompt", (20, "got prompt")),
        ("\x1b[1m\x1b[33m[WARNING]\x1b[0m slow", (30, "slow")),
        ("[ERROR] no", (40, "no")),
        ("Traceback (most recent call last):", (40, "Traceback (most recent call last):")),
        ("RuntimeError: x", (40, "RuntimeError: x")),
        ("UserWarning: old", (30, "UserWarning: old")),
        (" 50%|#####     | 1/2", (10, "50%|#####     | 1/2")),
        ("Total VRAM 24106 MB", (20, "Total VRAM 24106 MB")),
    ],
)
def test_console_lines(line: str, expected: tuple[int, str]) -> None:
    assert parse_line(line) == expected
