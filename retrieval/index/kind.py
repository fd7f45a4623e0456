"""Which FAISS structure serves, and how it is built, grown and searched.

The vectors themselves stand in a `RowTable`; a structure only proposes candidates, whose scores are then computed
exactly. So every kind gives exact float32 scores, and what it may miss is a candidate.

The rule of kind "auto", by the number of chunks (384 dimensions, two cores; docs/retrieval.md has the table):

    CPU   below 5,000: "flat", exact: a scan of all vectors, 0.11 ms for each 1,000
          to 200,000:  "pq", a scan of 4-bit product-quantised codes, an eighth of a byte for each dimension
          above:       "ivf", the same codes in inverted lists, of which a share is scanned
    GPU   below 5,000 the CPU's "flat", where the device is left open
          to 1,000,000: "gpu-flat", fp16;  to 10,000,000: "gpu-cagra";  above: "gpu-ivfpq"

"hnsw" is there for those who ask for it: 20,000 chunks took it 25 s and "pq" 2, and were searched no faster.
Sources: product quantisation, Jégou et al. 2011; the 4-bit scan in registers, André et al. 2015 ("Cache locality is
not enough") and https://github.com/facebookresearch/faiss/wiki/Fast-accumulation-of-PQ-and-AQ-codes-(FastScan).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal, Protocol

import numpy as np

from retrieval.errors import IndexUnavailable
from retrieval.index.rows import Positions
from retrieval.index.selection import Allowed
from retrieval.types import Vectors

Kind = Literal["flat", "pq", "ivf", "hnsw", "gpu-flat", "gpu-ivfpq", "gpu-cagra"]
Device = Literal["auto", "cpu", "gpu"]

ADDED_AT_ONCE = 8_192


@dataclass(frozen=True, slots=True)
class IndexChoice:
    """How an index is made. Sizes are numbers of chunks."""

    kind: Literal["auto"] | Kind = "auto"
    device: Device = "auto"
    """For kind "auto": "auto" takes the GPU where FAISS was built for one and finds it."""
    flat_below: int = 5_000
    ivf_above: int = 200_000
    """On GPUs both bounds are of their own: see the rule."""
    candidates: int = 100
    """How many a compressed structure proposes, beside five for each hit asked for and one for each 2,000 chunks:
    the more chunks, the more lie between the best five and what the codes take for them."""
    probed_share: float = 0.25
    """Of the inverted lists of "ivf" and "gpu-ivfpq": what a search scans."""
    ef_search: int = 128
    hnsw_links: int = 16
    scanned_below: int = 4_000
    """A selection of so few chunks is scanned exactly, whatever the structure."""
    merge_above: int = 1_024
    """How many new or dead chunks begin a merge; more where the index is large."""
    build_threads: int = 1
    """OpenMP threads of a build in the background."""

    def describe(self, dim: int) -> dict[str, Any]:
        """What a snapshot must have been made with to be of use: all but what only steers a search."""
        made_of = ("kind", "device", "flat_below", "ivf_above", "hnsw_links")
        return {"dim": dim} | {name: value for name, value in asdict(self).items() if name in made_of}


class Structure(Protocol):
    """Proposes candidates among positions [0, n). Used by one thread at a time."""

    kind: Kind
    n: int
    n_trained: int
    """Over how many rows it was trained."""

    def candidates(self, queries: Vectors, top_k: int, allowed: Allowed | None, share: float) -> Positions:
        """(n_queries, k) positions, -1 where there are too few. `allowed` (None: all) is a `share` of them."""
        ...

    def extended(self, vectors: Vectors) -> Structure | None:
        """A new one over all of `vectors`, of which this holds the first n; None when it must be made anew.
        Another thread may search this one meanwhile."""
        ...

    def portable(self) -> Any:
        """The FAISS index for a snapshot; None where it is quicker made anew."""
        ...


@cache
def n_gpus() -> int:
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def kind_for(choice: IndexChoice, n: int) -> Kind:
    """The rule. Raises `IndexUnavailable` when a GPU is asked for and there is none."""
    gpu = choice.device == "gpu" or choice.kind.startswith("gpu-")
    if gpu and not n_gpus():
        raise IndexUnavailable(
            f"index {choice.kind} on device {choice.device}: FAISS finds no GPU here; "
            "install faiss-gpu (EXTRA=gpu), or set the device to cpu"
        )
    if choice.kind != "auto":
        return choice.kind
    if n < choice.flat_below and not gpu:
        return "flat"
    if gpu or (choice.device == "auto" and n_gpus()):
        from retrieval.index.gpu import gpu_kind_for

        return gpu_kind_for(n)
    return "pq" if n <= choice.ivf_above else "ivf"


def build(choice: IndexChoice, kind: Kind, vectors: Vectors) -> Structure | None:
    """Over all rows of `vectors`; None for "flat", which needs none. Takes seconds to minutes."""
    if kind == "flat" or len(vectors) == 0:
        return None
    if kind == "hnsw":
        return Hnsw.built(choice, vectors)
    if kind.startswith("gpu-"):
        from retrieval.index.gpu import build_gpu

        return build_gpu(choice, kind, vectors)
    return Compressed.built(choice, kind, vectors)


def restored(choice: IndexChoice, kind: Kind, index: Any, n_trained: int) -> Structure:
    """From the FAISS index of a snapshot."""
    return Hnsw(choice, index) if kind == "hnsw" else Compressed(choice, kind, index, n_trained)


class Compressed:
    """4-bit product-quantised codes: all in one list ("pq"), or in inverted lists ("ivf").

    Of 100,000 chunks of real text a scan of all codes proposes 99 % of the exact five. Lists of which a quarter is
    scanned lose more than they save there, but at 300,000 chunks they take half the time (1.0 ms of CPU beside 2.1).
    """

    def __init__(self, choice: IndexChoice, kind: Kind, index: Any, n_trained: int = 0) -> None:
        import faiss

        self._parameters = faiss.SearchParametersIVF
        self._clone = faiss.clone_index
        self._choice = choice
        self._index = index
        self.n_trained = n_trained or int(index.ntotal)
        self.kind = kind
        self.n = int(index.ntotal)

    @classmethod
    def built(cls, choice: IndexChoice, kind: Kind, vectors: Vectors) -> Compressed:
        import faiss

        n, dim = vectors.shape
        n_lists = 1 if kind == "pq" else max(1, int(np.sqrt(n)))
        n_codes = dim // next(width for width in (4, 3, 2, 1) if dim % width == 0)
        index = faiss.index_factory(dim, f"IVF{n_lists},PQ{n_codes}x4fs", faiss.METRIC_INNER_PRODUCT)
        index.cp.niter, index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 8, 1, 64
        index.pq.cp.min_points_per_centroid = 1
        # Evenly over the rows, which lie by document. A permutation of a million would hold the GIL for too long.
        n_sample = min(n, max(64 * n_lists, 8_192))
        index.train(np.ascontiguousarray(vectors[np.arange(n_sample) * n // n_sample]))
        for first in range(0, n, ADDED_AT_ONCE):
            index.add(vectors[first : first + ADDED_AT_ONCE])
        return cls(choice, kind, index)

    def candidates(self, queries: Vectors, top_k: int, allowed: Allowed | None, share: float) -> Positions:
        n_lists = int(self._index.nlist)
        # The nearest of few allowed rows lie in more lists.
        n_probed = max(1, min(n_lists, round(n_lists * self._choice.probed_share / max(share, 1e-3))))
        parameters = self._parameters(nprobe=n_probed)
        if allowed is not None:
            parameters.sel = allowed.selector(0)
        k = min(self.n, self._choice.candidates + 5 * top_k + self.n // 2_000)
        found: Positions = self._index.search(queries, k, params=parameters)[1]
        return found

    def extended(self, vectors: Vectors) -> Compressed | None:
        if len(vectors) > 3 * self.n_trained:
            return None
        index = self._clone(self._index)
        for first in range(self.n, len(vectors), ADDED_AT_ONCE):
            index.add(vectors[first : first + ADDED_AT_ONCE])
        return Compressed(self._choice, self.kind, index, self.n_trained)

    def portable(self) -> Any:
        return self._index


class Hnsw:
    """A graph over 8-bit codes."""

    def __init__(self, choice: IndexChoice, index: Any) -> None:
        import faiss

        self._parameters = faiss.SearchParametersHNSW
        self._clone = faiss.clone_index
        self._choice = choice
        self._index = index
        self.kind: Kind = "hnsw"
        self.n_trained = 0
        self.n = int(index.ntotal)

    @classmethod
    def built(cls, choice: IndexChoice, vectors: Vectors) -> Hnsw:
        import faiss

        index = faiss.index_factory(
            vectors.shape[1], f"HNSW{choice.hnsw_links}_SQ8", faiss.METRIC_INNER_PRODUCT
        )
        index.hnsw.efConstruction = 80
        index.train(vectors[: 8 * ADDED_AT_ONCE])
        for first in range(0, len(vectors), ADDED_AT_ONCE):
            index.add(vectors[first : first + ADDED_AT_ONCE])
        return cls(choice, index)

    def candidates(self, queries: Vectors, top_k: int, allowed: Allowed | None, share: float) -> Positions:
        k = min(self.n, 4 * top_k + 20)
        parameters = self._parameters(efSearch=int(max(self._choice.ef_search, k) / max(share, 0.1)))
        if allowed is not None:
            parameters.sel = allowed.selector(0)
        found: Positions = self._index.search(queries, k, params=parameters)[1]
        return found

    def extended(self, vectors: Vectors) -> Hnsw | None:
        index = self._clone(self._index)
        for first in range(self.n, len(vectors), ADDED_AT_ONCE):
            index.add(vectors[first : first + ADDED_AT_ONCE])
        return Hnsw(self._choice, index)

    def portable(self) -> Any:
        return self._index
