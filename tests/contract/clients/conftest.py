"""The servers of the client matrix, and the clients, each started once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from client_process import ClientProcess, start
from matrix import BY_NAME, CLIENTS
from simulated_servers import RETRY_AFTER_S, Server
from truth import LONG_REPLY, REPLY, TOOL_REPLY

START_S = 100


@pytest.fixture(scope="module")
def servers(chat_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """`answers`; `tools`, whose model thinks and calls; `slow`, whose answers last, with as many permits as clients."""
    folder = tmp_path_factory.mktemp("clients")
    knowledge = folder / "knowledge"
    knowledge.mkdir()
    (knowledge / "returns.md").write_text("# Returns\n\nAn item can be returned within 45 days.\n")
    kinds: dict[str, dict[str, Any]] = {
        "answers": {
            "ENGINE__SIMULATED__REPLY": REPLY,
        },
        "tools": {
            "ENGINE__SIMULATED__REPLY": TOOL_REPLY,
            "ENGINE__TOOL_PARSER": "hermes",
            "ENGINE__REASONING_PARSER": "qwen3",
        },
        "slow": {
            "ENGINE__SIMULATED__REPLY": LONG_REPLY,
            "ENGINE__SIMULATED__TOKEN_INTERVAL_MS": 20,
            "GENERATION__MAX_TOKENS": 3_000,
            "ADMISSION__MAX_RUNNING_TURNS": len(CLIENTS),
            "ADMISSION__MAX_QUEUED_TURNS": 0,
            "ADMISSION__RETRY_AFTER_S": RETRY_AFTER_S,
        },
    }
    with ExitStack() as stack:
        found: dict[str, Server] = {}
        for name, settings in kinds.items():
            found[name] = Server(folder / name, chat_model_path, knowledge, **settings)
            stack.callback(found[name].stop)
        yield found


def _ready(server: Server) -> Server:
    server.wait_ready(START_S)
    return server


@pytest.fixture(scope="module")
def answers(programs: dict[str, ClientProcess], servers: dict[str, Server]) -> Server:
    return _ready(servers["answers"])


@pytest.fixture(scope="module")
def tools(programs: dict[str, ClientProcess], servers: dict[str, Server]) -> Server:
    return _ready(servers["tools"])


@pytest.fixture(scope="module")
def slow(programs: dict[str, ClientProcess], servers: dict[str, Server]) -> Server:
    return _ready(servers["slow"])


@pytest.fixture(scope="module")
def programs() -> Iterator[dict[str, ClientProcess]]:
    """The client programs that are installed."""
    started = start(CLIENTS)
    yield started
    stopping = [threading.Thread(target=program.stop) for program in started.values()]
    for thread in stopping:
        thread.start()
    for thread in stopping:
        thread.join()


@pytest.fixture
def program(programs: dict[str, ClientProcess]) -> Callable[[str], ClientProcess]:
    """The running program of a client, by its name; fails the test when it is not installed."""

    def find(name: str) -> ClientProcess:
        if missing := BY_NAME[name].missing:
            pytest.fail(missing)
        return programs[name]

    return find
