import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from worker.comfyui.client import ComfyUIClient, OutputFile
from worker.comfyui.engine import ExternalComfyUI
from worker.comfyui.process import ComfyUIProcess
from worker.errors import (
    Cancelled,
    EngineUnavailable,
    ExecutionFailed,
    InvalidInput,
    ModelMissing,
    TimedOut,
    WorkflowRejected,
)

Graph = dict[str, dict[str, Any]]


def test_files_are_told_once_as_their_node_ends(job: Any, plain: Callable[[], Graph]) -> None:
    execution = job.run(plain())
    assert job.files == [("2", execution.files["2"])]
    assert [file.kind for file in execution.files["2"]] == ["images", "images"]
    assert job.starts == 1
    assert not execution.cached
    assert execution.queued_ms >= 0
    assert execution.executed_ms >= 0


def test_every_sampling_step_is_told(job: Any, sampled: Callable[..., Graph], faults: Any) -> None:
    faults(step_latency_s=0.12)  # ComfyUI tells ten steps a second at most
    job.run(sampled(steps=5))
    steps = [(step.step, step.steps) for step in job.steps if step.steps]
    assert steps == [(n, 5) for n in range(1, 6)]
    assert {step.node_type for step in job.steps if step.steps} == {"KSampler"}
    assert ("8", "VAEDecode") in {(step.node, step.node_type) for step in job.steps}


def test_a_cached_run_delivers_and_says_so(job: Any, plain: Callable[[], Graph]) -> None:
    graph = plain()
    first = job.run(graph)
    again = job.run(graph)
    assert again.cached
    assert again.files == first.files
    assert len(job.files) == 2


def test_late_history_costs_nothing(job: Any, plain: Callable[[], Graph], faults: Any) -> None:
    faults(history_delay_s=1.0)
    begun = time.monotonic()
    job.run(plain())
    assert time.monotonic() - begun < 0.8


