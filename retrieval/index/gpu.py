"""Structures on an NVIDIA GPU (faiss-gpu). Their scores only propose: the exact ones are computed on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from retrieval.errors import IndexUnavailable
from retrieval.index.kind import IndexChoice, Kind
from retrieval.index.rows import Positions
from retrieval.index.selection import Allowed
from retrieval.types import Vectors

_FLAT_TO = 1_000_000
_CAGRA_TO = 10_000_000
_MOST_CANDIDATES = 2_048
"""What FAISS's selection of the nearest takes on a GPU."""
_SCRATCH_BYTES = 256 << 20

Propose = Callable[[Vectors, int], Positions]
"""Queries and k to (n, k) positions, best first."""


def gpu_kind_for(n: int, has_cagra: bool | None = None) -> Kind:
    if n <= _FLAT_TO:
        return "gpu-flat"
    if has_cagra is None:
        import faiss

        has_cagra = hasattr(faiss, "GpuIndexCagra")
    return "gpu-cagra" if has_cagra and n <= _CAGRA_TO else "gpu-ivfpq"


def allowed_candidates(
    propose: Propose, queries: Vectors, k: int, n: int, allowed: Allowed | None, share: float
) -> Positions:
    """The first `k` proposed that are allowed, -1 after them.

    FAISS takes no selectors on GPUs, so more are proposed, as the share wants, and the others are struck out
    here. Where too few are left, the index scans the selection itself.
    """
    if allowed is None:
        return propose(queries, min(k, n, _MOST_CANDIDATES))
    proposed = propose(queries, min(n, _MOST_CANDIDATES, int(1.5 * k / max(share, 1e-3)) + 1))
    kept = allowed.allows(proposed)
    first = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    return np.ascontiguousarray(
        np.where(np.take_along_axis(kept, first, 1), np.take_along_axis(proposed, first, 1), -1)
    )


class OnGpu:
    """Built anew at each merge: that is quick there, and a GPU index bears no addition beside a search.

    Each has resources of its own, since these are no more thread-safe than the index, and the next one is built
    by another thread while this one serves.
    """

    def __init__(self, choice: IndexChoice, kind: Kind, index: Any, resources: Any) -> None:
        self._choice = choice
        self._index = index
        self._resources = resources
        self.kind = kind
        self.n = int(index.ntotal)
        self.n_trained = self.n

    def candidates(self, queries: Vectors, top_k: int, allowed: Allowed | None, share: float) -> Positions:
        wanted = 2 * top_k + 20 if self.kind != "gpu-ivfpq" else self._choice.candidates + 5 * top_k
        return allowed_candidates(self._propose, queries, wanted, self.n, allowed, share)

    def _propose(self, queries: Vectors, k: int) -> Positions:
        found: Positions = self._index.search(queries, k)[1]
        return found

    def extended(self, vectors: Vectors) -> None:
        return None

    def portable(self) -> None:
        return None


def build_gpu(choice: IndexChoice, kind: Kind, vectors: Vectors) -> OnGpu:
    import faiss

    n, dim = vectors.shape
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(_SCRATCH_BYTES)
    metric = faiss.METRIC_INNER_PRODUCT
    if kind == "gpu-flat":
        settings = faiss.GpuIndexFlatConfig()
        settings.useFloat16 = True
        index: Any = faiss.GpuIndexFlatIP(resources, dim, settings)
        index.add(vectors)
    elif kind == "gpu-cagra":
        if not hasattr(faiss, "GpuIndexCagra"):
            raise IndexUnavailable("index gpu-cagra: this faiss-gpu has no cuVS; take gpu-flat or gpu-ivfpq")
        index = faiss.GpuIndexCagra(resources, dim, metric, faiss.GpuIndexCagraConfig())
        index.train(vectors)
    else:
        n_lists = max(1, int(np.sqrt(n)))
        n_codes = dim // next(width for width in (8, 4, 3, 2, 1) if dim % width == 0)
        index = faiss.GpuIndexIVFPQ(resources, dim, n_lists, n_codes, 8, metric, faiss.GpuIndexIVFPQConfig())
        index.nprobe = max(1, round(n_lists * choice.probed_share))
        index.train(vectors)
        index.add(vectors)
    return OnGpu(choice, kind, index, resources)
