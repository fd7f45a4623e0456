"""`firstword serve`: the socket, uvicorn, and a shutdown that lets running turns finish."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import time
from types import FrameType

import uvicorn
import uvloop
from rich.console import Console
from rich.markup import escape
from starlette.applications import Starlette

from retrieval.errors import RetrievalError
from server.api.connection import connection_class
from server.app import build_app
from server.errors import PortInUse, SetupError
from server.settings import Settings

_BACKLOG = 2_048


class Server(uvicorn.Server):
    """Drains on SIGTERM and SIGINT: see `Drain`."""

    def __init__(self, config: uvicorn.Config, app: Starlette, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(config)
        self._app = app
        self._loop = loop
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        parts = self._app.state.gate.parts
        if parts is not None and self._draining is None:
            self._draining = self._loop.create_task(parts.drain.finish(parts.engine.abort))


def serve(settings: Settings, console: Console) -> None:
    """Runs until a signal. Raises `SetupError` or `RetrievalError` when the configuration cannot be served."""
    sock = bind(settings.http.host, settings.http.port)
    with sock:
        # uvicorn raises the signal again once it has shut down; by then there is nothing left to do.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            failure = runner.run(_serve(settings, sock, console))
    if failure is not None:
        raise failure


async def _serve(
    settings: Settings, sock: socket.socket, console: Console
) -> SetupError | RetrievalError | None:
    started_at = time.monotonic()
    url = _url(settings.http.host, sock.getsockname()[1])
    failures: list[SetupError | RetrievalError] = []

    def announce(phase: str) -> None:
        console.print(f"[dim]{time.monotonic() - started_at:6.1f} s[/dim]  {escape(phase)}")

    def on_failure(error: SetupError | RetrievalError) -> None:
        failures.append(error)
        server.should_exit = True

    app = build_app(settings, announce=announce, on_failure=on_failure)
    config = uvicorn.Config(
        app,
        http=connection_class(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        # Drain ends streams at the end of the grace; this is for what does not listen to it.
        timeout_graceful_shutdown=int(settings.http.shutdown_grace_s) + 1,
    )
    server = Server(config, app, asyncio.get_running_loop())
    console.print(
        f"[bold]Firstword[/bold] listens on [link={url}]{url}[/link]; it answers turns once the engine is ready.",
        soft_wrap=True,
    )
    greeting = asyncio.create_task(_greet(app, url, console, started_at))
    try:
        await server.serve(sockets=[sock])
    finally:
        greeting.cancel()
    return failures[0] if failures else None


async def _greet(app: Starlette, url: str, console: Console, started_at: float) -> None:
    """Say once, when it is true, that a question can be asked, and how."""
    gate = app.state.gate
    while gate.parts is None:  # noqa: ASYNC110 - a poll of the start, five times a second
        await asyncio.sleep(0.2)
    await gate.parts.engine.ready()
    elapsed_s = time.monotonic() - started_at
    console.print(
        f"[dim]{elapsed_s:6.1f} s[/dim]  [green]ready[/green]: chat at [link={url}]{url}[/link], or"
    )
    key = ' -H "authorization: Bearer $FIRSTWORD_API_KEY"' if gate.parts.settings.auth.api_keys else ""
    console.print(
        f"\ncurl -N {url}/v1/chat/completions{key} -H 'content-type: application/json' -d '"
        f'{{"model": "{gate.parts.model_name}", "stream": true, '
        '"messages": [{"role": "user", "content": "Which port does Firstword listen on?"}]}'
        "'\n",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `PortInUse`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        reason = "another program listens there" if error.errno == errno.EADDRINUSE else error.strerror
        raise PortInUse(
            f"cannot listen on {host}:{port}: {reason}",
            next_step=f"choose another with `--port {port + 1}` or `make serve PORT={port + 1}`, or stop that program",
        ) from error
    sock.set_inheritable(False)
    return sock


def _url(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"


def configure_logging(level: str) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    for chatty in ("uvicorn", "sse_starlette", "httpx", "sentence_transformers", "faiss"):
        logging.getLogger(chatty).setLevel("WARNING")
    # Of every request that is no HTTP it would warn in the log; the metrics count what is refused.
    logging.getLogger("uvicorn.error").setLevel("ERROR")
