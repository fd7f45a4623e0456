"""A scripted OpenAI-compatible server on a loopback port, one for the whole module, in a thread of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from loadtest_standin import StandIn


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def standin_server() -> Iterator[StandIn]:
    listener = socket.create_server(("127.0.0.1", 0))
    standin = StandIn(f"http://127.0.0.1:{listener.getsockname()[1]}")
    config = uvicorn.Config(standin.app, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    yield standin
    server.should_exit = True
    thread.join(timeout=10)
    listener.close()


@pytest.fixture
def standin(standin_server: StandIn) -> StandIn:
    standin_server.requests.clear()
    standin_server.headers.clear()
    return standin_server


@pytest.fixture
def dead_url() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@pytest.fixture(autouse=True)
def _no_keys_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIRSTWORD_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
