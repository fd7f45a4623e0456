"""The contract of `LedgerStore`: every implementation passes every test here."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from redis_server import RedisServer, running_redis
from server.context.ledger_store import LedgerStore
from server.context.memory_store import MemoryStore
from server.context.redis_store import RedisStore

pytestmark = pytest.mark.anyio

ANY_TIME_MS = 60_000
"""No test here is about being late."""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(params=["memory", "redis", "redis alone"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[LedgerStore]:
    made: LedgerStore
    if request.param == "memory":
        made = MemoryStore(1 << 24)
    else:
        # With a fallback that holds nothing, what is found was found there.
        fallback = MemoryStore(1 << 24 if request.param == "redis" else 0)
        redis: RedisServer = request.getfixturevalue("redis")
        made = RedisStore(redis.url, ANY_TIME_MS, 3_600, uuid.uuid4().hex, fallback)
    yield made
    if isinstance(made, RedisStore):
        assert not made.errors
    await made.close()


def conversation(name: str, n_messages: int) -> dict[bytes, bytes]:
    return {f"{name}/{i}".encode(): f"{name} says {i}".encode() for i in range(n_messages)}


async def test_nothing_is_known_at_first(store: LedgerStore) -> None:
    assert await store.get([b"a", b"b"]) == []


async def test_what_was_put_is_found_in_the_order_asked(store: LedgerStore) -> None:
    said = conversation("a", 5)
    await store.put(said)
    assert await store.get(list(said)) == list(said.values())
    assert await store.get(list(said)[:2]) == list(said.values())[:2]


async def test_the_list_ends_before_the_first_unknown_key(store: LedgerStore) -> None:
    await store.put({b"1": b"one", b"2": b"two", b"4": b"four"})
    assert await store.get([b"1", b"2", b"3", b"4"]) == [b"one", b"two"]
    assert await store.get([b"3", b"1"]) == []


async def test_a_value_is_replaced(store: LedgerStore) -> None:
    await store.put({b"1": b"one", b"2": b"two"})
    await store.put({b"1": b"uno"})
    assert await store.get([b"1", b"2"]) == [b"uno", b"two"]


async def test_a_conversation_grows_message_by_message(store: LedgerStore) -> None:
    said = conversation("a", 12)
    keys = list(said)
    for end in range(0, 12, 2):
        assert len(await store.get(keys[: end + 1])) == end
        await store.put({key: said[key] for key in keys[end : end + 2]}, after=keys[:end])
    assert await store.get(keys) == list(said.values())


async def test_branches_share_their_beginning(store: LedgerStore) -> None:
    await store.put({b"r": b"root"})
    await store.put({b"r1": b"one"}, after=[b"r"])
    await store.put({b"r2": b"two"}, after=[b"r"])
    assert await store.get([b"r", b"r1"]) == [b"root", b"one"]
    assert await store.get([b"r", b"r2"]) == [b"root", b"two"]


@pytest.mark.parametrize("said", [{}, {b"": b""}, {b"k": b""}], ids=["nothing", "empty key", "empty value"])
async def test_emptiness_is_no_special_case(store: LedgerStore, said: dict[bytes, bytes]) -> None:
    await store.put(said)
    assert await store.get(list(said)) == list(said.values())


async def test_any_bytes_are_keys_and_values(store: LedgerStore) -> None:
    chance = random.Random(7)
    said = {chance.randbytes(16) + b"\r\n*$": chance.randbytes(2_000) + b"\r\n\x00" for _ in range(20)}
    await store.put(said)
    assert await store.get(list(said)) == list(said.values())


async def test_a_thousand_keys_at_once(store: LedgerStore) -> None:
    said = {os.urandom(16): os.urandom(400) for _ in range(1_000)}
    await store.put(said)
    assert await store.get(list(said)) == list(said.values())
    assert await store.get([*list(said)[:999], b"?"]) == list(said.values())[:999]


async def test_many_at_a_time_keep_theirs_apart(store: LedgerStore) -> None:
    async def converse(name: str) -> None:
        said = conversation(name, 8)
        for key, value in said.items():
            await store.put({key: value})
            known = await store.get(list(said))
            assert known == list(said.values())[: len(known)]
            assert value in known

    async with asyncio.TaskGroup() as tasks:
        for n in range(64):
            tasks.create_task(converse(f"c{n}"))


async def test_callers_that_went_away_leave_no_wrong_answers(store: LedgerStore) -> None:
    """An answer that nobody took must not be the next caller's."""
    chats = [conversation(f"c{n}", 1 + n % 7) for n in range(40)]
    for said in chats:
        await store.put(said)
    chance = random.Random(3)
    for _ in range(30):
        tasks = [asyncio.create_task(store.get(list(said))) for said in chats]
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
        gone = chance.sample(tasks, 20)
        for task in gone:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for said, answer in zip(chats, answers, strict=True):
            assert isinstance(answer, asyncio.CancelledError) or answer == list(said.values())


async def test_closing_twice_is_closing_once(store: LedgerStore) -> None:
    await store.put({b"1": b"one"})
    await store.close()
    await store.close()
    assert await store.get([b"2"]) == []
