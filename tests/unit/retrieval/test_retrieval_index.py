"""The rule, the merges, and what is kept of selections."""

from __future__ import annotations

import asyncio
import gc
import threading

import numpy as np
import pytest

from retrieval.errors import IndexUnavailable
from retrieval.index.faiss_index import FaissIndex
from retrieval.index.gpu import allowed_candidates, gpu_kind_for
from retrieval.index.kind import IndexChoice, kind_for, n_gpus
from retrieval.index.owner import Owner
from retrieval.index.rows import RowTable
from retrieval.index.selection import Allowed, Selections
from retrieval.types import Rows, Selection

DIM = 32
NOTHING = Rows(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, DIM), np.float32), ())


def rows(first: int, n: int, n_documents: int = 10) -> Rows:
    """Around forty centres, as texts lie around their subjects."""
    rng = np.random.default_rng(first)
    centres = np.random.default_rng(0).normal(size=(40, DIM))
    vectors = (centres[rng.integers(40, size=n)] + 0.5 * rng.normal(size=(n, DIM))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    keys = np.arange(first, first + n)
    return Rows(keys, keys % n_documents, vectors, ())


def recall(
    found: list[list[tuple[int, float]]], content: Rows, queries: np.ndarray, mask: np.ndarray
) -> float:
    scores = np.where(mask, queries @ content.vectors.T, -np.inf)
    exact = np.argsort(-scores, axis=1)[:, :5]
    return float(
        np.mean(
            [
                len({key for key, _ in hits} & set(content.keys[row].tolist())) / 5
                for hits, row in zip(found, exact, strict=True)
            ]
        )
    )


def test_the_rule_by_size():
    cpu = IndexChoice(device="cpu")
    assert [kind_for(cpu, n) for n in (0, 4_999, 5_000, 200_000, 200_001)] == [
        "flat",
        "flat",
        "pq",
        "pq",
        "ivf",
    ]
    assert kind_for(IndexChoice("hnsw", device="cpu"), 3) == "hnsw"
    assert [gpu_kind_for(n, True) for n in (10, 1_000_001, 10_000_001)] == [
        "gpu-flat",
        "gpu-cagra",
        "gpu-ivfpq",
    ]
    assert gpu_kind_for(1_000_001, False) == "gpu-ivfpq"


@pytest.mark.skipif(n_gpus() > 0, reason="there is a GPU")
@pytest.mark.parametrize("choice", [IndexChoice(device="gpu"), IndexChoice("gpu-cagra")])
def test_a_gpu_that_is_not_there_is_refused(choice: IndexChoice):
    assert n_gpus() == 0
    with pytest.raises(IndexUnavailable, match="EXTRA=gpu"):
        FaissIndex(DIM, choice)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["pq", "ivf", "hnsw"])
async def test_structures_find_nearly_all_within_any_selection(kind: str):
    content = rows(0, 2_000, n_documents=400)
    index = FaissIndex(DIM, IndexChoice(kind, scanned_below=0, probed_share=0.4))
    await index.replace([content])
    await index.settled()
    assert index.kind == kind
    queries = rows(9_000, 60).vectors
    try:
        for share in (1.0, 0.3, 0.02):
            documents = np.random.default_rng(1).random(400) < share
            mask = documents[content.documents]
            found = await index.search(queries, 5, Selection(("a",), documents, share == 1.0))
            assert all(mask[key] for hits in found for key, _ in hits)
            assert {len(hits) for hits in found} == {5}
            assert recall(found, content, queries, mask) >= 0.95
            # More than a structure would propose: there are never fewer than the selection holds.
            found = await index.search(queries[:2], 2_000, Selection(("a",), documents, False))
            assert [len(hits) for hits in found] == [mask.sum()] * 2
    finally:
        index.close()


@pytest.mark.anyio
async def test_merges_take_in_what_was_added_and_leave_out_what_is_dead():
    index = FaissIndex(DIM, IndexChoice("pq", merge_above=64))
    try:
        await index.replace([rows(0, 1_000)])
        await index.settled()
        for first in range(1_000, 3_000, 100):
            await index.change(list(range(first - 1_000, first - 950)), rows(first, 100))
        await index.settled()
        assert len(index) == 2_000
        assert index._structure is not None
        assert index._table.n - index._structure.n <= 65 + 7
        await index.change(list(range(50, 2_900)), NOTHING)
        await index.settled()
        assert len(index) == index._table.n_alive
        assert index._table.n_dead <= 64
        queries = rows(9_000, 5).vectors
        keys = {key for hits in await index.search(queries, 5_000) for key, _ in hits}
        assert keys == set(range(2_900, 3_000))
    finally:
        index.close()


