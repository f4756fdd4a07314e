"""The application: door, routes, problems, and the page at `/`."""

import contextlib
import logging
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from errors import CodedError
from gateway import character_routes, job_routes, openapi, upload_routes
from gateway.access import Access, limited, security_headers
from gateway.problems import MEDIA_TYPE, GatewayError, plain_problem, problem, status_of
from gateway.services import opened
from gateway.settings import GatewaySettings

log = logging.getLogger(__name__)

PAGE: Final = Path(__file__).resolve().parent / "page"
PROTECTED: Final = frozenset(
    ("characters", "jobs", "uploads", "generate-image", "generate-video", "workflows", "health")
)
"""First parts of paths that need a key; everything else says nothing of a deployment."""


def create_app(settings: GatewaySettings) -> FastAPI:
    """The gateway, to be served by one process; opens its resources when the server starts it."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened(settings) as services:
            app.state.services = services
            yield

    app = FastAPI(
        title="Characters",
        version="1",
        description="Characters from photos; pictures and clips of them.",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from another host
        redoc_url=None,
    )
    for routes in (job_routes, character_routes, upload_routes):
        app.include_router(routes.router)
    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True, check_dir=False))
    app.openapi = lambda: openapi.describe(app)  # type: ignore[method-assign]  # FastAPI's own way
    app.add_exception_handler(CodedError, _coded)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _unforeseen)
    app.add_middleware(Door, settings=settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Location", "Retry-After"],
        )
    return app


class Door:
    """Access, body limits and security headers, before any route."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self._app = app
        self._access = Access(settings)
        self._upload_limit = settings.upload_max_bytes
        media = [
            _origin(url) for url in (settings.s3_endpoint_url, settings.public_base_url) if url
        ]
        self._headers = security_headers(media or ["https:"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        request = Request(scope)
        try:
            if scope["path"].strip("/").partition("/")[0] in PROTECTED:
                request.state.caller = self._access.caller(request)
            limit = self._limit(request)
            body = limited(receive, limit, request.headers.get("content-length"))
        except CodedError as error:
            await _answer(error)(scope, receive, safe)
            return
        await self._app(scope, body, safe)

    def _limit(self, request: Request) -> int:
        form = request.headers.get("content-type", "").startswith("multipart/")
        return self._upload_limit if form else job_routes.JSON_LIMIT


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _answer(error: CodedError) -> JSONResponse:
    headers = dict(error.headers) if isinstance(error, GatewayError) else {}
    if status_of(error) == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem(error), status_of(error), headers=headers, media_type=MEDIA_TYPE)


async def _coded(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CodedError)  # noqa: S101 - registered for it alone
    return _answer(error)


async def _framework(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    document = plain_problem(error.status_code, str(error.detail))
    return JSONResponse(document, error.status_code, headers=error.headers, media_type=MEDIA_TYPE)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
    fault: dict[str, Any] = error.errors()[0]
    field = str(fault["loc"][-1])
    document = plain_problem(422, f"{field}: {fault['msg']}.")
    return JSONResponse({**document, "field": field}, 422, media_type=MEDIA_TYPE)


async def _unforeseen(_request: Request, error: Exception) -> JSONResponse:
    log.error("request failed unforeseen", exc_info=error)
    document = plain_problem(500, "Something unforeseen went wrong; the log has it.")
    return JSONResponse(document, 500, media_type=MEDIA_TYPE)