def test_two_jobs_in_flight_keep_their_events_apart(
    client: ComfyUIClient, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    faults(step_latency_s=0.05)
    other = type(job)(client)
    thread = threading.Thread(target=other.run, args=(sampled(steps=3),))
    thread.start()
    execution = job.run(sampled(steps=6))
    thread.join(20)
    assert {step.steps for step in job.steps} == {0, 6}
    assert {step.steps for step in other.steps} == {0, 3}
    assert job.files == [("9", execution.files["9"])]
    assert len(other.files) == 1


def test_the_deadline_counts_from_the_prompts_own_start(
    client: ComfyUIClient, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    faults(step_latency_s=0.3)
    other = type(job)(client)
    thread = threading.Thread(target=other.run, args=(sampled(steps=4),))
    other.on_step = lambda _: None
    thread.start()
    while not other.starts:
        time.sleep(0.01)
    execution = job.run(sampled(steps=1), timeout_s=1.0)
    thread.join(20)
    assert execution.queued_ms > 500


def test_a_prompt_waits_only_so_long_for_its_turn(
    engine: ComfyUIProcess, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    faults(step_latency_s=0.2)
    thread = threading.Thread(target=job.run, args=(sampled(steps=6),))
    thread.start()
    while not job.starts:
        time.sleep(0.01)
    with (
        ComfyUIClient(engine, queue_timeout_s=0.3) as hasty,
        pytest.raises(TimedOut, match="queue"),
    ):
        type(job)(hasty).run(sampled())
    thread.join(20)
    assert job.files


def test_a_cancelled_prompt_is_stopped(
    engine: ComfyUIProcess,
    client: ComfyUIClient,
    job: Any,
    sampled: Callable[..., Graph],
    faults: Any,
) -> None:
    faults(step_latency_s=0.12)
    at = 0.0

    def cancel_at_step_two(step: Any) -> None:
        nonlocal at
        if step.step == 2:
            job.cancel.cancel()
            at = time.monotonic()

    job.on_step = cancel_at_step_two
    seen = engine.generation
    with pytest.raises(Cancelled):
        job.run(sampled(steps=100))
    assert time.monotonic() - at < 1.0
    assert engine.ready
    assert engine.generation == seen
    assert job.files == []
    job.on_step = lambda _: None
    type(job)(client).run(sampled(steps=1))


def test_a_waiting_prompt_that_is_cancelled_never_starts(
    client: ComfyUIClient, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    faults(step_latency_s=0.12)
    first = type(job)(client)
    thread = threading.Thread(target=first.run, args=(sampled(steps=10),))
    thread.start()
    while not first.starts:
        time.sleep(0.01)
    threading.Timer(0.2, job.cancel.cancel).start()
    with pytest.raises(Cancelled):
        job.run(sampled())
    thread.join(20)
    assert first.files
    assert not job.starts


def test_a_timed_out_prompt_is_stopped(
    client: ComfyUIClient, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    faults(step_latency_s=0.12)
    with pytest.raises(TimedOut, match=r"0\.3 s") as caught:
        job.run(sampled(steps=100), timeout_s=0.3)
    assert caught.value.details == {}
    type(job)(client).run(sampled(steps=1))


def test_a_failing_listener_does_not_leave_the_prompt_running(
    client: ComfyUIClient, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    faults(step_latency_s=0.12)

    def fail(_: object) -> None:
        raise ZeroDivisionError

    job.on_step = fail
    with pytest.raises(ZeroDivisionError):
        job.run(sampled(steps=100))
    begun = time.monotonic()
    type(job)(client).run(sampled(steps=1))
    assert time.monotonic() - begun < 3


def test_a_refused_graph_is_an_error_with_node_and_input(
    job: Any, sampled: Callable[..., Graph]
) -> None:
    graph = sampled()
    graph["3"]["inputs"]["sampler_name"] = "no_such_sampler"
    with pytest.raises(WorkflowRejected) as caught:
        job.run(graph)
    assert caught.value.details["node"] == "3"
    assert caught.value.details["input"] == "sampler_name"
    assert "dpmpp_2m" in caught.value.details["allowed"]


def test_a_missing_model_is_its_own_error(job: Any, sampled: Callable[..., Graph]) -> None:
    graph = sampled()
    graph["4"]["inputs"]["ckpt_name"] = "absent.safetensors"
    with pytest.raises(ModelMissing, match=r"absent\.safetensors") as caught:
        job.run(graph)
    assert caught.value.details["allowed"] == ["tiny_sdxl.safetensors"]


def test_a_graph_that_is_accepted_in_part_is_refused(job: Any, plain: Callable[[], Graph]) -> None:
    graph = plain()
    graph["3"] = {"class_type": "SaveImage", "inputs": {"filename_prefix": "y"}}
    with pytest.raises(WorkflowRejected, match="images"):
        job.run(graph)
    job.run(plain())


def test_object_info(client: ComfyUIClient) -> None:
    assert "input" in client.object_info("KSampler")["KSampler"]
    assert client.object_info("No/Such Node") == {}
    assert client.system_stats()["system"]["comfyui_version"] == "0.33.0"


@pytest.mark.parametrize("by_path", [True, False])
@pytest.mark.parametrize("ours", [True, False])
def test_an_input_is_placed_and_read(
    engine: ComfyUIProcess, tmp_path: Path, *, by_path: bool, ours: bool, job: Any
) -> None:
    source = tmp_path / "in.png"
    Image.new("RGB", (32, 24), "red").save(source)
    with ComfyUIClient(engine if ours else ExternalComfyUI(engine.url)) as client:
        name = client.place_input(source if by_path else source.read_bytes(), "job-1 ä.png")
        graph = {
            "1": {"class_type": "LoadImage", "inputs": {"image": name}},
            "2": {
                "class_type": "SaveImage",
                "inputs": {"images": ["1", 0], "filename_prefix": f"{tmp_path.name}/x"},
            },
        }
        (file,) = type(job)(client).run(graph).files["2"]
        with client.opened(file) as path, Image.open(path) as picture:
            assert picture.size == (32, 24)
        client.remove_input(name)
        assert (engine.input_directory / name).exists() != ours
    (engine.input_directory / name).unlink(missing_ok=True)
    assert not list(engine.input_directory.glob(".*"))


@pytest.mark.parametrize("name", ["", "../x.png", "a/b.png", "/etc/passwd", ".hidden", ".."])
def test_an_inputs_name_cannot_leave_its_folder(client: ComfyUIClient, name: str) -> None:
    with pytest.raises(InvalidInput):
        client.place_input(b"", name)


def test_an_output_is_read_where_it_lies_or_by_view(
    engine: ComfyUIProcess, client: ComfyUIClient, job: Any, plain: Callable[[], Graph]
) -> None:
    first, second = job.run(plain()).files["2"]
    with ComfyUIClient(ExternalComfyUI(engine.url)) as remote:
        with client.opened(first) as own, remote.opened(first) as copy:
            assert own.is_relative_to(engine.output_directory)
            assert not copy.is_relative_to(engine.output_directory)
            assert own.read_bytes() == copy.read_bytes()
        assert not copy.exists()
        remote.delete_folder(second.subfolder)
        with client.opened(second):
            pass
        client.delete_folder(second.subfolder)
        assert not (engine.output_directory / second.subfolder).exists()
        for reader in (client, remote):
            with pytest.raises(ExecutionFailed), reader.opened(first):
                pass


@pytest.mark.parametrize(
    ("subfolder", "filename"),
    [("..", "secret"), ("", "../secret"), ("/etc", "passwd"), ("", "/etc/passwd"), ("link", "x")],
)
def test_an_output_outside_its_folder_is_not_opened(
    engine: ComfyUIProcess, client: ComfyUIClient, tmp_path: Path, subfolder: str, filename: str
) -> None:
    secret = engine.output_directory.parent / "secret"
    secret.touch()
    (tmp_path / "x").touch()
    link = engine.output_directory / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path)
    file = OutputFile("2", "images", filename, subfolder)
    with pytest.raises(ExecutionFailed), client.opened(file):
        pass
    client.delete_folder(subfolder or "../..")
    assert secret.exists()
    assert (tmp_path / "x").exists()


def test_what_is_not_comfyui_is_unavailable() -> None:
    with ComfyUIClient(ExternalComfyUI("http://127.0.0.1:1")) as client:
        with pytest.raises(EngineUnavailable):
            client.system_stats()
        with pytest.raises(EngineUnavailable):
            client.place_input(b"x", "x.png")


def test_a_proxy_of_the_environment_is_not_asked(
    job: Any, plain: Callable[[], Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert job.run(plain()).files


def test_a_failed_node_says_which_and_why(
    job: Any, plain: Callable[[], Graph], faults: Any
) -> None:
    faults(fail_at_node="SaveImage")
    with pytest.raises(ExecutionFailed) as caught:
        job.run(plain())
    assert caught.value.details["node"] == "2"
    assert caught.value.details["node_type"] == "SaveImage"
    assert "Traceback" not in json.dumps(caught.value.details)