@pytest.mark.anyio
async def test_a_build_that_fails_leaves_an_exact_index(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("retrieval.index.merge.build", fail)
    index = FaissIndex(DIM, IndexChoice("pq"))
    try:
        await index.replace([rows(0, 3_000)])
        await index.settled()
        assert index.kind == "flat"
        assert (await index.search(rows(0, 3_000).vectors[7:8], 1))[0][0][0] == 7
    finally:
        index.close()


def test_what_a_selection_allows_is_forgotten_with_it():
    table = RowTable(DIM)
    table.append(*_arrays(rows(0, 100)))
    selections = Selections(table)
    selection = Selection(("a",), np.arange(10) < 3, False)
    assert selections.allowed(selection).n == 30
    assert selections.allowed(selection) is selections.allowed(selection)
    assert len(selections) == 1
    del selection
    gc.collect()
    assert len(selections) == 0


def test_allowed_bits_follow_their_table():
    rng = np.random.default_rng(0)
    table, allowed = RowTable(DIM), Allowed()
    selection = Selection(("a",), np.arange(8) < 4, False)
    for step in range(60):
        table.append(*_arrays(rows(step * 100, int(rng.integers(1, 90)))))
        allowed.cover(table, selection)
        gone = np.flatnonzero((rng.random(table.n) < 0.05) & table.alive[: table.n])
        table.bury(gone)
        allowed.take_away(gone)
        expected = np.flatnonzero(table.alive[: table.n] & (table.documents[: table.n] < 4))
        assert allowed.n == len(expected)
        assert np.array_equal(allowed.positions(), expected)
        for first in (0, 8 * (table.n // 16)):
            selector = allowed.selector(first)
            some = rng.integers(first, table.n, size=20)
            assert [selector.is_member(int(at) - first) for at in some] == np.isin(some, expected).tolist()


def test_gpu_candidates_are_struck_out_by_the_selection():
    table, allowed = RowTable(DIM), Allowed()
    table.append(*_arrays(rows(0, 1_000)))
    allowed.cover(table, Selection(("a",), np.arange(10) == 3, False))
    order = np.random.default_rng(0).permutation(1_000)

    def propose(queries: np.ndarray, k: int) -> np.ndarray:
        return np.tile(order[:k], (len(queries), 1))

    found = allowed_candidates(propose, np.zeros((2, DIM), np.float32), 10, 1_000, allowed, 0.1)
    expected = order[order % 10 == 3][:10]
    n_found = np.count_nonzero(found[0] >= 0)
    assert n_found >= 5
    assert np.array_equal(found[0, :n_found], expected[:n_found])
    assert np.array_equal(
        allowed_candidates(propose, np.zeros((1, DIM)), 10, 1_000, None, 1.0)[0], order[:10]
    )


@pytest.mark.anyio
async def test_calls_that_wait_together_are_made_together_and_in_order():
    owner = Owner("test", lambda: None)
    made: list[list[object]] = []
    held = threading.Event()

    def run(arguments: object) -> list[object]:
        made.append(list(arguments))
        return list(arguments)

    try:
        blocked = asyncio.create_task(owner.call(lambda: held.wait(10)))
        await asyncio.sleep(0.01)
        calls = [asyncio.create_task(owner.call_together(run, n, n // 4)) for n in range(8)]
        await asyncio.sleep(0)
        alone = asyncio.create_task(owner.call(lambda: made.append(["alone"])))
        await asyncio.sleep(0)
        calls[1].cancel()
        alone.cancel()
        calls.append(asyncio.create_task(owner.call_together(run, 8, 0)))
        await asyncio.sleep(0)
        held.set()
        results = await asyncio.gather(blocked, *calls, return_exceptions=True)
        assert [r for r in results if not isinstance(r, BaseException)] == [True, 0, 2, 3, 4, 5, 6, 7, 8]
        assert made == [[0, 2, 3], [4, 5, 6, 7], ["alone"], [8]]
        with pytest.raises(ZeroDivisionError):
            await owner.call(lambda: 1 // 0)
    finally:
        held.set()
        owner.close()


def _arrays(rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rows.keys, rows.documents, rows.vectors
