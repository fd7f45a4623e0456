"""Exactly one ending per stream, whatever befalls the engine, the client or the server."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from gateways import Gateway, MakeSettings, running
from server.engine.simulated import Fault
from wire import CHAT, Stream, ask, question

pytestmark = pytest.mark.anyio


def client_for(gateway: Gateway) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False)


def assert_whole(stream: Stream) -> None:
    assert (stream.done, stream.error, len(stream.finish_reasons)) == (True, None, 1)


def assert_ended_with(stream: Stream, code: str) -> None:
    assert stream.done
    assert stream.finish_reasons == []
    assert stream.error is not None
    assert stream.error["code"] == code


async def test_an_engine_that_dies_in_mid_answer_ends_the_stream_with_an_error_and_comes_back(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(engine__restart_backoff_s=1, **{"engine.simulated.token_interval_ms": 50.0})
    async with running(settings) as gateway:
        gateway.engine.faults.append(Fault("die", after_tokens=3))
        stream = await ask(gateway.url, question())
        assert stream.text
        assert_ended_with(stream, "engine_died")
        async with client_for(gateway) as client:
            down = await client.get("/health/ready")
            assert down.status_code == 503
            assert down.json()["status"] in ("down", "starting")
            refused = await client.post(CHAT, json=question())
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
            assert "retry-after" in refused.headers
        await gateway.ready()
        assert_whole(await ask(gateway.url, question()))
        assert gateway.parts.engine.restarts == 1


@pytest.mark.parametrize("kind", ["raise", "die"])
async def test_a_failure_before_the_first_token_is_tried_once_more_and_nobody_notices(
    make_settings: MakeSettings, kind: str
) -> None:
    async with running(make_settings()) as gateway:
        whole = await ask(gateway.url, question())
        gateway.engine.faults.append(Fault(kind))
        again = await ask(gateway.url, question())
    assert_whole(again)
    assert again.text[:60] == whole.text[:60]


async def test_a_second_failure_before_the_first_token_is_told_with_its_status(gateway: Gateway) -> None:
    gateway.engine.faults.extend([Fault("raise"), Fault("raise")])
    async with client_for(gateway) as client:
        response = await client.post(CHAT, json=question(stream=True))
        assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert not gateway.engine.faults
    assert_whole(await ask(gateway.url, question()))


async def test_a_failure_after_the_first_token_is_never_tried_again(gateway: Gateway) -> None:
    gateway.engine.faults.append(Fault("raise", after_tokens=1))
    stream = await ask(gateway.url, question())
    assert_ended_with(stream, "internal_error")
    assert stream.text


async def test_when_no_engine_comes_in_time_the_client_is_told(make_settings: MakeSettings) -> None:
    settings = make_settings(engine__restart_backoff_s=30, engine__retry_wait_s=0.2)
    async with running(settings) as gateway, client_for(gateway) as client:
        gateway.engine.faults.append(Fault("die"))
        response = await client.post(CHAT, json=question(stream=True))
    assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_died")


async def test_a_frozen_engine_is_not_ready_and_is_again_once_it_goes_on(make_settings: MakeSettings) -> None:
    settings = make_settings(engine__stall_s=0.4, engine__canary_s=0.2)
    async with running(settings) as gateway, client_for(gateway) as client:
        asking = asyncio.create_task(ask(gateway.url, question(max_tokens=60, ignore_eos=True)))
        while not gateway.engine.cache.blocks_in_use:
            await asyncio.sleep(0.005)
        gateway.engine.stall()
        await until_status(client, 503)
        readiness = (await client.get("/health/ready")).json()
        assert readiness["status"] == "down"
        assert "stands still" in readiness["phase"]
        refused = await client.post(CHAT, json=question())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        gateway.engine.resume()
        assert_whole(await asking)
        await until_status(client, 200)


async def test_an_idle_engine_that_is_frozen_is_found_by_its_canary(make_settings: MakeSettings) -> None:
    settings = make_settings(engine__stall_s=0.4, engine__canary_s=0.2)
    async with running(settings) as gateway, client_for(gateway) as client:
        gateway.engine.stall()
        await until_status(client, 503)
        gateway.engine.resume()
        await until_status(client, 200)


async def test_an_engine_that_stays_frozen_is_replaced_and_its_streams_are_told(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(engine__stall_s=0.3, engine__stall_restart_s=0.3)
    async with running(settings) as gateway:
        gateway.engine.faults.append(Fault("stall", after_tokens=4))
        assert_ended_with(await ask(gateway.url, question()), "engine_died")
        await gateway.ready()
        assert_whole(await ask(gateway.url, question()))


async def until_status(client: httpx.AsyncClient, status: int) -> None:
    give_up = time.monotonic() + 20
    while (await client.get("/health/ready")).status_code != status:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)
