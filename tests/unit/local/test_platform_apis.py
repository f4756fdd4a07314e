"""Both APIs over a real socket, with the tests in the worker's place: no worker process."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from local.platform.client import EndpointClient
from local.platform.pods import PodOptions
from local.platform.running import running
from local.platform.server import PlatformOptions

SLEEPER = ("sleep", "60")


def options(folder: Path, **changes: Any) -> PlatformOptions:
    pods = PodOptions(argv=SLEEPER, folder=folder, logs=folder, stop_grace_s=5)
    return PlatformOptions(pods=pods, poll_s=0.5, webhook_delay_s=0.05, **changes)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointClient]:
    """An endpoint whose one worker, `local-1`, is a process that never asks for a job."""
    with running(options(tmp_path_factory.mktemp("platform"))) as served:
        yield served.client


@pytest.fixture(autouse=True)
def _empty_queue(client: EndpointClient) -> None:
    client.post("purge-queue")


def take(client: EndpointClient, path: str = "job-take/local-1?gpu=none") -> requests.Response:
    return requests.get(f"{client.url}/{path}", timeout=10)


def done(client: EndpointClient, job_id: str, document: Any, *, worker: str = "local-1") -> int:
    url = f"{client.url}/job-done/{worker}/{job_id}?gpu=none&isStream=false"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}  # as the SDK sends it
    return requests.post(url, data=json.dumps(document), headers=headers, timeout=10).status_code


def test_take_and_done(client: EndpointClient) -> None:
    job_id = client.run({"n": 1})
    assert take(client).json() == {"id": job_id, "input": {"n": 1}}
    assert done(client, job_id, {"output": {"ok": True}}) == 200
    status = client.status(job_id)
    assert (status["status"], status["output"]) == ("COMPLETED", {"ok": True})
    assert status["workerId"] == "local-1"


def test_a_poll_with_nothing_to_say_is_held_and_then_204(client: EndpointClient) -> None:
    started = time.monotonic()
    assert take(client).status_code == 204
    assert time.monotonic() - started >= 0.5
    assert take(client, "job-stop/local-1?gpu=none").status_code == 204


def test_a_waiting_worker_gets_a_job_at_once(client: EndpointClient) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(take, client)
        job_id = client.run({})
        assert waiting.result().json()["id"] == job_id


def test_a_batch_is_a_list(client: EndpointClient) -> None:
    ids = [client.run({"n": n}) for n in range(3)]
    batch = take(client, "job-take-batch/local-1?gpu=none&batch_size=2&job_in_progress=0").json()
    assert [job["id"] for job in batch] == ids[:2]


def test_an_unknown_worker_gets_no_job(client: EndpointClient) -> None:
    job_id = client.run({})
    assert take(client, "job-take/somebody?gpu=none").status_code == 204
    assert client.status(job_id)["status"] == "IN_QUEUE"


def test_webhook_and_s3_config_reach_the_worker(client: EndpointClient) -> None:
    fields = {"webhook": "http://127.0.0.1:9/", "s3Config": {"bucketName": "b"}}
    client.run({}, **fields)
    assert take(client).json().items() >= fields.items()


def test_a_cancel_reaches_the_worker_through_the_stop_channel(client: EndpointClient) -> None:
    job_id = client.run({})
    take(client)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(take, client, "job-stop/local-1?gpu=none")
        assert client.cancel(job_id) == {"id": job_id, "status": "CANCELLED"}
        assert waiting.result().json() == {"jobsToStop": [job_id]}


def test_a_result_over_the_limit_is_refused_and_the_job_goes_on(client: EndpointClient) -> None:
    job_id = client.run({})
    take(client)
    assert done(client, job_id, {"output": "x" * (10 * 2**20)}) == 400
    assert client.status(job_id)["status"] == "IN_PROGRESS"
    client.cancel(job_id)


@pytest.mark.parametrize("body", ["", "[]", "{"])
def test_a_result_that_is_none(client: EndpointClient, body: str) -> None:
    url = f"{client.url}/job-done/local-1/x?gpu=none&isStream=false"
    assert requests.post(url, data=body, timeout=10).status_code == 400


def test_streamed_chunks(client: EndpointClient) -> None:
    job_id = client.run({})
    take(client)
    url = f"{client.url}/job-stream/local-1/{job_id}?gpu=none&isStream=false"
    requests.post(url, data='{"output": "a"}', timeout=10).raise_for_status()
    streamed = client.get(f"stream/{job_id}")
    assert streamed == {"status": "IN_PROGRESS", "stream": [{"output": "a"}]}
    client.cancel(job_id)


def test_runsync_answers_the_result_or_where_the_job_stands(client: EndpointClient) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.post, "runsync", {"input": {"n": 2}})
        job_id = take(client).json()["id"]
        done(client, job_id, {"output": 4})
        answer = waiting.result()
    assert (answer["id"], answer["status"], answer["output"]) == (job_id, "COMPLETED", 4)
    unfinished = client.post("runsync?wait=1000", {"input": {}})
    assert unfinished["status"] == "IN_QUEUE"
    assert unfinished["id"].startswith("sync-")


def test_retry_and_purge(client: EndpointClient) -> None:
    job_id = client.run({})
    take(client)
    done(client, job_id, {"error": "no"})
    assert client.post(f"retry/{job_id}") == {"id": job_id, "status": "IN_QUEUE"}
    assert client.post("purge-queue") == {"removed": 1, "status": "completed"}
    assert client.status(job_id)["status"] == "CANCELLED"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "run", b"{}", 400, "input is required"),
        ("POST", "run", b"{", 400, "body is not valid JSON"),
        ("POST", "run", b"x" * (10 * 2**20 + 1), 413, "exceeded max body size of 10MiB"),
        ("POST", "runsync", b"x" * (22 * 2**20), 413, "exceeded max body size of 20MiB"),
        ("POST", "runsync?wait=x", b'{"input": 1}', 400, "wait must be"),
        ("GET", "status/none", b"", 404, "job none does not exist"),
        ("POST", "cancel/none", b"", 404, "job none does not exist"),
        ("POST", "retry/none", b"", 404, "job none does not exist"),
        ("GET", "stream/none", b"", 404, "job none does not exist"),
    ],
)
def test_refusals(
    client: EndpointClient, method: str, path: str, body: bytes, status: int, message: str
) -> None:
    response = requests.request(method, f"{client.url}/{path}", data=body, timeout=10)
    assert (response.status_code, message in response.json()["error"]) == (status, True)


def test_health_counts_jobs_and_workers(tmp_path: Path) -> None:
    with running(options(tmp_path)) as served:
        client = served.client
        job_id = client.run({})
        assert client.post(f"status/{job_id}")["status"] == "IN_QUEUE"
        assert client.get("health")["jobs"]["inQueue"] == 1
        assert client.get("health")["workers"]["initializing"] == 1
        requests.get(f"{client.url}/ping/local-1?gpu=none&runpod_version=1", timeout=10)
        assert client.get("health")["workers"]["idle"] == 1
        take(client)
        assert client.get("health")["workers"]["running"] == 1
        unfit = f"{client.url}/ping/local-1?gpu=none&status=unhealthy&check=disk&reason=full"
        requests.get(unfit, timeout=10)
        assert client.get("health")["workers"]["unhealthy"] == 1
        assert client.get("metrics")["pods"]["local-1"]["unhealthy"] == "full"


def test_a_queue_that_is_too_long_is_429(tmp_path: Path) -> None:
    with running(options(tmp_path, workers=0)) as served:
        for _ in range(51):
            served.client.run({})
        with pytest.raises(requests.HTTPError, match="429"):
            served.client.run({})


def test_a_key_can_be_required_and_any_will_do(tmp_path: Path) -> None:
    with running(options(tmp_path, workers=0, require_key=True)) as served:
        with pytest.raises(requests.HTTPError, match="401"):
            served.client.get("health")
        headers = {"Authorization": "Bearer anything"}
        url = f"{served.client.url}/health"
        assert requests.get(url, headers=headers, timeout=10).status_code == 200


@contextmanager
def customer(*statuses: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook that answers with these statuses in turn, the last one for ever."""
    received: list[dict[str, Any]] = []
    answers = list(statuses)

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            received.append(json.loads(self.rfile.read(length)))
            self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            """Keep the tests' output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/done", received
        server.shutdown()
        thread.join()


def settled(client: EndpointClient, expected: dict[str, int]) -> bool:
    deadline = time.monotonic() + 10
    while client.get("metrics")["webhooks"] != expected:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(("answers", "posts"), [((200,), 1), ((500, 503, 200), 3), ((500,), 3)])
def test_a_webhook_is_tried_three_times(
    tmp_path: Path, answers: tuple[int, ...], posts: int
) -> None:
    with customer(*answers) as (url, received), running(options(tmp_path, workers=1)) as served:
        job_id = served.client.run({}, webhook=url)
        take(served.client)
        done(served.client, job_id, {"output": 1})
        counts: dict[str, int] = {}
        for answer in (answers * posts)[:posts]:
            counts[str(answer)] = counts.get(str(answer), 0) + 1
        assert settled(served.client, counts)
        assert received == [served.client.status(job_id)] * posts


def test_a_webhook_that_is_not_there(tmp_path: Path) -> None:
    with running(options(tmp_path)) as served:
        job_id = served.client.run({}, webhook="http://127.0.0.1:9/")
        served.client.cancel(job_id)
        assert settled(served.client, {"unreachable": 3})
