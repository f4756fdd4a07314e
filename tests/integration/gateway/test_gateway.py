"""The API against the real local stack, one route after another."""

import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from PIL import Image
from standardwebhooks import Webhook

from tests.integration.gateway.conftest import IMAGE, GatewayHarness

pytestmark = pytest.mark.process


def picture(shade: int = 90, side: int = 600) -> bytes:
    file = io.BytesIO()
    noise = Image.effect_noise((side, side), 40 + shade % 60)
    Image.merge("RGB", [noise, noise, noise.rotate(shade)]).save(file, "JPEG")
    return file.getvalue()


def test_a_picture_is_made_and_stays_readable(api: GatewayHarness) -> None:
    reply = api.post("/generate-image", IMAGE, Prefer="wait=60")
    assert reply.status_code == 200, reply.text
    job = reply.json()
    assert job["state"] == "completed"
    assert requests.get(job["result"]["outputs"][0]["url"], timeout=10).ok
    again = api.get(f"/jobs/{job['id']}")
    assert again["result"]["outputs"][0]["key"] == job["result"]["outputs"][0]["key"]
    assert requests.get(again["result"]["outputs"][0]["url"], timeout=10).ok
    assert api.get("/jobs?limit=1")["jobs"][0]["id"] == job["id"]
    page = api.get("/characters/demo/outputs")
    assert page["jobs"][0]["outputs"][0]["key"] == job["result"]["outputs"][0]["key"]


def test_without_a_preference_the_job_is_answered_at_once(api: GatewayHarness) -> None:
    reply = api.post("/generate-image", IMAGE)
    assert reply.status_code == 202
    assert reply.headers["Location"] == f"/jobs/{reply.json()['id']}"


def test_one_key_is_one_job_and_another_body_a_conflict(api: GatewayHarness) -> None:
    first = api.post("/generate-image", IMAGE, Idempotency_Key="same", Prefer="wait=60").json()
    second = api.post("/generate-image", IMAGE, Idempotency_Key="same").json()
    assert first["id"] == second["id"]
    assert first["result"]["job_id"] == second["result"]["job_id"]
    other = api.post("/generate-image", {**IMAGE, "steps": 3}, Idempotency_Key="same")
    assert other.status_code == 409
    assert other.json()["code"] == "conflict"


def test_events_end_with_the_result_and_a_known_end_is_not_sent_again(api: GatewayHarness) -> None:
    job = api.post("/generate-image", IMAGE).json()
    url = f"{api.gateway.url}/jobs/{job['id']}/events"
    events, last_id = [], ""
    with requests.get(url, stream=True, timeout=60) as reply:
        for line in reply.iter_lines(decode_unicode=True):
            name, _, value = line.partition(": ")
            if name == "event":
                events.append(value)
            if name == "id":
                last_id = value
    assert events[-1] == "completed"
    known = requests.get(url, headers={"Last-Event-ID": last_id}, timeout=10)
    assert known.status_code == 204


def test_a_character_of_photos_alone_is_there_at_once(api: GatewayHarness) -> None:
    photo = base64.b64encode(picture()).decode()
    reply = api.post(
        "/characters",
        {"character_id": "instant", "references": [{"base64": photo}], "class_noun": "woman"},
        Prefer="wait=60",
    )
    job = reply.json()
    assert job["state"] == "completed", job
    found = api.get("/characters/instant")
    assert (found["character"]["character_id"], found["versions"]) == ("instant", []), found


def test_photos_are_uploaded_and_trained(api: GatewayHarness) -> None:
    photos = [picture(shade * 17) for shade in range(6)]
    files = [{"content_type": "image/jpeg", "bytes": len(photo)} for photo in photos]
    upload = api.post("/uploads", {"files": files}).json()
    for photo, file in zip(photos, upload["files"], strict=True):
        assert requests.put(file["url"], photo, headers=file["headers"], timeout=10).ok
    refused = requests.put(
        upload["files"][0]["url"],
        photos[0] + b"x",
        headers={"Content-Type": "image/jpeg"},
        timeout=9,
    )
    assert refused.status_code == 403
    body = {
        "character_id": "mira",
        "class_noun": "woman",
        "steps": 20,
        "images": [{"key": file["key"]} for file in upload["files"]],
        "preview_prompts": ["portrait of {trigger}"],
    }
    job = api.post("/characters", body, Prefer="wait=120").json()
    assert job["state"] == "completed", job
    found = api.get("/characters/mira")
    assert requests.get(found["versions"][0]["preview"]["url"], timeout=10).ok
    assert found["character"]["preview"]["key"].endswith("previews.png")
    renamed = api.request("PATCH", "/characters/mira", json={"name": "Mira <b>"}).json()
    assert renamed["character"]["name"] == "Mira <b>"
    active = {"version": found["versions"][0]["id"]}
    assert api.post("/characters/mira/activate", active).ok
    nothing = api.post("/characters/mira/rollback")
    assert nothing.status_code == 404
    assert api.request("DELETE", "/characters/mira").json()["character"]["status"] == "deleted"
    assert (
        api.post("/generate-image", {**IMAGE, "character_id": "mira"}, Prefer="wait=30").json()[
            "error"
        ]["code"]
        == "character_not_found"
    )
    assert api.post("/characters/mira/restore").ok


