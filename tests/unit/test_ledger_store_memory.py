"""What the memory store holds is bounded in bytes, and of every conversation it is the beginning."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.context.memory_store import MemoryStore


async def held(store: MemoryStore, keys: list[bytes]) -> list[bytes]:
    """Those of `keys` that are known, each for itself; it counts as use, the last as the most recent."""
    return [key for key in keys if await store.get([key])]


@pytest.mark.anyio
async def test_the_least_recently_used_conversation_is_forgotten_first() -> None:
    entry = await bytes_of_one(100)
    store = MemoryStore(3 * entry)
    for key in (b"a", b"b", b"c"):
        await store.put({key: bytes(100)})
    await store.get([b"a"])
    await store.put({b"d": bytes(100)})
    assert await held(store, [b"a", b"b", b"c", b"d"]) == [b"a", b"c", b"d"]
    assert store.evictions == 1


async def bytes_of_one(value_bytes: int) -> int:
    store = MemoryStore(1 << 20)
    await store.put({b"a": bytes(value_bytes)})
    return store.n_bytes


@pytest.mark.anyio
async def test_a_conversation_is_forgotten_from_its_end() -> None:
    entry = await bytes_of_one(100)
    store = MemoryStore(4 * entry)
    keys = [b"1", b"2", b"3", b"4"]
    await store.put({key: bytes(100) for key in keys[:2]})
    await store.put({key: bytes(100) for key in keys[2:]}, after=keys[:2])
    await store.put({b"x": bytes(100)})
    assert len(await store.get(keys)) == 3
    await store.put({b"y": bytes(100), b"z": bytes(100)}, after=[b"x"])
    assert await held(store, keys) == [b"1"]


@pytest.mark.anyio
async def test_what_follows_a_forgotten_message_is_not_kept() -> None:
    store = MemoryStore(1 << 20)
    await store.put({b"2": b"two", b"3": b"three"}, after=[b"1"])
    assert store.n_entries == store.n_bytes == 0


@pytest.mark.anyio
async def test_a_value_larger_than_the_store_is_not_kept_nor_what_follows_it() -> None:
    store = MemoryStore(1_000)
    await store.put({b"1": b"one", b"2": b"two", b"3": b"three"})
    await store.put({b"1": b"one", b"2": bytes(2_000), b"3": b"three"})
    assert await held(store, [b"1", b"2", b"3"]) == [b"1"]
    assert store.evictions == 0


@pytest.mark.anyio
async def test_figures() -> None:
    store = MemoryStore(1 << 20)
    await store.put({b"1": bytes(10), b"2": bytes(20)})
    one_size = store.n_bytes
    await store.get([b"1", b"2", b"3"])
    await store.get([b"3", b"1"])
    assert (store.n_entries, store.hits, store.misses, store.evictions) == (2, 2, 3, 0)
    await store.put({b"1": bytes(20), b"2": bytes(10)})
    assert store.n_bytes == one_size


@pytest.mark.anyio
@pytest.mark.parametrize("value_bytes", [0, 40, 600, 5_000])
async def test_the_bound_is_what_memory_it_takes(value_bytes: int) -> None:
    """Filled far beyond it, so that the dictionary has grown and lost entries many times."""
    chance, max_bytes = random.Random(1), 1 << 19
    gc.collect()
    tracemalloc.start()
    try:
        store = MemoryStore(max_bytes)
        written = 0
        while written < 6 * max_bytes:
            await store.put({chance.randbytes(16): chance.randbytes(value_bytes)})
            written += value_bytes + 256
        gc.collect()
        taken_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert store.evictions
    assert 0.9 * max_bytes < store.n_bytes <= max_bytes
    assert taken_bytes < 1.05 * max_bytes


@dataclass(frozen=True)
class Step:
    """A turn goes on from where some turn ended, or from a message ahead of that."""

    goes_on_from: int
    cut: int
    value_bytes: int
    n_new: int
    put_now: bool
    """Or only after others' turns began, as happens while an answer is generated."""


steps = st.lists(
    st.builds(
        Step, st.integers(0, 5), st.integers(0, 5), st.integers(0, 400), st.integers(1, 3), st.booleans()
    ),
    max_size=60,
)


@given(steps, st.integers(0, 6_000))
def test_no_conversation_is_ever_broken_in_the_middle(steps: list[Step], max_bytes: int) -> None:
    asyncio.run(converse(steps, max_bytes))


async def converse(steps: list[Step], max_bytes: int) -> None:
    store = MemoryStore(max_bytes)
    ends: list[tuple[bytes, ...]] = [()]
    running: list[tuple[tuple[bytes, ...], dict[bytes, bytes]]] = []
    for n, step in enumerate(steps):
        end = ends[-1 - step.goes_on_from % len(ends)]
        begin = end[: max(0, len(end) - step.cut)]
        keys = (*begin, *(f"{n}.{i}".encode() for i in range(step.n_new)))
        known = len(await store.get(keys))
        running.append((keys, {key: bytes(step.value_bytes) for key in keys[known:]}))
        if step.put_now:
            for keys, values in running:
                await store.put(values, after=keys)
                ends.append(keys)
            running.clear()
        assert store.n_bytes <= max_bytes
    findable: set[bytes] = set()
    for end in ends:
        findable.update(end[: len(await store.get(end))])
    assert len(findable) == store.n_entries
