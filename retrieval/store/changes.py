"""What changed in a store, read from the log that its triggers write, and the rows that views are made of."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np

from retrieval.embed.text import chunk_text_for_embedding
from retrieval.types import Changes, Chunk, Entry, Rows

KEPT_CHANGES = 300_000
_SLACK = KEPT_CHANGES // 4

_ROW = """key, number, vector, title, heading_path, text
    FROM chunks JOIN vectors USING (key) JOIN documents USING (number)"""
_ENTRY = "SELECT number, store_id, attributes FROM documents"


class Op(IntEnum):
    """As the triggers of `retrieval.store.schema` write them."""

    CHUNK_ADDED = 0
    CHUNK_GONE = 1
    DOCUMENT_ADDED = 2
    DOCUMENT_CHANGED = 3
    DOCUMENT_GONE = 4
    ALL_NEW = 5


def version(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT max(seq) FROM changes").fetchone()
    return int(row[0] or 0)


def changes(db: sqlite3.Connection, since: int) -> Changes | None:
    """The net effect of what was logged after `since`. `db` is in a read transaction."""
    now = version(db)
    if not 0 <= since <= now:
        return None  # another store's version, or this one's from before a backup was restored
    first = db.execute("SELECT min(seq) FROM changes").fetchone()[0]
    if since < now and since < first - 1:
        return None
    by_op: dict[int, set[int]] = {op: set() for op in Op}
    for op, id_ in db.execute("SELECT op, id FROM changes WHERE seq > ?", (since,)):
        by_op[op].add(id_)
    if by_op[Op.ALL_NEW]:
        return None
    met = by_op[Op.DOCUMENT_ADDED] | by_op[Op.DOCUMENT_CHANGED]
    entries = db.execute(
        f"{_ENTRY} WHERE number IN (SELECT value FROM json_each(?)) ORDER BY number",  # noqa: S608
        (json.dumps(list(met)),),
    )
    added = db.execute(
        f"SELECT {_ROW} WHERE key IN (SELECT value FROM json_each(?)) ORDER BY key",  # noqa: S608
        (json.dumps(list(by_op[Op.CHUNK_ADDED] - by_op[Op.CHUNK_GONE])),),
    )
    return Changes(
        version=now,
        entries=tuple(_entry(row) for row in entries),
        gone_documents=tuple(sorted(by_op[Op.DOCUMENT_GONE] - by_op[Op.DOCUMENT_ADDED])),
        gone_keys=tuple(sorted(by_op[Op.CHUNK_GONE] - by_op[Op.CHUNK_ADDED])),
        added=_rows(added.fetchall(), dim(db)),
    )


def prune(db: sqlite3.Connection) -> None:
    """Keep the log bounded. Most calls only look; every so often one deletes many rows."""
    first, last = db.execute(
        "SELECT (SELECT min(seq) FROM changes), (SELECT max(seq) FROM changes)"
    ).fetchone()
    if first is not None and last - first > KEPT_CHANGES + _SLACK:
        db.execute("DELETE FROM changes WHERE seq <= ?", (last - KEPT_CHANGES,))


def dim(db: sqlite3.Connection) -> int:
    """Of the model that the store is bound to; 0 before."""
    row = db.execute("SELECT value FROM meta WHERE name = 'embedder'").fetchone()
    return int(json.loads(row[0])["dim"]) if row else 0


class SqliteSnapshot:
    """A `Snapshot` over a connection that is in a read transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.version = version(db)
        # Of the table of vectors itself all pages would be read.
        self.n_chunks = int(db.execute("SELECT count(*) FROM chunks").fetchone()[0])

    def entries(self) -> list[Entry]:
        return [_entry(row) for row in self._db.execute(f"{_ENTRY} ORDER BY number")]

    def changes(self, since: int) -> Changes | None:
        return changes(self._db, since)

    def rows(self, batch: int, above_key: int = -1) -> Iterator[Rows]:
        # Each batch is a statement of its own, read to its end: one that was left open would keep the
        # transaction from closing.
        dimensions = dim(self._db)
        while True:
            found = self._db.execute(
                f"SELECT {_ROW} WHERE key > ? ORDER BY key LIMIT ?",
                (above_key, batch),
            ).fetchall()
            if not found:
                return
            yield _rows(found, dimensions)
            above_key = found[-1][0]


@lru_cache(maxsize=4096)
def heading_path(text: str) -> tuple[str, ...]:
    """As it is in the table; neighbouring chunks often share it."""
    return tuple(json.loads(text))


def attributes(text: str) -> dict[str, Any]:
    return {} if text == "{}" else dict(json.loads(text))


def _entry(row: tuple[int, str, str]) -> Entry:
    return Entry(row[0], row[1], attributes(row[2]))


def _rows(found: Sequence[tuple[int, int, bytes, str, str, str]], dimensions: int) -> Rows:
    n = len(found)
    vectors = np.frombuffer(b"".join([row[2] for row in found]), dtype="<f4")
    return Rows(
        keys=np.fromiter((row[0] for row in found), dtype=np.int64, count=n),
        documents=np.fromiter((row[1] for row in found), dtype=np.int64, count=n),
        vectors=vectors.reshape(n, dimensions).astype(np.float32, copy=False),
        texts=tuple(
            chunk_text_for_embedding(title, Chunk(0, heading_path(path), text, 0))
            for _, _, _, title, path, text in found
        ),
    )
