"""Routes about prompts: queueing, interrupting, history."""

import uuid
from typing import Any, Final

from aiohttp import web

from local.comfyui.events import timestamp_ms
from local.comfyui.execution import Engine
from local.comfyui.executor import Executor
from local.comfyui.prompts import Prompt, Prompts
from local.comfyui.server import Routes
from local.comfyui.validation import OwnChecks, validate

_BAD_PROMPT_ID: Final = {
    "type": "invalid_prompt_id",
    "message": "prompt_id must be a valid UUID",
    "details": (
        "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
        "omit it to let the server generate one"
    ),
    "extra_info": {},
}
_NO_PROMPT: Final = {
    "type": "no_prompt",
    "message": "No prompt provided",
    "details": "No prompt provided",
    "extra_info": {},
}


class PromptRoutes:
    """The queue over HTTP. A body that is not JSON ends in status 500, as from ComfyUI."""

    def __init__(
        self, engine: Engine, prompts: Prompts, executor: Executor, own_checks: OwnChecks
    ) -> None:
        self._engine = engine
        self._prompts = prompts
        self._executor = executor
        self._own_checks = own_checks
        self._number = 0

    def routes(self) -> Routes:
        """Handlers by method and path."""
        return {
            ("GET", "/prompt"): self._status,
            ("POST", "/prompt"): self._queue_prompt,
            ("GET", "/queue"): self._queue,
            ("POST", "/queue"): self._change_queue,
            ("GET", "/history"): self._history,
            ("GET", "/history/{prompt_id}"): self._prompt_history,
            ("POST", "/history"): self._change_history,
            ("POST", "/interrupt"): self._interrupt,
            ("POST", "/free"): self._free,
            ("POST", "/api/jobs/{job_id}/cancel"): self._cancel,
        }

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(self._prompts.status())

    async def _queue_prompt(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        number = self._next_number(body)
        if "prompt" not in body:
            return _refused(_NO_PROMPT)
        prompt_id = body.get("prompt_id")
        if prompt_id is not None and not _canonical(prompt_id):
            return _refused(_BAD_PROMPT_ID)
        targets = body.get("partial_execution_targets")
        verdict = validate(body["prompt"], self._engine.catalogue, self._own_checks, targets)
        if verdict.error is not None:
            return _refused(verdict.error, verdict.node_errors)
        extra_data = dict(body.get("extra_data", {}))
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        extra_data["create_time"] = timestamp_ms()
        name = prompt_id or str(uuid.uuid4())
        self._prompts.put(Prompt(number, name, body["prompt"], extra_data, verdict.outputs))
        answer = {"prompt_id": name, "number": number, "node_errors": verdict.node_errors}
        return web.json_response(answer)

    def _next_number(self, body: dict[str, Any]) -> float:
        if "number" in body:
            return float(body["number"])
        first = "front" in body and body["front"]
        number = -self._number if first else self._number
        self._number += 1
        return number

    async def _queue(self, _request: web.Request) -> web.Response:
        return web.json_response(self._prompts.queue())

    async def _change_queue(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            self._prompts.clear()
        for prompt_id in body.get("delete", ()):
            self._prompts.remove(prompt_id)
        return web.Response()

    async def _history(self, request: web.Request) -> web.Response:
        wanted = request.query
        max_items = int(wanted["max_items"]) if "max_items" in wanted else None
        offset = int(wanted.get("offset", -1))
        return web.json_response(self._prompts.history(max_items=max_items, offset=offset))

    async def _prompt_history(self, request: web.Request) -> web.Response:
        return web.json_response(self._prompts.history(request.match_info["prompt_id"]))

    async def _change_history(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            self._prompts.forget()
        for prompt_id in body.get("delete", ()):
            self._prompts.forget(prompt_id)
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except ValueError:  # an empty body interrupts whatever runs
            body = {}
        self._prompts.interrupt(body.get("prompt_id") or None)
        return web.Response()

    async def _free(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("free_memory", False):
            self._executor.free_memory()
        return web.Response()

    async def _cancel(self, request: web.Request) -> web.Response:
        cancelled = self._prompts.cancel(request.match_info["job_id"])
        return web.json_response({"cancelled": cancelled})


def _refused(error: dict[str, Any], node_errors: dict[str, Any] | None = None) -> web.Response:
    return web.json_response({"error": error, "node_errors": node_errors or {}}, status=400)


def _canonical(prompt_id: object) -> bool:
    try:
        return str(uuid.UUID(str(prompt_id))) == prompt_id
    except ValueError:
        return False
