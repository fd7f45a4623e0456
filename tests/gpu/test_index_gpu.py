"""The GPU's structures find what the CPU finds: run where there is an NVIDIA GPU and faiss-gpu."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from retrieval.index.faiss_index import FaissIndex
from retrieval.index.kind import IndexChoice, Kind, n_gpus
from retrieval.types import Rows, Selection

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.gpu,
    pytest.mark.skipif(n_gpus() == 0, reason="FAISS finds no GPU"),
]
DIM = 384
N = 20_000


@pytest.fixture(scope="module")
def content() -> Rows:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(500, DIM))
    vectors = (centres[rng.integers(500, size=N)] + 0.7 * rng.normal(size=(N, DIM))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Rows(np.arange(N), np.arange(N) // 10, vectors, ())


@pytest.fixture(scope="module")
def queries(content: Rows) -> np.ndarray:
    rng = np.random.default_rng(1)
    near = content.vectors[rng.integers(N, size=100)] + 0.02 * rng.normal(size=(100, DIM))
    return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("kind", "least"), [("gpu-flat", 0.999), ("gpu-cagra", 0.95), ("gpu-ivfpq", 0.95)])
async def test_the_gpu_agrees_with_the_cpu(content: Rows, queries: np.ndarray, kind: Kind, least: float):
    if kind == "gpu-cagra":
        pytest.importorskip("faiss")
        import faiss

        if not hasattr(faiss, "GpuIndexCagra"):
            pytest.skip("this faiss-gpu has no cuVS")
    flat, index = FaissIndex(DIM, IndexChoice("flat")), FaissIndex(DIM, IndexChoice(kind, probed_share=0.5))
    try:
        for each in (flat, index):
            await each.replace([content])
            await each.settled()
            await each.change(list(range(500)), _some(content, 500, 505, key=N))
        assert index.kind == kind
        for share in (1.0, 0.3, 0.11, 0.001):
            documents = np.random.default_rng(2).random(N // 10) < share
            selection = Selection(("a",), documents, share == 1.0)
            expected = await flat.search(queries, 10, selection)
            # Searches from many tasks reach the GPU through its one owner.
            found = await asyncio.gather(
                *(index.search(queries[at : at + 1], 10, selection) for at in range(100))
            )
            shared = 0
            for (hits,), exact in zip(found, expected, strict=True):
                assert len(hits) == len(exact)
                assert all(documents[_document(content, key)] for key, _ in hits)
                scores = dict(exact)
                shared += sum(key in scores for key, _ in hits)
                assert all(score == scores[key] for key, score in hits if key in scores)
            assert shared >= least * sum(map(len, expected))
    finally:
        flat.close()
        index.close()


def _some(rows: Rows, first: int, last: int, key: int) -> Rows:
    return Rows(np.arange(key, key + last - first), rows.documents[first:last], rows.vectors[first:last], ())


def _document(content: Rows, key: int) -> int:
    return int(content.documents[key if key < N else key - N + 500])
