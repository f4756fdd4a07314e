"""Routes about the server itself: what it is, which nodes and models there are, its socket."""

import os
import platform
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from local.comfyui import COMFYUI_VERSION
from local.comfyui.execution import Engine
from local.comfyui.faults import UnknownFault
from local.comfyui.prompts import Prompts

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Routes = dict[tuple[str, str], Handler]

MAX_BODY_BYTES: Final = 100 * 2**20
"""ComfyUI's default for `--max-upload-size`."""

_FEATURES: Final[dict[str, Any]] = {
    "supports_preview_metadata": True,
    "supports_model_type_tags": True,
    "max_upload_size": MAX_BODY_BYTES,
    "extension": {"manager": {"supports_v4": True}},
    "node_replacements": True,
    "assets": False,
}
_PAGE: Final = (
    "<!doctype html><title>ComfyUI stand-in</title><h1>This is a stand-in for ComfyUI</h1>"
    "<p>It speaks ComfyUI's protocol and draws placeholders; it has no model and no GPU.</p>"
)
# Nobody's GPU: sizes that a client may divide by.
_MEMORY_BYTES: Final = 24 * 2**30


class ServerRoutes:
    """What can be asked about the server."""

    def __init__(self, engine: Engine, prompts: Prompts) -> None:
        self._engine = engine
        self._prompts = prompts

    def routes(self) -> Routes:
        """Handlers by method and path."""
        return {
            ("GET", "/"): self._root,
            ("GET", "/ws"): self._socket,
            ("GET", "/system_stats"): self._system_stats,
            ("GET", "/features"): self._features,
            ("GET", "/object_info"): self._object_info,
            ("GET", "/object_info/{node_class}"): self._node_info,
            ("GET", "/models"): self._model_kinds,
            ("GET", "/models/{folder}"): self._models,
            ("GET", "/embeddings"): self._embeddings,
        }

    async def _root(self, _request: web.Request) -> web.Response:
        return web.Response(text=_PAGE, content_type="text/html")

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        greeting = {"status": self._prompts.status()}
        return await self._engine.events.serve(request, greeting, _FEATURES)

    async def _system_stats(self, _request: web.Request) -> web.Response:
        system = {
            "os": sys.platform,
            "ram_total": _MEMORY_BYTES,
            "ram_free": _MEMORY_BYTES,
            "comfyui_version": COMFYUI_VERSION,
            "required_frontend_version": "stand-in",
            "installed_templates_version": "stand-in",
            "required_templates_version": "stand-in",
            "comfy_package_versions": [],
            "python_version": sys.version,
            "pytorch_version": "stand-in: no torch",
            "embedded_python": False,
            "deploy_environment": "stand-in",
            "argv": sys.argv,
        }
        device = {
            "name": f"stand-in on {platform.machine()}: no GPU",
            "type": "cpu",
            "index": None,
            "vram_total": _MEMORY_BYTES,
            "vram_free": _MEMORY_BYTES,
            "torch_vram_total": _MEMORY_BYTES,
            "torch_vram_free": _MEMORY_BYTES,
        }
        return web.json_response({"system": system, "devices": [device]})

    async def _features(self, _request: web.Request) -> web.Response:
        return web.json_response(_FEATURES)

    async def _object_info(self, _request: web.Request) -> web.Response:
        catalogue = self._engine.catalogue
        return web.json_response({name: catalogue.info(name) for name in catalogue.names()})

    async def _node_info(self, request: web.Request) -> web.Response:
        name = request.match_info["node_class"]
        known = name in self._engine.catalogue
        return web.json_response({name: self._engine.catalogue.info(name)} if known else {})

    async def _model_kinds(self, _request: web.Request) -> web.Response:
        return web.json_response(self._engine.context.folders.kinds())

    async def _models(self, request: web.Request) -> web.Response:
        names = self._engine.context.folders.models(request.match_info["folder"])
        return web.Response(status=404) if names is None else web.json_response(names)

    async def _embeddings(self, _request: web.Request) -> web.Response:
        names = self._engine.context.folders.models("embeddings") or []
        return web.json_response([os.path.splitext(name)[0] for name in names])  # noqa: PTH122 - keeps the subfolder


class FaultRoutes:
    """`/stand-in/faults`: GET shows, POST switches on, DELETE switches everything off."""

    def __init__(self, engine: Engine) -> None:
        self._faults = engine.context.faults

    def routes(self) -> Routes:
        """Handlers by method and path."""
        return {
            ("GET", "/stand-in/faults"): self._show,
            ("POST", "/stand-in/faults"): self._set,
            ("DELETE", "/stand-in/faults"): self._clear,
        }

    async def _show(self, _request: web.Request) -> web.Response:
        return web.json_response(self._faults.shown())

    async def _set(self, request: web.Request) -> web.Response:
        try:
            self._faults.set(await request.json())
        except (UnknownFault, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(self._faults.shown())

    async def _clear(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        return web.json_response(self._faults.shown())


def application(engine: Engine, routes: Routes) -> web.Application:
    """All routes, ComfyUI's also below `/api` as there."""
    faults = engine.context.faults

    @web.middleware
    async def failing(request: web.Request, handler: Handler) -> web.StreamResponse:
        if faults.due("http_error_at", f"{request.method} {request.path}"):
            raise web.HTTPInternalServerError
        return await handler(request)

    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[failing])
    for (method, path), handler in routes.items():
        app.router.add_route(method, path, handler)
        app.router.add_route(method, f"/api{path}", handler)
    for (method, path), handler in FaultRoutes(engine).routes().items():
        app.router.add_route(method, path, handler)
    return app
