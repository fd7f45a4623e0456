"""Vectors of the embedding model to come, gathered beside those in use until every chunk has one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

import numpy as np

from retrieval.embed.text import chunk_text_for_embedding
from retrieval.errors import EmbedderMismatch
from retrieval.store.changes import Op, heading_path
from retrieval.store.claim import claim_of, held_claim, hold_claim
from retrieval.store.connection import Connections
from retrieval.store.schema import VECTORS_NEXT
from retrieval.types import Chunk, Vectors

_NEXT = "embedder_next"
_MISSING = "NOT EXISTS (SELECT 1 FROM vectors_next WHERE vectors_next.key = chunks.key)"


class VectorsNext:
    """The storage of a reindex. Until `finish` the store goes on as before under the old model; a reindex that
    was interrupted goes on with `begin` of the same model."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def begin(self, identity: str, dim: int) -> bool:
        """False when the store holds this model's vectors already. What was gathered for a third is dropped."""
        claim = claim_of(identity, dim)
        with self._connections.transaction() as db:
            if held_claim(db) == claim:
                return False
            if held_claim(db, _NEXT) != claim:
                self._empty(db)
                hold_claim(db, claim, _NEXT)
        return True

    def under_way(self) -> tuple[str, int] | None:
        """The model to come, as (identity, dim)."""
        with self._connections.reader() as db:
            held = held_claim(db, _NEXT)
        if held is None:
            return None
        claim = json.loads(held)
        return str(claim["identity"]), int(claim["dim"])

    def missing(self) -> int:
        """How many chunks have no new vector yet."""
        with self._connections.reader() as db:
            return int(db.execute(f"SELECT count(*) FROM chunks WHERE {_MISSING}").fetchone()[0])  # noqa: S608

    def next_missing(self, limit: int, above_key: int = -1) -> tuple[list[int], list[str]]:
        """Keys and embedded texts of chunks without a new vector, in key order.

        Whoever works through them hands in the last key of the batch before, and begins at -1 once more when
        there are none left: chunks come and go meanwhile.
        """
        with self._connections.reader() as db:
            rows = db.execute(
                "SELECT key, title, heading_path, text FROM chunks JOIN documents USING (number) "  # noqa: S608
                f"WHERE key > ? AND {_MISSING} ORDER BY key LIMIT ?",
                (above_key, limit),
            ).fetchall()
        texts = [
            chunk_text_for_embedding(title, Chunk(0, heading_path(path), text, 0))
            for _, title, path, text in rows
        ]
        return [row[0] for row in rows], texts

    def put(self, identity: str, keys: Sequence[int], vectors: Vectors) -> None:
        """`(len(keys), dim)` float32. Chunks that are gone by now are passed over.

        Raises `EmbedderMismatch` when the reindex to this model was abandoned.
        """
        if vectors.ndim != 2 or len(keys) != len(vectors):
            raise ValueError(
                f"{len(keys)} keys and vectors {vectors.shape}; expected one vector for each key"
            )
        rows = np.ascontiguousarray(vectors, dtype="<f4")
        with self._connections.transaction() as db:
            self._check(db, claim_of(identity, rows.shape[1]))
            db.executemany(
                "INSERT INTO vectors_next SELECT key, ? FROM chunks WHERE key = ? "
                "ON CONFLICT (key) DO UPDATE SET vector = excluded.vector",
                ((row.tobytes(), key) for key, row in zip(keys, rows, strict=True)),
            )

    def finish(self, identity: str, dim: int) -> bool:
        """Swap: from here on the store holds the new model's vectors, and only those.

        False when chunks came in the meantime that have no new vector yet: go on with `next_missing`.
        """
        claim = claim_of(identity, dim)
        with self._connections.transaction() as db:
            self._check(db, claim)
            if db.execute(f"SELECT 1 FROM chunks WHERE {_MISSING} LIMIT 1").fetchone():  # noqa: S608
                return False
            # The table changes its name: not a single vector is copied, however many there are.
            db.execute("DROP TABLE vectors")
            db.execute("ALTER TABLE vectors_next RENAME TO vectors")
            db.execute(VECTORS_NEXT)
            self._forget(db)
            hold_claim(db, claim)
            db.execute("INSERT INTO changes (op, id) VALUES (?, 0)", (int(Op.ALL_NEW),))
        return True

    def abandon(self) -> None:
        with self._connections.transaction() as db:
            self._empty(db)
            self._forget(db)

    def _empty(self, db: sqlite3.Connection) -> None:
        # Made anew: SQLite deletes the rows of a table with foreign keys one by one.
        db.execute("DROP TABLE vectors_next")
        db.execute(VECTORS_NEXT)

    def _forget(self, db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM meta WHERE name = ?", (_NEXT,))

    def _check(self, db: sqlite3.Connection, claim: str) -> None:
        held = held_claim(db, _NEXT)
        if held != claim:
            wanted = json.loads(held)["identity"] if held else "no model"
            raise EmbedderMismatch(
                f"{self._connections.path}: is being reindexed for {wanted}, not for "
                f"{json.loads(claim)['identity']} with these dimensions; begin anew"
            )
