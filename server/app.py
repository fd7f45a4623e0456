"""The ASGI application: routes, and the start and end of everything behind them."""

from __future__ import annotations

import asyncio
import gc
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.errors import RetrievalError
from server.api.chat import chat_completions
from server.api.gate import Gate
from server.api.history import get_passage, get_turn, list_turns
from server.api.models import get_model, list_models
from server.api.openapi import get_openapi
from server.api.ops import live, metrics, ready
from server.api.prewarm import prewarm_chat
from server.api.responses import bug_response, on_firstword_error, on_http_error
from server.api.store_routes import STORE_ROUTES
from server.errors import FirstwordError, SetupError
from server.knowledge import Report
from server.parts import Parts, open_parts
from server.settings import Settings
from server.telemetry.timing import TurnClock

OpenParts = Callable[[Settings, Report], AbstractAsyncContextManager[Parts]]

_WEB = Path(__file__).parent / "web"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def build_app(
    settings: Settings,
    *,
    open_parts: OpenParts = open_parts,
    announce: Callable[[str], None] = lambda phase: None,
    on_failure: Callable[[SetupError | RetrievalError], None] = lambda error: None,
) -> Starlette:
    """The port can answer at once: parts are opened while the app serves, and `Gate` says how far they are.

    `announce` is told each phase; `on_failure` that the configuration cannot be served.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            holding = tasks.create_task(_hold_parts(app.state.gate, stopping))
            yield
            stopping.set()
            if app.state.gate.parts is None:
                holding.cancel()

    async def _hold_parts(gate: Gate, stopping: asyncio.Event) -> None:
        try:
            async with open_parts(settings, gate.enter) as parts:
                gate.parts = parts
                gate.enter("loading engine")
                freezing = asyncio.create_task(_freeze_when_ready(parts))
                await stopping.wait()
                freezing.cancel()
        except (SetupError, RetrievalError) as error:
            on_failure(error)

    middleware = []
    if settings.http.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.http.cors_origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["authorization", "content-type"],
            )
        )
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
            Route("/v1/chat/prewarm", prewarm_chat, methods=["POST"]),
            Route("/v1/models", list_models),
            Route("/v1/models/{model:path}", get_model),
            *STORE_ROUTES,
            Route("/v1/turns", list_turns),
            Route("/v1/turns/{turn_id}", get_turn),
            Route("/v1/passages/{chunk_id}", get_passage),
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/metrics", metrics),
            Route("/openapi.json", get_openapi),
            Route("/", Whole(page_app("index.html")), methods=["GET"]),
            Route("/documents", Whole(page_app("documents.html")), methods=["GET"]),
            Mount("/assets", Whole(StaticFiles(directory=_WEB))),
        ],
        middleware=[Middleware(RequestContext), *middleware],
        exception_handlers={
            FirstwordError: on_firstword_error,
            HTTPException: on_http_error,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # it would send the client to whatever host it named
    app.state.gate = Gate(announce)
    app.state.started = int(time.time())
    return app


async def _freeze_when_ready(parts: Parts) -> None:
    """What the start left in memory stays for good; walking it in a full collection would hold turns up for 0.1 s."""
    await parts.engine.ready()
    gc.collect()
    gc.freeze()
    # With little left to count, the defaults would walk a large request's objects again and again.
    gc.set_threshold(20_000, 50, 50)


def page_app(name: str) -> ASGIApp:
    async def serve_page(scope: Scope, receive: Receive, send: Send) -> None:
        page = FileResponse(
            _WEB / name,
            headers={
                "content-security-policy": _PAGE_POLICY,
                "x-content-type-options": "nosniff",
                "referrer-policy": "no-referrer",
                "cache-control": "no-cache",
            },
        )
        await page(scope, receive, send)

    return serve_page


class Whole:
    """Files are small and come whole: asked for ranges, Starlette would answer errors in a shape of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = [header for header in scope["headers"] if header[0] not in (b"range", b"if-range")]
        await self._app({**scope, "headers": asked}, receive, send)


class RequestContext:
    """Starts a request's clock, names it, says both on the response, and turns a bug into a 500 of our shape.

    Pure ASGI: a stream passes untouched, and an error after its first byte breaks the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        clock = TurnClock()
        request_id = f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {}).update(clock=clock, request_id=request_id)

        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(round(clock.elapsed_ms))
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            if started:
                raise
            await bug_response(error, request_id)(scope, receive, send_with_headers)
        finally:
            scope["state"].clear()  # it refers to the connection, which refers to the scope