def test_a_form_goes_through_the_gateway(api: GatewayHarness) -> None:
    files = [("files", (f"{n}.jpg", picture(n), "image/jpeg")) for n in range(2)]
    reply = api.request("POST", "/uploads", files=files)
    assert reply.status_code == 201, reply.text
    keys = [file["key"] for file in reply.json()["files"]]
    body = {**IMAGE, "init_image": {"key": keys[1]}, "denoise": 0.5}
    assert api.post("/generate-image", body, Prefer="wait=60").json()["state"] == "completed"


def test_a_cancelled_job_stays_cancelled(api: GatewayHarness) -> None:
    job = api.post("/generate-image", {**IMAGE, "steps": 100, "count": 8}).json()
    assert api.post(f"/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    time.sleep(2)
    assert api.get(f"/jobs/{job['id']}")["state"] == "cancelled"


class _Receiver(BaseHTTPRequestHandler):
    received: list[tuple[dict[str, str], bytes]] = []  # noqa: RUF012 - one server, one test
    refusals = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).received.append(({k.lower(): v for k, v in self.headers.items()}, body))
        failing = len(type(self).received) <= type(self).refusals
        self.send_response(500 if failing else 204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
        pass


def test_a_webhook_is_signed_tried_again_and_logged(api: GatewayHarness) -> None:
    _Receiver.refusals = 1
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/hook"
        job = api.post("/generate-image", {**IMAGE, "webhook": url}, Prefer="wait=60").json()
        deadline = time.monotonic() + 40
        while not (state := api.get(f"/jobs/{job['id']}")["webhook"])["delivered"]:
            assert time.monotonic() < deadline, state
            time.sleep(0.5)
        assert [line["status"] for line in state["deliveries"]] == [500, 204]
        headers, body = _Receiver.received[-1]
        told = Webhook("whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=").verify(body, headers)
        assert told["type"] == "job.completed"
        assert told["data"]["id"] == job["id"] == headers["webhook-id"]
    finally:
        server.shutdown()
        server.server_close()


HOSTILE: list[tuple[str, str, Any, int]] = [
    ("POST", "/generate-image", b"{", 422),
    ("POST", "/generate-image", b"[]", 422),
    ("POST", "/generate-image", b'{"prompt": NaN}', 422),
    ("POST", "/generate-image", b"[" * 100_000, 422),
    ("POST", "/generate-image", b'{"prompt": "a", "x": 1}', 422),
    ("POST", "/generate-image", b'{"prompt": "\\ud800"}', 422),
    ("POST", "/generate-image", b'{"prompt": "a", "request_id": "theirs"}', 422),
    ("POST", "/generate-image", b'{"prompt": "a", "webhook": "http://169.254.169.254/"}', 422),
    ("POST", "/generate-image", b'{"prompt": "a", "webhook": "file:///etc/passwd"}', 422),
    ("POST", "/generate-image", b'{"prompt": "a", "webhook": 7}', 422),
    ("POST", "/characters", b'{"character_id": "../x", "images": []}', 422),
    ("POST", "/uploads", b'{"files": [{"content_type": "text/html", "bytes": 5}]}', 422),
    ("POST", "/uploads", b'{"files": [{"content_type": "image/png", "bytes": 99000000}]}', 422),
    ("POST", "/uploads", b'{"files": []}', 422),
    ("GET", "/jobs/..%2f..%2fregistry%2fconditions", None, 404),
    ("GET", "/jobs/unknown", None, 404),
    ("GET", "/jobs/unknown/events", None, 404),
    ("POST", "/jobs/unknown/cancel", None, 404),
    ("GET", "/jobs?cursor=../../x", None, 422),
    ("GET", "/jobs?limit=many", None, 422),
    ("GET", "/characters/No%20Such", None, 422),
    ("GET", "/characters/nobody", None, 404),
    ("GET", "/characters?cursor=%00", None, 422),
    ("GET", "/characters/demo/outputs?cursor=zzz", None, 422),
    ("POST", "/workflows/none", b"{}", 404),
    ("PUT", "/characters", None, 405),
    ("GET", "/..%2f..%2fetc/passwd", None, 404),
    ("GET", "/%ff%fe", None, 404),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), HOSTILE)
def test_hostile_requests_are_problems(
    api: GatewayHarness, method: str, path: str, body: bytes | None, status: int
) -> None:
    headers = {"Content-Type": "application/json"}
    reply = api.request(method, path, data=body, headers=headers)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    document = reply.json()
    assert document["status"] == status
    assert document["code"]
    assert document["detail"]
    assert "Traceback" not in reply.text
    assert "script-src 'self'" in reply.headers["content-security-policy"]


def test_a_large_body_is_refused_before_it_is_read(api: GatewayHarness) -> None:
    def endless() -> Any:
        for _ in range(60):
            yield b" " * 1_000_000

    headers = {"Content-Type": "application/json"}
    for body in (b" " * 50_000_000, endless()):
        try:
            reply = api.request("POST", "/generate-image", data=body, headers=headers)
        except requests.ConnectionError:
            continue  # refused and closed while we still sent
        assert reply.status_code == 413
        assert reply.json()["code"] == "too_large"
    assert api.get("/ping")


def test_text_is_no_json(api: GatewayHarness) -> None:
    reply = api.request(
        "POST", "/generate-image", data=json.dumps(IMAGE), headers={"Content-Type": "text/plain"}
    )
    assert reply.status_code == 422
