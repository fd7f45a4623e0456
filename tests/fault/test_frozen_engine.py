"""The real engine's processes, frozen and killed: noticed, told, and either gone on with or replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fault.client import Connection, Response
from fault.conftest import Tell
from fault.judge import Truth, judge, stream_of
from fault.size import FULL
from fault.vitals import session_processes
from gateways import ServerProcess
from server.settings import PROJECT_ROOT
from server.starter import starter_embedder
from wire import question

if not FULL:
    pytest.skip("a start costs a minute; test_real_engine.py covers the kill", allow_module_level=True)

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.timeout(900)]

_START_S = 400
_STALL_S, _CANARY_S, _RESTART_S = 5, 3, 12
_GRACE_S = 3
_TOKENS = 48
BODY = question(
    "Which port does Firstword listen on by default?",
    stream=True,
    max_tokens=_TOKENS,
    ignore_eos=True,
    stream_options={"include_usage": True},
)
ENGINE = ("VLLM::EngineCore", "VLLM::Worker")


@pytest.fixture(scope="module")
def server(chat_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(
        [],
        {
            "FIRSTWORD_DATA_DIR": str(tmp_path_factory.mktemp("frozen")),
            "FIRSTWORD_ENGINE__MODEL": str(chat_model_path),
            "FIRSTWORD_RETRIEVAL__EMBEDDER": str(starter_embedder(PROJECT_ROOT / "var" / "models")),
            "FIRSTWORD_HTTP__SHUTDOWN_GRACE_S": str(_GRACE_S),
            "FIRSTWORD_ENGINE__STALL_S": str(_STALL_S),
            "FIRSTWORD_ENGINE__CANARY_S": str(_CANARY_S),
            "FIRSTWORD_ENGINE__STALL_RESTART_S": str(_RESTART_S),
        },
    )
    try:
        server.wait_ready(_START_S)
        yield server
    finally:
        for pid in engine_processes(server).values():
            os.kill(pid, signal.SIGCONT)
        server.stop()


def engine_processes(server: ServerProcess) -> dict[str, int]:
    """By the names that vLLM gives them."""
    found = {}
    for pid in session_processes(server.process.pid):
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        for name in ENGINE:
            if name in arguments:
                found[name] = pid
    return found


def is_ready(server: ServerProcess) -> bool:
    return httpx.get(server.url + "/health/ready", trust_env=False, timeout=5).status_code == 200


async def until(what: Callable[[], bool], within_s: float) -> float:
    """The seconds it took."""
    began_at = time.monotonic()
    while not await asyncio.to_thread(what):
        assert time.monotonic() - began_at < within_s
        await asyncio.sleep(0.05)
    return time.monotonic() - began_at


class Streaming:
    """A turn whose first tokens have come."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reading = asyncio.create_task(connection.read())

    @classmethod
    async def begin(cls, server: ServerProcess, body: dict[str, Any] = BODY) -> Streaming:
        connection = await Connection.open(server.port)
        await connection.send(body)
        streaming = cls(connection)
        async with asyncio.timeout(60):
            while connection.reader.response.body.count(b'"delta":{"content"') < 5:
                await asyncio.sleep(0.005)
        return streaming

    @property
    def is_open(self) -> bool:
        return not self._reading.done()

    async def end(self) -> Response:
        async with asyncio.timeout(120):
            response = await self._reading
        self._connection.leave()
        return response


@pytest.fixture
async def truth(server: ServerProcess) -> Truth:
    """What the engine says when nothing befalls it, and it says so twice."""
    texts = []
    for _ in range(2):
        streaming = await Streaming.begin(server)
        texts.append(stream_of(await streaming.end()).text)
    assert texts[0] == texts[1]
    return Truth([texts[1]], ["length"], _TOKENS)


async def assert_answers(server: ServerProcess, truth: Truth) -> None:
    streaming = await Streaming.begin(server)
    assert judge(await streaming.end(), truth) == "finished"


@pytest.mark.parametrize("name", ENGINE)
async def test_a_frozen_process_is_noticed_and_its_stream_goes_on_when_it_thaws(
    server: ServerProcess, truth: Truth, name: str, tell: Tell
) -> None:
    streaming = await Streaming.begin(server)
    pid = engine_processes(server)[name]
    os.kill(pid, signal.SIGSTOP)
    try:
        off_s = await until(lambda: not is_ready(server), _STALL_S + 5)
        refused = await asyncio.to_thread(httpx.post, server.url + "/v1/chat/completions", json=BODY)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert float(refused.headers["retry-after"]) > 0
        await asyncio.sleep(1)
        assert streaming.is_open
    finally:
        os.kill(pid, signal.SIGCONT)
    back_s = await until(lambda: is_ready(server), _RESTART_S)
    assert judge(await streaming.end(), truth) == "finished"
    assert engine_processes(server)[name] == pid
    await assert_answers(server, truth)
    tell(
        f"SIGSTOP of {name} while streaming (stall_s = {_STALL_S})",
        {
            "not ready after": f"{off_s:.1f} s",
            "ready again after SIGCONT": f"{back_s:.2f} s",
            "stream": "whole",
        },
    )


