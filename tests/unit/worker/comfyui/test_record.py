from typing import Any

from worker.comfyui.events import (
    Cached,
    Executed,
    Executing,
    Failed,
    Listeners,
    OutputFile,
    PromptRecord,
    Started,
    Step,
    Stepped,
    Succeeded,
)

GRAPH: dict[str, dict[str, Any]] = {
    "1": {"class_type": "KSampler", "inputs": {"seed": 1}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


def picture(name: str) -> dict[str, list[dict[str, str]]]:
    return {"images": [{"filename": name}]}


class Told:
    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.files: list[tuple[str, tuple[OutputFile, ...]]] = []
        self.starts = 0
        self.record = PromptRecord(
            GRAPH,
            Listeners(self.steps.append, lambda *files: self.files.append(files), self._start),
        )

    def _start(self) -> None:
        self.starts += 1


def test_told_twice_by_socket_and_history_nothing_happens_twice() -> None:
    told = Told()
    for _ in range(2):
        told.record.apply(Started(1000))
        told.record.apply(Executed("2", "2", picture("a.png")))
    assert told.starts == 1
    assert told.files == [("2", (OutputFile("2", "images", "a.png"),))]


def test_steps_carry_the_nodes_type() -> None:
    told = Told()
    told.record.apply(Executing("1"))
    told.record.apply(Stepped("1", 3, 20))
    told.record.apply(Executing("made while running"))
    assert told.steps == [
        Step("1", "KSampler", 0, 0),
        Step("1", "KSampler", 3, 20),
        Step("made while running", "", 0, 0),
    ]


def test_complete_when_every_last_node_has_reported() -> None:
    told = Told()
    complete = []
    for node, output in (("2", picture("a.png")), ("3", {"text": ["no file"]})):
        told.record.apply(Executed(node, node, output))
        complete.append(told.record.complete)
    assert complete == [False, True]
    assert [node for node, _ in told.files] == ["2"]


def test_files_of_what_a_node_expanded_to_are_its_own() -> None:
    told = Told()
    told.record.apply(Executed("2.0.1", "2", picture("a.png")))
    told.record.apply(Executed("2.0.2", "2", picture("b.png")))
    assert [file.filename for file in told.record.files["2"]] == ["a.png", "b.png"]


def test_cached_only_when_everything_that_reported_was() -> None:
    told = Told()
    told.record.apply(Cached(frozenset({"1", "2"})))
    told.record.apply(Executed("2", "2", picture("a.png")))
    told.record.apply(Succeeded())
    assert told.record.execution("id").cached
    told.record.apply(Executed("3", "3", picture("b.png")))
    assert not told.record.execution("id").cached


def test_times_by_the_servers_clock_within_our_own() -> None:
    told = Told()
    record = told.record
    record.submitted_at = 10.0
    record.apply(Started(5000))
    record.apply(Succeeded(5250))
    record.ended_at = 10.4
    execution = record.execution("id")
    assert execution.executed_ms == 250
    assert round(execution.queued_ms) == 150
    record.ended_at = 10.1  # a server whose clock jumped
    assert record.execution("id").queued_ms >= 0


def test_a_success_does_not_hide_a_failure() -> None:
    told = Told()
    told.record.apply(Failed("1", "KSampler", "ExecutionBlocked", "no"))
    told.record.apply(Succeeded())
    assert isinstance(told.record.ending, Failed)
