"""A stream that breaks off looks like one to the clients people use: none takes it for a whole answer."""

from __future__ import annotations

import httpx
import openai
import pytest

from fault.baseline import port_of, settled
from fault.proxy import Plan, proxied
from gateways import Gateway
from wire import CHAT, events, question

pytestmark = pytest.mark.anyio

PLANS = [Plan(mishap="reset", after_bytes=2_500), Plan(mishap="half_close", after_bytes=2_500)]
"""Some tokens into the answer."""


async def test_httpx_raises_where_the_connection_breaks(gateway: Gateway) -> None:
    n_chunks = 0

    async def read(port: int) -> None:
        nonlocal n_chunks
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
            client.stream("POST", CHAT, json=question(stream=True)) as response,
        ):
            async for chunk in events(response):
                assert chunk["choices"][0]["finish_reason"] is None
                n_chunks += 1

    for plan in PLANS:
        n_chunks = 0
        async with proxied(port_of(gateway), plan, "httpx") as proxy:
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                await read(proxy.port)
        assert n_chunks > 2
    await settled(gateway)


async def test_the_openai_sdk_raises_where_the_connection_breaks(gateway: Gateway) -> None:
    n_chunks = 0

    async def read(port: int) -> None:
        nonlocal n_chunks
        async with openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0
        ) as client:
            stream = await client.chat.completions.create(
                model=gateway.parts.model_name, messages=[{"role": "user", "content": "Hello?"}], stream=True
            )
            async for chunk in stream:
                assert chunk.choices[0].finish_reason is None
                n_chunks += 1

    for plan in PLANS:
        n_chunks = 0
        async with proxied(port_of(gateway), plan, "openai") as proxy:
            with pytest.raises(openai.APIConnectionError):
                await read(proxy.port)
        assert n_chunks > 2
    await settled(gateway)