@pytest.mark.parametrize("name", ENGINE)
async def test_a_process_that_freezes_while_idle_is_found_by_the_canary(
    server: ServerProcess, truth: Truth, name: str, tell: Tell
) -> None:
    pid = engine_processes(server)[name]
    os.kill(pid, signal.SIGSTOP)
    try:
        off_s = await until(lambda: not is_ready(server), _CANARY_S + _STALL_S + 5)
    finally:
        os.kill(pid, signal.SIGCONT)
    back_s = await until(lambda: is_ready(server), _RESTART_S)
    await assert_answers(server, truth)
    tell(
        f"SIGSTOP of {name} while idle (canary_s = {_CANARY_S}, stall_s = {_STALL_S})",
        {"not ready after": f"{off_s:.1f} s", "ready again after SIGCONT": f"{back_s:.2f} s"},
    )


@pytest.mark.parametrize("name", ENGINE)
@pytest.mark.parametrize("streams", [True, False], ids=["streaming", "idle"])
async def test_a_killed_process_ends_its_stream_with_an_error_and_is_replaced(
    server: ServerProcess, truth: Truth, name: str, streams: bool, tell: Tell
) -> None:
    before = engine_processes(server)
    streaming = await Streaming.begin(server) if streams else None
    os.kill(before[name], signal.SIGKILL)
    ending = "none was open"
    killed_at = time.monotonic()
    if streaming is not None:
        ending = judge(await streaming.end(), truth)
        assert ending == "error event engine_died"
    told_s = time.monotonic() - killed_at
    off_s = await until(lambda: not is_ready(server), _CANARY_S + _STALL_S + 5)
    ready_s = await until(lambda: is_ready(server), _START_S)
    assert not set(before.values()) & session_processes(server.process.pid)
    await assert_answers(server, truth)
    tell(
        f"SIGKILL of {name}, {'streaming' if streams else 'idle'}",
        {
            "stream": f"{ending}, after {told_s:.2f} s",
            "not ready after": f"{told_s + off_s:.2f} s",
            "ready again after": f"{told_s + off_s + ready_s:.0f} s",
        },
    )


@pytest.mark.parametrize("name", ENGINE)
async def test_a_process_that_stays_frozen_is_replaced_and_its_stream_is_told(
    server: ServerProcess, truth: Truth, name: str, tell: Tell
) -> None:
    before = engine_processes(server)
    streaming = await Streaming.begin(server)
    os.kill(before[name], signal.SIGSTOP)
    frozen_at = time.monotonic()
    ending = judge(await streaming.end(), truth)
    told_s = time.monotonic() - frozen_at
    assert ending == "error event engine_died"
    ready_s = await until(lambda: is_ready(server), _START_S)
    assert not set(before.values()) & session_processes(server.process.pid)
    await assert_answers(server, truth)
    tell(
        f"{name} stays frozen (stall_s = {_STALL_S}, stall_restart_s = {_RESTART_S})",
        {
            "stream": f"{ending}, after {told_s:.1f} s",
            "another engine ready after": f"{told_s + ready_s:.0f} s",
            "processes left behind": 0,
        },
    )


async def test_sigterm_ends_the_stream_and_takes_the_engine_along(server: ServerProcess, tell: Tell) -> None:
    """The last one: it ends the server that the others share."""
    streaming = await Streaming.begin(server, BODY | {"max_tokens": 1_000})
    server.process.send_signal(signal.SIGTERM)
    began_at = time.monotonic()
    stream = stream_of(await streaming.end())
    told_s = time.monotonic() - began_at
    code = await asyncio.to_thread(server.process.wait, 60)
    exited_s = time.monotonic() - began_at
    # Python's own resource tracker goes when its parent has gone.
    gone_s = exited_s + await until(lambda: not session_processes(server.process.pid), 5)
    tell(
        f"SIGTERM to the server with the real engine, grace {_GRACE_S} s",
        {
            "stream": f"shutting_down, after {told_s:.2f} s",
            "process gone after": f"{exited_s:.2f} s",
            "every process gone after": f"{gone_s:.2f} s",
        },
    )
    assert stream.done
    assert stream.finish_reasons == []
    assert stream.error is not None
    assert stream.error["code"] == "shutting_down"
    assert code == 0
    assert exited_s <= _GRACE_S + 2
