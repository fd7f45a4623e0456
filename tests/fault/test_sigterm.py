"""SIGTERM with fifty turns in every state: each ends once, and the process goes in time with all it started."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fault.client import Connection, Cut
from fault.conftest import Tell
from fault.judge import Truth, judge, stream_of, texts_of
from fault.size import pick
from fault.vitals import gauge, session_processes, simulated_server
from gateways import ServerProcess
from server.context.template import ChatTemplate
from server.engine.protocol import GenerateRequest, Sampling
from server.engine.script import Script
from wire import question

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(pick(120, 600))]

_RUNNING = 40
_INTERVAL_MS = 20.0
_GRACE_S = pick(3.0, 6.0)
_REPLY = "Whoever shuts down a server lets its guests finish their glass, says when it is time, and goes. 👋 "
_SHORT_TOKENS, _LONG_TOKENS = 60, 2_000
"""1.2 s, inside the grace; 40 s, beyond it."""


@dataclass(slots=True)
class Guest:
    """One turn, and how it may end."""

    body: dict[str, Any]
    endings: set[str]
    n_tokens: int
    reads: bool = True
    ending: str = ""


def guests() -> list[Guest]:
    """The first forty run, the others wait."""
    finished, told = {"finished"}, {"error event shutting_down"}
    short = question("short", stream=True, max_tokens=_SHORT_TOKENS, ignore_eos=True)
    long = question("long", stream=True, max_tokens=_LONG_TOKENS, ignore_eos=True)
    loud = long | {"n": 4, "logprobs": True, "top_logprobs": 20}
    return [
        *(Guest(short, finished, _SHORT_TOKENS) for _ in range(18)),
        *(Guest(long, told, _LONG_TOKENS) for _ in range(16)),
        Guest(short | {"stream": False}, finished, _SHORT_TOKENS),
        Guest(long | {"stream": False}, {"503 shutting_down"}, _LONG_TOKENS),
        *(Guest(loud, set(), _LONG_TOKENS, reads=False) for _ in range(_RUNNING - 36)),
        *(Guest(short, {"503 shutting_down"}, _SHORT_TOKENS) for _ in range(14)),
    ]


def said(n_tokens: int, template: ChatTemplate) -> str:
    request = GenerateRequest("", [0], Sampling(max_tokens=n_tokens, ignore_eos=True))
    answer = Script(_REPLY, template).answer(request, 0, 0)
    return "".join(answer.next_delta(None).text for _ in range(n_tokens))


async def be_served(guest: Guest, connection: Connection, template: ChatTemplate) -> None:
    try:
        response = await connection.read()
    except Cut as cut:
        guest.ending = f"cut: {cut}"
        return
    truth = Truth([said(guest.n_tokens, template)], ["length"], guest.n_tokens)
    guest.ending = judge(response, truth)


async def is_ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"GET /health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return (await reader.readline()).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
    finally:
        writer.close()


async def until_not_ready(server: ServerProcess) -> float:
    """The seconds it took."""
    began_at = time.monotonic()
    while await is_ready(server.port):
        assert time.monotonic() - began_at < 10
        await asyncio.sleep(0.002)
    return time.monotonic() - began_at


async def until_all_are_in(server: ServerProcess) -> None:
    async with asyncio.timeout(30):
        while (
            await asyncio.to_thread(gauge, server, "firstword_active_streams") < _RUNNING
            or await asyncio.to_thread(gauge, server, "firstword_queue_depth") < 14
        ):
            await asyncio.sleep(0.02)


async def test_every_turn_ends_once_and_the_process_goes_in_time(
    tmp_path: Path, chat_model_path: Path, knowledge: Path, template: ChatTemplate, tell: Tell
) -> None:
    with simulated_server(
        tmp_path,
        chat_model_path,
        knowledge,
        engine__simulated__token_interval_ms=_INTERVAL_MS,
        engine__simulated__reply=_REPLY,
        http__shutdown_grace_s=_GRACE_S,
        admission__max_running_turns=_RUNNING,
        admission__max_prefill_tokens=1_000_000,
    ) as server:
        everyone = guests()
        connections = []
        for guest in everyone:
            connection = await Connection.open(server.port, None if guest.reads else 2_048)
            await connection.send(guest.body)
            connections.append(connection)
            await asyncio.sleep(0.001)
        idle = await Connection.open(server.port)
        unfinished = await Connection.open(server.port)
        await unfinished.send(everyone[0].body, share=0.5)
        serving = [
            asyncio.create_task(be_served(guest, connection, template))
            for guest, connection in zip(everyone, connections, strict=True)
            if guest.reads
        ]
        await until_all_are_in(server)

        server.process.send_signal(signal.SIGTERM)
        began_at = time.monotonic()
        off_s = await until_not_ready(server)
        code = await asyncio.to_thread(server.process.wait, 60)
        exited_s = time.monotonic() - began_at
        await asyncio.gather(*serving)
        left_behind = session_processes(server.process.pid)
        for connection, guest in zip(connections, everyone, strict=True):
            if not guest.reads:
                guest.ending = await what_the_stalled_find(connection, template)
        for connection in (*connections, idle, unfinished):
            connection.leave()

    counts = Counter(guest.ending for guest in everyone)
    tell(
        f"SIGTERM with {len(everyone)} turns open, grace {_GRACE_S:.0f} s",
        {
            **counts,
            "readiness off after": f"{off_s * 1_000:.0f} ms",
            "process gone after": f"{exited_s:.2f} s",
            "processes left behind": len(left_behind),
        },
    )
    wrong = [
        f"{guest.body['messages']}: {guest.ending}"
        for guest in everyone
        if guest.reads and guest.ending not in guest.endings
    ]
    assert not wrong
    assert code == 0, server.output
    assert "Traceback" not in server.output
    assert not left_behind
    assert off_s < pick(2.0, 0.1)
    assert exited_s <= _GRACE_S + pick(6.0, 2.0)


async def what_the_stalled_find(connection: Connection, template: ChatTemplate) -> str:
    """A beginning of what was said, told as unfinished one way or the other."""
    try:
        async with asyncio.timeout(5):
            await connection.read()
    except Cut:
        pass
    stream = stream_of(connection.reader.response)
    assert stream.finish_reasons == []
    whole = said(_LONG_TOKENS, template)
    assert all(whole.startswith(text) for text in texts_of(stream, 4))
    return "a stalled reader, cut" if stream.error is None else "a stalled reader, told"
