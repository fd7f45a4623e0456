"""What the suites share: the starter models, a gateway in this process, and one real server for the session."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from server.app import build_app
from server.context.template import ChatTemplate
from server.engine.simulated import SimulatedEngine
from server.parts import Parts
from server.settings import PROJECT_ROOT, Settings, load_settings
from server.starter import starter_chat_model, starter_embedder, starter_is_prepared

MODELS = PROJECT_ROOT / "var" / "models"
ENGINE_START_S = 400


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def chat_model_path() -> Path:
    if not starter_is_prepared(MODELS):
        pytest.fail("the starter models are missing; run `make models`, or the tests through `make test`")
    return starter_chat_model(MODELS)


@pytest.fixture(scope="session")
def template(chat_model_path: Path) -> ChatTemplate:
    return ChatTemplate(str(chat_model_path))


@pytest.fixture
def knowledge(tmp_path: Path) -> Path:
    """A folder with two small documents."""
    folder = tmp_path / "knowledge"
    folder.mkdir()
    (folder / "returns.md").write_text(
        "# Returns\n\n## Time limit\n\nAn item can be returned within 45 days.\n"
    )
    (folder / "hours.md").write_text("# Opening hours\n\n## Sunday\n\nThe shop is closed on Sunday.\n")
    return folder


MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(tmp_path: Path, chat_model_path: Path, knowledge: Path) -> MakeSettings:
    """Settings of a gateway with a simulated engine and a hashing embedder; keywords are dotted keys."""

    def make(**dotted: Any) -> Settings:
        overrides = {
            "data_dir": tmp_path / "var",
            "engine.kind": "simulated",
            "engine.model": str(chat_model_path),
            "engine.dtype": "float32",
            "engine.restart_backoff_s": 0.1,
            "engine.simulated.token_interval_ms": 2.0,
            "retrieval.embedder_kind": "hashing",
            "retrieval.sample_knowledge": str(knowledge),
            "http.shutdown_grace_s": 1.0,
        }
        overrides |= {key.replace("__", "."): value for key, value in dotted.items()}
        return load_settings(PROJECT_ROOT / "configs" / "default.toml", overrides)

    return make


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
        uvicorn.Config(app, port=0, log_config=None, lifespan="on", ws="none", timeout_graceful_shutdown=3)
    )
    server.capture_signals = _no_signals  # type: ignore[method-assign]
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


@pytest.fixture
async def gateway(make_settings: MakeSettings) -> AsyncIterator[Gateway]:
    async with running(make_settings()) as gateway:
        yield gateway


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


@pytest.fixture(scope="session")
def real_server(chat_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The default configuration on the real engine, FAISS, embedder and handbook: one for the session."""
    data = tmp_path_factory.mktemp("real")
    server = ServerProcess(
        [],
        {
            "FIRSTWORD_DATA_DIR": str(data),
            "FIRSTWORD_ENGINE__MODEL": str(chat_model_path),
            "FIRSTWORD_RETRIEVAL__EMBEDDER": str(starter_embedder(MODELS)),
        },
    )
    try:
        server.wait_ready(ENGINE_START_S)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def base_url(real_server: ServerProcess) -> str:
    return real_server.url
