"""What of an index goes into a snapshot, and an index out of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.index.kind import IndexChoice, Structure, restored
from retrieval.index.rows import RowTable
from retrieval.index.snapshot import Buffer, Contents, open_snapshot
from retrieval.types import Vectors

_WRITTEN_ROWS = 4_096


def captured(table: RowTable, structure: Structure | None, facts: dict[str, Any]) -> Contents:
    """The rows of this moment, to be written by another thread: of what is there, nothing is rewritten later.

    Dead rows keep their place, for the structure counts them, but their vectors are written as zeros.
    """
    import faiss

    n, alive = table.n, table.alive[: table.n].copy()
    keys, documents, vectors = table.keys[:n], table.documents[:n], table.vectors[:n]
    index = structure.portable() if structure else None
    facts = facts | {
        "n": n,
        "kind": structure.kind if structure else "flat",
        "n_trained": structure.n_trained if structure else 0,
    }

    def living() -> Iterator[Vectors]:
        for first in range(0, n, _WRITTEN_ROWS):
            kept = alive[first : first + _WRITTEN_ROWS]
            part = vectors[first : first + _WRITTEN_ROWS]
            yield part if kept.all() else np.where(kept[:, None], part, np.float32(0))

    def serialised() -> Iterator[Buffer]:
        if index is not None:
            yield faiss.serialize_index(index)

    sections: dict[str, Iterable[Buffer]] = {
        "keys": [keys],
        "documents": [documents],
        "alive": [alive],
        "vectors": living(),
        "structure": serialised(),
    }
    return Contents(facts, sections)


def loaded_index(
    path: Path, store_identity: str, dim: int, choice: IndexChoice
) -> tuple[int, RowTable, Structure | None] | None:
    """(version, rows, structure); None without a snapshot, or with one of another store, dimension or choice.

    Raises `SnapshotDamaged`.
    """
    import faiss

    with open_snapshot(path) as snapshot:
        if snapshot is None:
            return None
        facts = snapshot.facts
        if facts["store"] != store_identity or facts["choice"] != choice.describe(dim):
            return None
        n = int(facts["n"])
        table = RowTable(dim, n)
        serialised = np.empty(snapshot.n_bytes("structure"), dtype=np.uint8)
        snapshot.read(
            {
                "keys": table.keys[:n],
                "documents": table.documents[:n],
                "alive": table.alive[:n],
                "vectors": table.vectors[:n],
                "structure": serialised,
            }
        )
    structure = None
    if len(serialised):
        index = faiss.deserialize_index(serialised)
        structure = restored(choice, facts["kind"], index, int(facts["n_trained"]))
    return int(facts["version"]), table.filled(n), structure
