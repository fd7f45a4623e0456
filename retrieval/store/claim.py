"""Which embedding model a store's vectors are of; vectors of two models are never mixed."""

from __future__ import annotations

import json
import sqlite3

from retrieval.errors import EmbedderMismatch
from retrieval.store.connection import Connections


class EmbedderClaim:
    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._bound: str | None = None

    def bind(self, identity: str, dim: int) -> None:
        """A store without documents may be bound anew. Raises `EmbedderMismatch`."""
        claim = claim_of(identity, dim)
        with self._connections.reader() as db:
            held = held_claim(db)
        if held != claim:
            with self._connections.transaction() as db:
                held = held_claim(db)
                if held and held != claim and db.execute("SELECT 1 FROM documents LIMIT 1").fetchone():
                    raise self._mismatch(held, identity)
                hold_claim(db, claim)
        self._bound = claim

    def check(self, db: sqlite3.Connection, dim: int) -> None:
        """That vectors of `dim` numbers, made by the model that `bind` was called with, may be written now."""
        path = self._connections.path
        if self._bound is None:
            raise ValueError(f"{path}: not bound to an embedding model; call claim_embedder first")
        bound = json.loads(self._bound)
        held = held_claim(db)
        if held != self._bound:
            raise self._mismatch(held, bound["identity"])
        if dim != bound["dim"]:
            raise ValueError(f"{path}: vectors of {dim} dimensions; expected {bound['dim']}")

    def _mismatch(self, held: str | None, identity: str) -> EmbedderMismatch:
        holder = json.loads(held)["identity"] if held else "no model"
        return EmbedderMismatch(
            f"{self._connections.path}: holds vectors of {holder}, not of {identity}; "
            "name that model again, or ingest into a new store"
        )


def claim_of(identity: str, dim: int) -> str:
    return json.dumps({"identity": identity, "dim": dim})


def held_claim(db: sqlite3.Connection, name: str = "embedder") -> str | None:
    row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else None


def hold_claim(db: sqlite3.Connection, claim: str, name: str = "embedder") -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, claim))
