"""Stopping a prompt: between steps, by its id, from the queue."""

import uuid
from typing import Any

import pytest

from tests.conformance.conversation import Conversation, Message, converse, recorded
from tests.conformance.graphs import picture, two_colours
from tests.conformance.servers import Server

_MANY_STEPS = 60


def _assert_interrupted(talk: Conversation) -> None:
    """What holds of every interrupted prompt, wherever the interruption found it."""
    assert talk.types("progress", "progress_state")[-3:] == [
        "execution_interrupted",
        "status",
        "executing",
    ]
    (said,) = talk.of("execution_interrupted")
    assert list(said) == ["prompt_id", "node_id", "node_type", "executed", "timestamp"]
    begun = [data["node"] for data in talk.of("executing") if data["node"] is not None]
    assert said["node_id"] == begun[-1]
    graph = talk.history["prompt"][2]
    assert said["node_type"] == graph[begun[-1]]["class_type"]
    assert sorted(said["executed"]) == sorted(begun[:-1])
    assert talk.history["outputs"] == talk.history["meta"] == {}
    status = talk.history["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    kept = [kind for kind, _ in status["messages"]]
    assert kept == ["execution_start", "execution_cached", "execution_interrupted"]
    assert status["messages"][-1][1] == said


@pytest.mark.parametrize("name", ["interrupted", "cancelled_by_job_api"])
def test_recorded_interruptions_are_as_asserted(name: str) -> None:
    _, talk = recorded(name)
    _assert_interrupted(talk)


@pytest.mark.parametrize("how", ["interrupt", "cancel"])
def test_a_running_prompt_is_stopped(slow: Server, how: str) -> None:
    answers = []

    def act(message: Message) -> None:
        data = message["data"]
        if message["type"] == "executing" and data["node"] == "3":
            if how == "interrupt":
                answers.append(slow.post("/interrupt", {"prompt_id": data["prompt_id"]}))
            else:
                answers.append(slow.post(f"/api/jobs/{data['prompt_id']}/cancel"))

    graph = picture("stopped", seed=uuid.uuid4().int % 2**32, steps=_MANY_STEPS)
    talk = converse(slow, graph, act=act)
    _assert_interrupted(talk)
    assert answers[0].status_code == 200
    if how == "cancel":
        assert answers[0].json() == {"cancelled": True}


def test_others_are_left_alone(slow: Server) -> None:
    """A wrong id stops nothing; a waiting prompt is taken out; the queue shows the running one."""
    seen: dict[str, Any] = {}

    def act(message: Message) -> None:
        data = message["data"]
        if message["type"] == "executing" and data["node"] == "3":
            slow.post("/interrupt", {"prompt_id": str(uuid.uuid4())})
            waiting = slow.post("/prompt", {"prompt": two_colours("waiting")}).json()["prompt_id"]
            seen["queue"] = slow.get("/queue").json()
            seen["left"] = slow.get("/prompt").json()
            seen["cancelled"] = slow.post(f"/api/jobs/{waiting}/cancel").json()
            seen["again"] = slow.post(f"/api/jobs/{waiting}/cancel").json()
            seen["waiting"] = waiting
            slow.post("/interrupt", {})

    talk = converse(slow, picture("queued", seed=5, steps=_MANY_STEPS), act=act)
    _assert_interrupted(talk)
    (running,), (pending,) = seen["queue"]["queue_running"], seen["queue"]["queue_pending"]
    assert running[1:3] == talk.history["prompt"][1:3]
    assert pending[1:3] == [seen["waiting"], two_colours("waiting")]
    assert list(pending[3]) == ["create_time"]
    assert pending[4] == ["2"]
    assert len(running) == len(pending) == 5
    assert seen["left"] == {"exec_info": {"queue_remaining": 2}}
    assert (seen["cancelled"], seen["again"]) == ({"cancelled": True}, {"cancelled": False})
    assert slow.get(f"/history/{seen['waiting']}").json() == {}


def test_the_next_prompt_is_not_stopped_by_an_early_interrupt(server: Server) -> None:
    server.post("/interrupt", {})
    talk = converse(server, two_colours(f"after/{uuid.uuid4().hex}"))
    assert talk.history["status"]["status_str"] == "success"
