"""A reader that is slow and never stops is no stalled one: it gets everything."""

from __future__ import annotations

import asyncio

import pytest

from fault.baseline import port_of, settled
from fault.client import Connection
from fault.judge import Truth, judge
from fault.stage import Part, Stage
from gateways import MakeSettings, running
from wire import question

pytestmark = pytest.mark.anyio

_SEND_TIMEOUT_S = 0.5
_BYTES_PER_S = 150_000
_ANSWER_BYTES = 600_000
"""Four seconds' reading, eight times the send timeout."""


async def test_a_slow_reader_that_never_stops_gets_everything(
    make_settings: MakeSettings, stage: Stage
) -> None:
    settings = make_settings(http__send_timeout_s=_SEND_TIMEOUT_S)
    word = "slow " * 400
    tokens = [(0, word)] * (_ANSWER_BYTES // len(word))
    truth = Truth([word * len(tokens)], ["stop"], len(tokens))
    stage.parts = {1: Part([tokens]), 2: Part([tokens])}

    async def read(case: int, stream: bool) -> str:
        connection = await Connection.open(port_of(gateway), receive_buffer_bytes=8_192)
        try:
            await connection.send(question(f"case {case}", stream=stream, max_tokens=1_000))
            return judge(await connection.read(_BYTES_PER_S), truth)
        finally:
            connection.leave()

    async with running(settings) as gateway:
        endings = await asyncio.gather(read(1, True), read(2, False), return_exceptions=True)
        await settled(gateway)
    assert list(endings) == ["finished", "finished"]
