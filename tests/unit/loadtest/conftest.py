"""What the tests of the load tester share: its own event loop, a scripted server, and no keys from outside."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loadtest_standin import StandIn, by_path, serving


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that the measuring processes run on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def standin_server() -> Iterator[StandIn]:
    """One behaviour per path, `/{behaviour}/v1`, in a thread of its own: for whole commands."""
    found: list[StandIn] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with serving(by_path) as standin:
            found.append(standin)
            started.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(10)
    yield found[0]
    loop.call_soon_threadsafe(over.set)
    thread.join(timeout=10)
    loop.close()


@pytest.fixture
def standin(standin_server: StandIn) -> StandIn:
    standin_server.requests.clear()
    return standin_server


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.txt"
    path.write_text("one?\ntwo?\nthree?\n")
    return path


@pytest.fixture
def dead_url() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@pytest.fixture(autouse=True)
def _no_keys_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FIRSTWORD_API_KEY", "OPENAI_API_KEY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(variable, raising=False)
