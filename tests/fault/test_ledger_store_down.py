"""A shared ledger that is gone, frozen, closed to us or not Redis at all: turns go on without it, and it comes back."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from redis_server import RedisServer, running_redis
from server.context.memory_store import MemoryStore
from server.context.redis_store import RedisStore

pytestmark = pytest.mark.anyio

PASSWORD = "s3cr3t-pass"
REST_S = 0.05
SAID = {b"1": b"what was asked", b"2": b"what was answered"}
KEYS = list(SAID)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@asynccontextmanager
async def opened(
    url: str, timeout_ms: float = 2_000, fallback_bytes: int = 1 << 20
) -> AsyncIterator[RedisStore]:
    store = RedisStore(url, timeout_ms, 3_600, "test", MemoryStore(fallback_bytes), rest_s=REST_S)
    try:
        yield store
    finally:
        await store.close()


async def comes_back(store: RedisStore) -> None:
    """It is tried again by one `put` after each rest."""
    for _ in range(200):
        await asyncio.sleep(REST_S)
        await store.put({b"probe": b""})
        if store.up:
            return
    pytest.fail("the shared ledger is up and not used")


def state_changes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records if record.name == "server.context.redis_store"]


async def goes_on_without(store: RedisStore) -> None:
    await store.put(SAID)
    for _ in range(20):
        assert await store.get(KEYS) == list(SAID.values())
    assert not store.up
    assert store.errors


async def test_killed_in_mid_use_and_started_again(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with opened(redis.url) as store:
        await store.put(SAID)
        assert await store.get(KEYS) == list(SAID.values())
        asking = [asyncio.create_task(store.get(KEYS)) for _ in range(50)]
        await asyncio.sleep(0)
        redis.kill()
        assert await asyncio.gather(*asking) == [list(SAID.values())] * 50
        await goes_on_without(store)
        redis.start()
        await comes_back(store)
        await store.put({b"new": b"value"})
        async with opened(redis.url) as other:
            assert await other.get([b"new"]) == [b"value"]
    assert state_changes(caplog) == ["WARNING", "INFO"]


async def test_connections_that_a_restart_broke_fail_no_turn(redis: RedisServer) -> None:
    async with opened(redis.url) as store:
        await asyncio.gather(*(store.put({bytes([n]): b"."}) for n in range(32)))
        redis.kill()
        redis.start()
        await asyncio.gather(*(store.put({bytes([n]): b"."}) for n in range(32)))
        assert store.up
        assert store.errors == 0


async def test_frozen_it_is_waited_for_twice_and_then_left_alone(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with opened(redis.url, timeout_ms=100) as store:
        await store.put(SAID)
        with redis.frozen():
            first = [store.get(KEYS) for _ in range(40)]
            assert await asyncio.gather(*first) == [list(SAID.values())] * 40
            assert store.up, "what runs at one time is one silence"
            assert await store.get(KEYS) == list(SAID.values())
            assert not store.up
            n_errors = store.errors
            for _ in range(20):
                assert await store.get(KEYS) == list(SAID.values())
            assert store.errors == n_errors, "only puts find out whether it is back"
        await comes_back(store)
        for _ in range(5):
            await asyncio.gather(*(store.get(KEYS) for _ in range(40)))
        assert store.up, "the connections that were given up left room for others"
    assert state_changes(caplog) == ["WARNING", "INFO"]


async def test_when_its_rest_is_over_one_put_tries_it(redis: RedisServer) -> None:
    store = RedisStore(redis.url, 2_000, 3_600, "test", MemoryStore(1 << 20), rest_s=60)
    redis.kill()
    await goes_on_without(store)
    for tries in (0, 1):
        n_errors = store.errors
        if tries:
            store._left_alone_until = 0.0
        await asyncio.gather(*(store.put(SAID) for _ in range(50)))
        assert store.errors == n_errors + tries
    await store.close()


async def test_one_that_was_late_once_is_asked_again(redis: RedisServer) -> None:
    async with opened(redis.url, timeout_ms=100, fallback_bytes=0) as store:
        await store.put(SAID)
        with redis.frozen():
            assert await store.get(KEYS) == []
        for _ in range(200):  # it takes its time to wake up
            if await store.get(KEYS) == list(SAID.values()):
                break
            await asyncio.sleep(REST_S)
            await store.put({b"probe": b""})
        assert await store.get(KEYS) == list(SAID.values())


async def test_what_was_put_while_it_was_down_is_known_after(redis: RedisServer) -> None:
    async with opened(redis.url) as store:
        await store.put({b"1": SAID[b"1"]})
        redis.kill()
        await store.put({b"2": SAID[b"2"]}, after=[b"1"])
        redis.start()
        await comes_back(store)
        assert await store.get(KEYS) == list(SAID.values())


async def test_a_wrong_password_is_told_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with running_redis("--requirepass", "another") as redis:
        async with opened(f"unix://:{PASSWORD}@{redis.socket}") as store:
            await goes_on_without(store)
        async with opened(f"unix://:another@{redis.socket}") as store:
            await store.put(SAID)
            assert store.up
    assert state_changes(caplog) == ["WARNING"]
    assert "AuthenticationError" in caplog.text
    assert PASSWORD not in caplog.text


async def test_a_server_that_is_full_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with running_redis("--maxmemory", "1kb") as redis:
        async with opened(redis.url) as store:
            await goes_on_without(store)
    assert state_changes(caplog) == ["WARNING"]
    assert "answered" not in caplog.text, "the server's words may quote what was said"


async def test_another_kind_of_value_under_a_key_is_unknown_and_replaced(redis: RedisServer) -> None:
    async with opened(redis.url, fallback_bytes=0) as store:
        client = store._client
        await client.rpush(store._prefix + b"1", "a list")
        await store.put({b"2": b"two"})
        assert await store.get([b"1", b"2"]) == []
        assert store.up
        await store.put({b"1": b"one"})
        assert await store.get([b"1", b"2"]) == [b"one", b"two"]


@pytest.mark.parametrize("damage", [b"", b"abc", b"other", None], ids=["empty", "short", "foreign", "moved"])
async def test_a_value_that_is_not_ours_is_unknown(redis: RedisServer, damage: bytes | None) -> None:
    async with opened(redis.url, fallback_bytes=0) as store:
        client = store._client
        await store.put({b"1": b"one", b"2": b"two", b"3": b"three"})
        moved = await client.get(store._prefix + b"3")
        await client.set(store._prefix + b"2", moved if damage is None else damage)
        assert await store.get([b"1", b"2", b"3"]) == [b"one"]
        assert store.errors == 1
        assert store.up


RUBBISH = {
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "noise": bytes(range(256)),
    "wrong length": b"*1\r\n$1\r\nx\r\n" * 100,
    "no list": b":7\r\n" * 100,
    "no numbers": b"*x\r\n$y\r\n" * 10,
    "negative": b"*-7\r\n" * 10,
    "texts": b"*2\r\n+1\r\n:2\r\n" * 100,
    "nested": b"*1\r\n" * 100_000,
    "refusal": b"-ERR what was asked\r\n" * 100,
    "moved": b"-MOVED 1 x\r\n" * 100,
    "nothing": b"",
}


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH.keys())
async def test_something_else_at_that_address(
    tmp_path: Path, rubbish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(1)
            writer.write(rubbish)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_unix_server(answer, tmp_path / "s")
    async with listening, opened(f"unix://{tmp_path / 's'}", timeout_ms=500) as store:
        await goes_on_without(store)
    assert state_changes(caplog) == ["WARNING"]
    assert "what was asked" not in caplog.text


async def test_nobody_at_that_address(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        async with opened(f"redis://user:{PASSWORD}@127.0.0.1:{port}/3") as store:
            await goes_on_without(store)
            assert store.errors <= 2
    assert f"127.0.0.1:{port}" in caplog.text
    assert PASSWORD not in caplog.text
    assert state_changes(caplog) == ["WARNING"]


async def test_two_gateways_share(redis: RedisServer) -> None:
    async with opened(redis.url) as one, opened(redis.url) as other:
        await one.put({b"1": b"one"})
        assert await other.get([b"1", b"2"]) == [b"one"]
        await other.put({b"2": b"two"}, after=[b"1"])
        assert await one.get([b"1", b"2"]) == [b"one", b"two"]
        redis.kill()
        assert await one.get([b"1", b"2"]) == [b"one", b"two"], "what was read there is known here"
    elsewhere = RedisStore(redis.url, 2_000, 3_600, "another model", MemoryStore(0))
    redis.start()
    assert await elsewhere.get([b"1"]) == []
    await elsewhere.close()


async def test_what_is_used_lives_on_and_what_is_not_ends(redis: RedisServer) -> None:
    store = RedisStore(redis.url, 2_000, 100, "test", MemoryStore(0))
    client = store._client
    await store.put({b"used": b"1", b"unused": b"2"})
    names = [store._prefix + b"used", store._prefix + b"unused"]
    for name in names:
        assert 0 < await client.ttl(name) <= 100
        await client.expire(name, 10)
    store._renewed.missing([])
    await store.get([b"used"])
    assert await client.ttl(names[0]) <= 10, "not in every turn"
    store._renewed._ends_at = 0.0
    await store.get([b"used"])
    assert await client.ttl(names[0]) > 10
    assert await client.ttl(names[1]) <= 10
    await store.close()


async def test_an_expired_conversation_is_unknown(redis: RedisServer) -> None:
    store = RedisStore(redis.url, 2_000, 0.001, "test", MemoryStore(0))
    await store.put(SAID)
    await asyncio.sleep(0.05)
    assert await store.get(KEYS) == []
    assert store.errors == 0
    await store.close()


async def test_no_connection_is_left(redis: RedisServer) -> None:
    async with opened(redis.url) as watcher:
        before = len(await watcher._client.client_list())
        async with opened(redis.url) as store:
            tasks = [asyncio.create_task(store.get(KEYS)) for _ in range(200)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert len(await watcher._client.client_list()) <= before + 17
        for _ in range(100):
            if len(await watcher._client.client_list()) <= before + 1:
                break
            await asyncio.sleep(0.01)
        assert len(await watcher._client.client_list()) <= before + 1
