"""What every `VectorIndex` keeps to: exact search, and searches that see whole contents."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from retrieval.index import FaissIndex
from retrieval.types import ChunkKeys, VectorIndex, Vectors

pytestmark = pytest.mark.anyio
DIM = 16


@pytest.fixture(params=[FaissIndex], ids=["faiss"])
def index(request: pytest.FixtureRequest) -> Iterator[VectorIndex]:
    index: VectorIndex = request.param(DIM)
    yield index
    index.close()


def corpus(rng: np.random.Generator, n: int) -> tuple[ChunkKeys, Vectors]:
    """Small integers as components, so that scores are exact in float32 and many of them are equal."""
    vectors = rng.integers(-1, 2, size=(n, DIM)).astype(np.float32)
    keys = rng.permutation(10 * n)[:n].astype(np.int64)
    return keys, vectors


def exact(keys: ChunkKeys, vectors: Vectors, query: Vectors, top_k: int) -> list[tuple[int, float]]:
    scores = vectors @ query[0]
    order = np.lexsort((keys, -scores))[:top_k]
    return [(int(keys[row]), float(scores[row])) for row in order]


async def test_search_equals_numpy_ties_by_key(index: VectorIndex):
    rng = np.random.default_rng(7)
    n_ties = 0
    for _ in range(100):
        keys, vectors = corpus(rng, int(rng.integers(1, 400)))
        await index.replace(keys, vectors)
        assert len(index) == len(keys)
        query = rng.integers(-1, 2, size=(1, DIM)).astype(np.float32)
        for top_k in (1, 5, len(keys), len(keys) + 3):
            expected = exact(keys, vectors, query, top_k)
            assert await index.search(query, top_k) == expected
            n_ties += len(expected) - len({score for _, score in expected})
    assert n_ties > 1000  # the corpora do hold what the test is about


async def test_search_equals_numpy_on_unit_vectors(index: VectorIndex):
    rng = np.random.default_rng(8)
    vectors = rng.normal(size=(500, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    keys = np.arange(500, dtype=np.int64)
    await index.replace(keys, vectors)
    for row in range(50):
        found = await index.search(vectors[row : row + 1], 10)
        expected = exact(keys, vectors, vectors[row : row + 1], 10)
        assert [key for key, _ in found] == [key for key, _ in expected]
        np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], atol=1e-6)
        assert found[0] == (row, pytest.approx(1.0, abs=1e-6))


async def test_an_empty_index_finds_nothing(index: VectorIndex):
    query = np.ones((1, DIM), dtype=np.float32)
    assert await index.search(query, 5) == []
    await index.replace(np.array([3], dtype=np.int64), query)
    assert await index.search(query, 0) == []
    await index.replace(np.empty(0, dtype=np.int64), np.empty((0, DIM), dtype=np.float32))
    assert len(index) == 0
    assert await index.search(query, 5) == []


async def test_the_caller_may_reuse_its_arrays(index: VectorIndex):
    keys, vectors = np.array([1], dtype=np.int64), np.ones((1, DIM), dtype=np.float32)
    await index.replace(keys, vectors)
    keys[:], vectors[:] = 9, 0
    assert await index.search(np.ones((1, DIM), dtype=np.float32), 1) == [(1, DIM)]


async def test_wrong_shapes_are_refused(index: VectorIndex):
    ones = np.ones((2, DIM), dtype=np.float32)
    with pytest.raises(ValueError, match="expected"):
        await index.replace(np.arange(3, dtype=np.int64), ones)
    with pytest.raises(ValueError, match="expected"):
        await index.replace(np.arange(2, dtype=np.int64), ones[:, :4])
    for query in (ones, ones[:1, :4], ones[0]):
        with pytest.raises(ValueError, match="expected"):
            await index.search(query, 1)


async def test_searches_during_replaces_see_one_content(index: VectorIndex):
    query = np.ones((1, DIM), dtype=np.float32)
    contents = [
        (np.arange(n * 1000, n * 1000 + 200, dtype=np.int64), query.repeat(200, 0) * n) for n in (1, 2, 3)
    ]
    await index.replace(*contents[0])

    async def search() -> None:
        for _ in range(100):
            hits = await index.search(query, 50)
            assert len(hits) == 50
            assert len({key // 1000 for key, _ in hits} | {int(score) // DIM for _, score in hits}) == 1

    async def replace() -> None:
        for n in range(60):
            await index.replace(*contents[n % 3])

    await asyncio.gather(search(), search(), search(), replace())


async def test_close_ends_the_owner_thread():
    before = set(threading.enumerate())
    index = FaissIndex(DIM)
    await index.search(np.ones((1, DIM), dtype=np.float32), 1)
    await index.replace(np.array([1], dtype=np.int64), np.ones((1, DIM), dtype=np.float32))
    assert len(set(threading.enumerate()) - before) == 1
    index.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(RuntimeError):
        await index.search(np.ones((1, DIM), dtype=np.float32), 1)
