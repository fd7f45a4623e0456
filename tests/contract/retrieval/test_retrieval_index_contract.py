"""What every `VectorIndex` keeps to: the best of the selection, exact scores, and searches that see whole contents."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from retrieval.index.faiss_index import FaissIndex
from retrieval.index.kind import IndexChoice
from retrieval.types import Rows, Selection, VectorIndex, Vectors

pytestmark = pytest.mark.anyio
DIM = 16
N_CORPORA = 1_000 if os.environ.get("INDEX_SIZE") == "full" else 200

# Every row is a candidate, so that what a structure proposes is the same as what a scan finds.
WHOLE = {"candidates": 2_000, "probed_share": 1.0, "ef_search": 2_000, "scanned_below": 20, "merge_above": 16}
CHOICES = {
    "flat": IndexChoice("flat"),
    "auto": IndexChoice("auto", device="cpu", flat_below=150, ivf_above=250, **WHOLE),
    "pq": IndexChoice("pq", **WHOLE),
    "ivf": IndexChoice("ivf", **WHOLE),
}


@pytest.fixture(params=CHOICES)
def index(request: pytest.FixtureRequest) -> Iterator[VectorIndex]:
    index: VectorIndex = FaissIndex(DIM, CHOICES[request.param])
    yield index
    index.close()


async def settle(index: VectorIndex) -> None:
    if isinstance(index, FaissIndex):
        await index.settled()


def corpus(rng: np.random.Generator, n: int, keys: np.ndarray | None = None) -> Rows:
    """Small integers as components, so that scores are exact in float32 and many of them are equal."""
    vectors = rng.integers(-1, 2, size=(n, DIM)).astype(np.float32)
    if keys is None:
        keys = rng.permutation(10 * n)[:n].astype(np.int64)
    return Rows(keys, rng.integers(0, 12, size=n), vectors, ())


def rows(keys: list[int], value: float = 1.0, document: int = 0) -> Rows:
    vectors = np.full((len(keys), DIM), value, dtype=np.float32)
    return Rows(np.array(keys, dtype=np.int64), np.full(len(keys), document), vectors, ())


def integers(rng: np.random.Generator, n: int = 1) -> Vectors:
    return rng.integers(-1, 2, size=(n, DIM)).astype(np.float32)


def exact(
    rows: Rows, query: Vectors, top_k: int, selected: np.ndarray | None = None
) -> list[tuple[int, float]]:
    scores = rows.vectors @ query
    order = np.lexsort((rows.keys, -scores))
    if selected is not None:
        order = order[selected[rows.documents[order]]]
    return [(int(rows.keys[row]), float(scores[row])) for row in order[:top_k]]


NOTHING = Rows(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, DIM), np.float32), ())


async def test_search_equals_numpy_ties_by_key(index: VectorIndex, request: pytest.FixtureRequest):
    rng = np.random.default_rng(7)
    n_ties = 0
    for _ in range(N_CORPORA if request.node.callspec.params["index"] == "flat" else 8):
        content = corpus(rng, int(rng.integers(1, 400)))
        half = len(content.keys) // 2
        await index.replace([_slice(content, 0, half), _slice(content, half, None)])
        await settle(index)
        assert len(index) == len(content.keys)
        queries = integers(rng, 2)
        for top_k in (1, 5, len(content.keys), len(content.keys) + 3):
            expected = [exact(content, query, top_k) for query in queries]
            assert await index.search(queries, top_k) == expected
            n_ties += sum(len(hits) - len({score for _, score in hits}) for hits in expected)
    assert n_ties > 500  # the corpora do hold what the test is about


async def test_a_selection_is_searched_as_if_it_were_all_there_is(index: VectorIndex):
    rng = np.random.default_rng(9)
    for _ in range(8):
        content = corpus(rng, 400)
        await index.replace([content])
        await settle(index)
        for share in (0.0, 0.1, 0.5, 0.9, 1.0):
            selected = np.zeros(12, dtype=np.bool_)
            selected[:9] = rng.random(9) < share
            # Documents beyond its end are not selected.
            selection = Selection(("some",), selected[:9], share == 1.0)
            queries = integers(rng, 3)
            for top_k in (1, 7, 500):
                expected = [exact(content, query, top_k, selected) for query in queries]
                assert await index.search(queries, top_k, selection) == expected


async def test_search_equals_numpy_on_unit_vectors(index: VectorIndex):
    rng = np.random.default_rng(8)
    vectors = rng.normal(size=(500, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    content = Rows(np.arange(500), np.zeros(500, np.int64), vectors, ())
    await index.replace([content])
    await settle(index)
    found = await index.search(vectors[:50], 10)
    for row, hits in enumerate(found):
        expected = exact(content, vectors[row], 10)
        assert [key for key, _ in hits] == [key for key, _ in expected]
        np.testing.assert_allclose([s for _, s in hits], [s for _, s in expected], atol=1e-6)
        assert hits[0] == (row, pytest.approx(1.0, abs=1e-6))


async def test_changes_are_seen_by_the_next_search(index: VectorIndex):
    await index.replace([rows(list(range(300)), 1.0)])
    await settle(index)
    query = np.ones((1, DIM), dtype=np.float32)
    await index.change([0, 1, 2, 7_777], rows([300, 301], 2.0))
    assert len(index) == 299
    assert (await index.search(query, 3))[0] == [(300, 2 * DIM), (301, 2 * DIM), (3, DIM)]
    await index.change([300], NOTHING)
    assert (await index.search(query, 2))[0] == [(301, 2 * DIM), (3, DIM)]
    # A key that is there gets the new row, and one that came back is there again.
    await index.change([], rows([3, 0], 3.0))
    assert len(index) == 299
    assert (await index.search(query, 4))[0] == [(0, 48.0), (3, 48.0), (301, 32.0), (4, 16.0)]
    await index.change(list(range(302)), NOTHING)
    assert len(index) == 0
    assert await index.search(query, 3) == [[]]


async def test_a_selection_outlives_changes(index: VectorIndex):
    await index.replace(
        [rows(list(range(200)), 1.0, document=1), rows(list(range(200, 300)), 2.0, document=2)]
    )
    await settle(index)
    selection = Selection(("a",), np.array([False, True]), False)
    query = np.ones((1, DIM), dtype=np.float32)
    assert (await index.search(query, 2, selection))[0] == [(0, 16.0), (1, 16.0)]
    await index.change([0], rows([300], 4.0, document=1))
    await index.change([], rows([301], 5.0, document=2))
    assert (await index.search(query, 2, selection))[0] == [(300, 64.0), (1, 16.0)]


async def test_scores_are_the_exact_inner_products(index: VectorIndex):
    rng = np.random.default_rng(3)
    content = corpus(rng, 300, np.arange(300))
    await index.replace([content])
    await settle(index)
    await index.change([5], rows([300], 1.0))
    query = integers(rng)
    found = await index.scores(query, [7, 5, 300, 7, -1, 99_999])
    assert found[0] == found[3] == float(content.vectors[7] @ query[0])
    assert found[2] == query.sum()
    assert [math.isnan(score) for score in found] == [False, True, False, False, True, True]
    assert await index.scores(query, []) == []


async def test_an_empty_index_finds_nothing(index: VectorIndex):
    query = np.ones((1, DIM), dtype=np.float32)
    assert await index.search(query, 5) == [[]]
    assert await index.search(query[:0], 5) == []
    await index.replace([rows([3])])
    assert await index.search(query, 0) == [[]]
    assert await index.search(query, 5, Selection((), np.zeros(0, np.bool_), True)) == [[]]
    await index.replace([])
    assert len(index) == 0
    assert await index.search(query, 5) == [[]]
    assert np.isnan(await index.scores(query, [3])).all()


async def test_the_caller_may_reuse_its_arrays(index: VectorIndex):
    first, second = rows([1]), rows([2])
    await index.replace([first])
    await index.change([], second)
    for used in (first, second):
        used.keys[:], used.vectors[:] = 9, 0
    assert await index.search(np.ones((1, DIM), dtype=np.float32), 2) == [[(1, DIM), (2, DIM)]]


async def test_wrong_shapes_are_refused(index: VectorIndex):
    good = rows([1, 2])
    for bad in (
        Rows(np.arange(3), good.documents, good.vectors, ()),
        Rows(good.keys, np.arange(3), good.vectors, ()),
        Rows(good.keys, good.documents, good.vectors[:, :4], ()),
    ):
        with pytest.raises(ValueError, match="expected"):
            await index.replace([bad])
        with pytest.raises(ValueError, match="expected"):
            await index.change([], bad)
    for query in (good.vectors[:1, :4], good.vectors[0]):
        with pytest.raises(ValueError, match="expected"):
            await index.search(query, 1)
        with pytest.raises(ValueError, match="expected"):
            await index.scores(query, [1])


async def test_searches_during_replaces_see_one_content(index: VectorIndex):
    query = np.ones((1, DIM), dtype=np.float32)
    contents = [rows(list(range(n * 1000, n * 1000 + 200)), n) for n in (1, 2, 3)]
    await index.replace([contents[0]])

    async def search() -> None:
        for _ in range(60):
            hits = (await index.search(query, 50))[0]
            assert len(hits) == 50
            assert len({key // 1000 for key, _ in hits} | {int(score) // DIM for _, score in hits}) == 1

    async def replace() -> None:
        for n in range(20):
            await index.replace([contents[n % 3]])

    await asyncio.gather(search(), search(), search(), replace())


async def test_searches_during_changes_and_merges_see_whole_changes(index: VectorIndex):
    """A document is replaced again and again: all of its rows are of one edition, and none is missing."""
    query = np.ones((1, DIM), dtype=np.float32)
    await index.replace([rows(list(range(200)), -1.0), rows(list(range(1_000, 1_010)), 1.0, document=7)])
    selection = Selection(("a",), np.arange(8) == 7, False)

    async def search(selection: Selection | None) -> None:
        for _ in range(120):
            hits = (await index.search(query, 10, selection))[0]
            assert len({score for _, score in hits}) == 1, hits
            assert [key % 1_000 for key, _ in hits] == list(range(10))

    async def change() -> None:
        for edition in range(1, 60):
            old = range(edition * 1_000, edition * 1_000 + 10)
            new = range(edition * 1_000 + 1_000, edition * 1_000 + 1_010)
            await index.change(list(old), rows(list(new), float(edition % 5 + 1), document=7))

    await asyncio.gather(search(None), search(selection), search(selection), change())
    assert len(index) == 210


async def test_a_cancelled_search_disturbs_nobody(index: VectorIndex):
    await index.replace([rows(list(range(100)))])
    query = np.ones((1, DIM), dtype=np.float32)
    searches = [asyncio.create_task(index.search(query, 1)) for _ in range(20)]
    await asyncio.sleep(0)
    for search in searches[::2]:
        search.cancel()
    ended = await asyncio.gather(*searches, return_exceptions=True)
    assert ended[1::2] == [[[(0, DIM)]]] * 10


async def test_close_ends_the_owner_thread(index: VectorIndex):
    before = set(threading.enumerate())
    closed = FaissIndex(DIM, CHOICES["flat"])
    await closed.search(np.ones((1, DIM), dtype=np.float32), 1)
    await closed.change([], rows([1]))
    assert len(set(threading.enumerate()) - before) == 1
    closed.close()
    closed.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(RuntimeError):
        await closed.search(np.ones((1, DIM), dtype=np.float32), 1)


def _slice(rows: Rows, first: int, last: int | None) -> Rows:
    return Rows(rows.keys[first:last], rows.documents[first:last], rows.vectors[first:last], ())
