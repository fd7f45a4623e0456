"""SIGTERM to a server process with streams open."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateways import ServerProcess
from wire import CHAT, Stream, question, take_apart

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


@pytest.fixture(params=[2.0, 30.0], ids=["short grace", "long grace"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, chat_model_path: Path, knowledge: Path
) -> Iterator[ServerProcess]:
    server = ServerProcess(
        [],
        {
            "FIRSTWORD_DATA_DIR": str(tmp_path / "var"),
            "FIRSTWORD_ENGINE__KIND": "simulated",
            "FIRSTWORD_ENGINE__MODEL": str(chat_model_path),
            "FIRSTWORD_ENGINE__SIMULATED__TOKEN_INTERVAL_MS": "100",
            "FIRSTWORD_ENGINE__TOOL_PARSER": "",  # spares the server its import of vLLM
            "FIRSTWORD_RETRIEVAL__EMBEDDER_KIND": "hashing",
            "FIRSTWORD_RETRIEVAL__SAMPLE_KNOWLEDGE": str(knowledge),
            "FIRSTWORD_HTTP__SHUTDOWN_GRACE_S": str(request.param),
        },
    )
    server.wait_ready(100)
    yield server
    server.stop()


async def stream(server: ServerProcess, max_tokens: int) -> Stream:
    body = question(stream=True, max_tokens=max_tokens, ignore_eos=True)
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client,
        client.stream("POST", CHAT, json=body) as response,
    ):
        return take_apart(response.status_code, response.headers, await response.aread())


async def test_every_stream_ends_once_and_nothing_is_left(
    server: ServerProcess, request: pytest.FixtureRequest
) -> None:
    lengths = [5, 60, 60] if "long" in request.node.name else [5, 2_000, 2_000]
    asking = [asyncio.create_task(stream(server, length)) for length in lengths]
    await asyncio.sleep(1.5)
    server.process.send_signal(signal.SIGTERM)
    streams = await asyncio.gather(*asking)
    code = await asyncio.to_thread(server.process.wait, 60)
    assert code == 0
    for found in streams:
        assert found.done
        assert (found.error is None) == (len(found.finish_reasons) == 1)
    ended = [found.error["code"] if found.error else found.finish_reasons[0] for found in streams]
    if "long" in request.node.name:
        assert ended == ["length"] * 3
    else:
        assert ended == ["length", "shutting_down", "shutting_down"]
    with pytest.raises(ProcessLookupError):
        os.killpg(server.process.pid, 0)
