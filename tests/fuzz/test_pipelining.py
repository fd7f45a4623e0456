"""Requests that come before the one ahead of them is answered: what fuzzing found, in so many words."""

from __future__ import annotations

import asyncio
import time

import pytest

from fuzz.case import CHAT, post, request
from fuzz.exchange import exchange
from fuzz.seeds import USER, encode
from gateways import Gateway, MakeSettings, running

pytestmark = pytest.mark.anyio

SHORT = post(encode({"messages": [USER], "max_tokens": 2}))


def port_of(gateway: Gateway) -> int:
    return int(gateway.url.rpartition(":")[2])


async def test_a_body_is_not_counted_as_the_headers_of_the_next_request(gateway: Gateway) -> None:
    large = post(encode({"messages": [USER], "max_tokens": 2, "metadata": "m" * 40_000}))
    exchanged = await exchange(port_of(gateway), (large + SHORT[:20], b"", SHORT[20:]), 2)
    assert [response.status for response in exchanged.responses] == [200, 200]


async def test_a_stream_runs_on_while_the_next_request_has_only_begun(make_settings: MakeSettings) -> None:
    async with running(make_settings(http__header_timeout_s=0.3)) as gateway:
        long = {"messages": [USER], "max_tokens": 400, "ignore_eos": True, "stream": True}
        exchanged = await exchange(port_of(gateway), (post(encode(long)), SHORT[:20]), 1)
    assert [response.complete for response in exchanged.responses] == [True]
    assert exchanged.responses[0].body.endswith(b"data: [DONE]\n\n")


async def test_whoever_leaves_ends_the_turn_that_runs_ahead_of_the_next_request(gateway: Gateway) -> None:
    long = post(encode({"messages": [USER], "max_tokens": 3_000, "ignore_eos": True}))
    _, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
    writer.write(long + request())
    async with asyncio.timeout(5):
        while not gateway.engine.load.running_requests:
            await asyncio.sleep(0.005)
    writer.close()
    left_at = time.monotonic()
    while gateway.engine.load.running_requests:
        assert time.monotonic() - left_at < 2, "it goes on for nobody"
        await asyncio.sleep(0.01)


async def test_a_body_that_breaks_its_framing_is_answered(gateway: Gateway) -> None:
    headers = (b"Host: firstword", b"Transfer-Encoding: chunked")
    broken = request(CHAT, headers, method=b"POST", body=b"5\r\nabcde\r\nnonsense\r\n")
    exchanged = await exchange(port_of(gateway), (broken,), 1)
    assert [response.status for response in exchanged.responses] == [400]
    assert b"malformed_request" in exchanged.responses[0].body
