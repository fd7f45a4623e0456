"""A gateway in the test's own event loop, and one as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass

import httpx
import uvicorn

from server.api.connection import connection_class
from server.app import build_app
from server.engine.simulated import SimulatedEngine
from server.parts import Parts
from server.settings import PROJECT_ROOT, Settings

MakeSettings = Callable[..., Settings]


@dataclass(frozen=True, slots=True)
class Gateway:
    url: str
    parts: Parts

    @property
    def engine(self) -> SimulatedEngine:
        """The simulated engine that runs now; a crash is followed by another."""
        engine = self.parts.engine._engine
        assert isinstance(engine, SimulatedEngine)
        return engine

    async def ready(self) -> None:
        await asyncio.wait_for(self.parts.engine.ready(), 10)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Gateway]:
    """A gateway on a loopback port, in this event loop, ready for turns."""
    app = build_app(settings)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            port=0,
            http=connection_class(settings),
            log_config=None,
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=3,
        )
    )
    server.capture_signals = _no_signals
    serving = asyncio.create_task(server.serve())
    try:
        while app.state.gate.parts is None or not server.started:
            if serving.done():
                await serving
                raise RuntimeError("the gateway ended while it started")
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        gateway = Gateway(f"http://127.0.0.1:{port}", app.state.gate.parts)
        await gateway.ready()
        yield gateway
    finally:
        server.should_exit = True
        await serving


def _no_signals() -> AbstractContextManager[None]:
    return nullcontext()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class ServerProcess:
    """`firstword serve` as a user runs it."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._lines: list[str] = []
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FIRSTWORD_")}
        clean.pop("COVERAGE_PROCESS_START", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server.cli", "serve", "--port", str(self.port), *arguments],
            cwd=PROJECT_ROOT,
            env=clean | environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line)

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def wait_ready(self, timeout_s: float) -> None:
        give_up = time.monotonic() + timeout_s
        while time.monotonic() < give_up:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.output}")
            try:
                if httpx.get(self.url + "/health/ready", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise TimeoutError(f"not ready after {timeout_s} s:\n{self.output}")

    def stop(self) -> int:
        """SIGTERM, then the exit code. Whatever is left of its process group is killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self._reader.join(5)
            assert self.process.stderr is not None
            self.process.stderr.close()
        return code
