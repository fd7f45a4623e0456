"""What goes wrong, on purpose or not: lines, lost clients, slow readers, faults, full disks."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from target_site import CHAT, Serve, chat, request, standing, text_of

from server.errors import ConfigError, PortInUse
from server.target.connection import Connection, Request
from server.target.log import Log, Record
from server.target.options import TargetOptions
from server.target.run import listen
from server.target.server import Target

pytestmark = pytest.mark.anyio


async def idle(target: Target) -> None:
    """Returns when the engine has no answer under way."""
    while target._engine.load.running_requests or target._engine.load.waiting_requests:
        await asyncio.sleep(0.01)


async def test_when_one_slot_is_taken_then_the_next_waits_in_the_engine(serve: Serve) -> None:
    site = await serve(slots=1, interval_ms=1)
    await asyncio.gather(site.stream(max_tokens=20), site.stream(max_tokens=20))
    first, second = await site.records(2)
    assert second["received_at"] < first["last_token_at"]
    assert second["engine_first_token_at"] > first["last_token_at"]


async def test_when_a_client_vanishes_then_its_slot_is_free_for_the_next(serve: Serve) -> None:
    site = await serve(slots=1, interval_ms=10)
    body = json.dumps(chat(stream=True, max_tokens=1_000_000)).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(request(body, "x-request-id: leaver"))
    await reader.readuntil(b"Word")
    writer.transport.abort()
    await site.stream(max_tokens=1)
    records = await site.records(2)
    assert [record["outcome"] for record in records] == ["client_gone", "ok"]
    assert 1 <= records[0]["tokens"] < 1_000


async def test_when_a_client_waits_in_line_and_vanishes_then_it_is_taken_out(serve: Serve) -> None:
    site = await serve(slots=1, ttft_ms=100)
    body = json.dumps(chat(stream=True, max_tokens=1)).encode()
    writers = [(await asyncio.open_connection("127.0.0.1", site.port))[1] for _ in range(3)]
    for writer in writers:
        writer.write(request(body))
    await asyncio.sleep(0.03)
    for writer in writers[1:]:
        writer.transport.abort()
    outcomes = Counter(record["outcome"] for record in await site.records(3))
    writers[0].close()
    assert outcomes == {"client_gone": 2, "ok": 1}


async def test_when_a_reader_lags_then_its_tokens_are_merged_and_none_is_lost(serve: Serve) -> None:
    site = await serve(interval_ms=0)
    tokens = 40_000
    body = json.dumps(chat(stream=True, max_tokens=tokens, stream_options={"include_usage": True})).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", site.port))
        await loop.sock_sendall(sock, request(body, "connection: close"))
        # Another stream is not held up meanwhile, and the engine is through with this one.
        await site.stream(max_tokens=10)
        await idle(site.target)
        received = bytearray()
        while data := await loop.sock_recv(sock, 1 << 20):
            received += data
    first, slow = await site.records(2)
    assert first["tokens"] == 10
    assert (slow["tokens"], slow["outcome"]) == (tokens, "ok")
    assert slow["frames"] < tokens
    events = [line[6:] for line in received.decode().splitlines() if line.startswith("data: {")]
    text = text_of([json.loads(event) for event in events])
    assert len(text) == 4 * tokens
    assert f'"completion_tokens":{tokens}' in events[-1]


async def test_when_streams_are_cut_then_they_end_without_finish_and_done(serve: Serve) -> None:
    site = await serve(cut_share=1.0)
    chunks, done = await site.stream(max_tokens=10)
    assert not done
    assert len(chunks) == 1 + 5
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
    (record,) = await site.records(1)
    assert (record["outcome"], record["tokens"]) == ("cut", 5)
    await idle(site.target)


@pytest.mark.parametrize(
    ("share", "status", "outcome"), [("refuse_share", 429, "refused"), ("fail_share", 500, "failed")]
)
async def test_when_requests_are_to_fail_then_they_do(
    serve: Serve, share: str, status: int, outcome: str
) -> None:
    site = await serve(**{share: 1.0})
    response = await site.http.post(CHAT, json=chat())
    assert response.status_code == status
    assert ("retry-after" in response.headers) == (status == 429)
    (record,) = await site.records(1)
    assert (record["outcome"], record["status"]) == (outcome, status)


async def test_the_seed_decides_who_fails(serve: Serve, tmp_path: Path) -> None:
    fates = []
    for number, seed in enumerate((3, 3, 4)):
        site = await serve(
            refuse_share=0.3, fail_share=0.3, seed=seed, log=tmp_path / f"{number}.jsonl", tokens=1
        )
        fates.append([(await site.http.post(CHAT, json=chat())).status_code for _ in range(40)])
    assert fates[0] == fates[1] != fates[2]
    assert set(fates[0]) == {200, 429, 500}


async def test_when_connections_are_gone_then_nothing_waits_for_a_collection(serve: Serve) -> None:
    site = await serve()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            await site.raw(request(json.dumps(chat(stream=True)).encode(), "connection: close"))
            await site.raw(b"nonsense\r\n\r\n")
        await site.alone()
        # By type alone: asked for their class, some objects of torch's warn.
        left = [thing for thing in gc.get_objects() if issubclass(type(thing), Connection | Request)]
        assert left == []
    finally:
        gc.enable()


async def test_when_the_target_is_stopped_then_running_streams_are_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    async with standing(path, TargetOptions(ttft_ms=1, interval_ms=20)) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(request(json.dumps(chat(stream=True, max_tokens=1_000)).encode()))
        await reader.readuntil(b"Word")
    assert await reader.read() is not None
    writer.close()
    (record,) = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert record["outcome"] == "stopped"


async def test_when_no_descriptor_is_free_then_accepting_waits_and_goes_on(tmp_path: Path) -> None:
    attempts = []

    class Scarce(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            attempts.append(1)
            if len(attempts) == 1:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    with Scarce(fileno=listen("127.0.0.1", 0).detach()) as listener:
        listener.setblocking(False)
        log = Log(None, asyncio.get_running_loop())
        target = Target(TargetOptions(), listener, log)
        async with httpx.AsyncClient(verify=False) as client:
            response = await client.get(f"http://127.0.0.1:{listener.getsockname()[1]}/health", timeout=20)
        assert response.status_code == 200
        assert len(attempts) < 10
        await target.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
async def test_a_log_that_is_not_whole_is_told_at_the_end() -> None:
    log = Log(Path("/dev/full"), asyncio.get_running_loop())
    log.add(Record(request_id="a", path="/", connection=1, arrived_at=0, received_at=0))
    with pytest.raises(ConfigError, match="not complete"):
        log.close()


def test_a_port_that_is_taken_is_told_with_a_way_out() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(PortInUse, match=f"127.0.0.1:{port}") as raised:
            listen("127.0.0.1", port)
    assert "--port" in raised.value.next_step


async def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--log"):
        Log(tmp_path / "missing" / "log.jsonl", asyncio.get_running_loop())
