"""The durable truth on one machine: documents, chunks and vectors in a SQLite file."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from retrieval.connection import Connections
from retrieval.errors import EmbedderMismatch
from retrieval.types import Chunk, ChunkKeys, Document, Passage, Vectors

_DOCUMENT = "document_id, source, filename, title, content_sha256, size_bytes, n_chunks, ingested_at"
_PASSAGE = (
    "chunk_id, document_id, filename, title, heading_path, text, n_tokens, key "
    "FROM chunks JOIN documents USING (document_id)"
)


def document_id_for(source: str) -> str:
    """`doc_` and 16 hexadecimal digits: the same for the same source, wherever it is asked."""
    return "doc_" + hashlib.sha256(source.encode()).hexdigest()[:16]


class SqliteStore:
    """A `DocumentStore` in WAL mode with `synchronous=FULL`: what `put` and `delete` returned from is on disk.

    Any thread may call it and any number of processes may open the same file; writers wait for one another
    up to `busy_timeout_ms`. Every method may raise `StoreUnusable`.
    """

    def __init__(self, path: str | Path, busy_timeout_ms: int = 10_000) -> None:
        self._path = Path(path)
        self._connections = Connections(self._path, busy_timeout_ms)
        self._writing = Lock()
        self._bound: str | None = None

    def claim_embedder(self, identity: str, dim: int) -> None:
        """Bind the store to one embedding model; a store without documents may be bound anew.

        Raises `EmbedderMismatch` when it holds another model's vectors.
        """
        claim = json.dumps({"identity": identity, "dim": dim})
        with self._connections.reader() as db:
            held = _claim(db)
        if held != claim:
            with self._writing, self._connections.transaction() as db:
                held = _claim(db)
                if held and held != claim and db.execute("SELECT 1 FROM documents LIMIT 1").fetchone():
                    raise self._mismatch(held, identity)
                db.execute("INSERT OR REPLACE INTO meta VALUES ('embedder', ?)", (claim,))
        self._bound = claim

    def version(self) -> int:
        with self._connections.reader() as db:
            row = db.execute("SELECT max(seq) FROM changes").fetchone()
        return int(row[0] or 0)

    def put(self, document: Document, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """`vectors` is `(len(chunks), dim)` float32, in the order of the chunks.

        Raises `StoreFull`, and the document is as it was before; `EmbedderMismatch` when another process
        bound the store to another model since this one did; `ValueError` when the parts do not fit together.
        """
        if len(chunks) != document.n_chunks or vectors.shape[:1] != (len(chunks),) or vectors.ndim != 2:
            raise ValueError(
                f"{document.filename}: n_chunks {document.n_chunks}, {len(chunks)} chunks and vectors "
                f"{vectors.shape}; expected one vector for each chunk"
            )
        rows = np.ascontiguousarray(vectors, dtype="<f4")
        with self._writing, self._connections.transaction() as db:
            self._check_claim(_claim(db), rows.shape[1])
            db.execute("DELETE FROM documents WHERE document_id = ?", (document.document_id,))
            db.execute(
                f"INSERT INTO documents ({_DOCUMENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (
                    document.document_id,
                    document.source,
                    document.filename,
                    document.title,
                    document.content_sha256,
                    document.size_bytes,
                    document.n_chunks,
                    document.ingested_at,
                ),
            )
            for chunk, row in zip(chunks, rows, strict=True):
                key = db.execute(
                    "INSERT INTO chunks (chunk_id, document_id, ordinal, heading_path, text, n_tokens) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        f"{document.document_id}-{chunk.ordinal}",
                        document.document_id,
                        chunk.ordinal,
                        json.dumps(chunk.heading_path, ensure_ascii=False),
                        chunk.text,
                        chunk.n_tokens,
                    ),
                ).lastrowid
                db.execute("INSERT INTO vectors VALUES (?, ?)", (key, row.tobytes()))
            _log(db, "put", document.document_id)

    def delete(self, document_id: str) -> bool:
        with self._writing, self._connections.transaction() as db:
            found = db.execute("DELETE FROM documents WHERE document_id = ?", (document_id,)).rowcount > 0
            if found:
                _log(db, "delete", document_id)
        return found

    def find(self, source: str) -> Document | None:
        with self._connections.reader() as db:
            row = db.execute(
                f"SELECT {_DOCUMENT} FROM documents WHERE source = ?",  # noqa: S608
                (source,),
            ).fetchone()
        return Document(*row) if row else None

    def documents(self) -> list[Document]:
        """All of them, ordered by source."""
        with self._connections.reader() as db:
            rows = db.execute(f"SELECT {_DOCUMENT} FROM documents ORDER BY source").fetchall()  # noqa: S608
        return [Document(*row) for row in rows]

    def chunk_vectors(self) -> tuple[ChunkKeys, Vectors]:
        """`(n,)` int64 and `(n, dim)` float32; `(0,)` and `(0, dim)` when there are none."""
        with self._connections.reader() as db:
            # One statement, so one snapshot.
            rows = db.execute("SELECT key, vector FROM vectors ORDER BY key").fetchall()
            held = None if rows else _claim(db)
        keys = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
        dim = len(rows[0][1]) // 4 if rows else json.loads(held)["dim"] if held else 0
        vectors = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4").reshape(len(rows), dim)
        return keys, vectors.astype(np.float32, copy=False)

    def passages(self, hits: Sequence[tuple[int, float]]) -> list[Passage]:
        keys = json.dumps([key for key, _ in hits])
        with self._connections.reader() as db:
            rows = db.execute(
                f"SELECT {_PASSAGE} WHERE key IN (SELECT value FROM json_each(?))",  # noqa: S608
                (keys,),
            ).fetchall()
        found = {row[-1]: row for row in rows}
        return [_passage(found[key], score) for key, score in hits if key in found]

    def passage(self, chunk_id: str) -> Passage | None:
        """The chunk of that public id, with a score of 1."""
        with self._connections.reader() as db:
            row = db.execute(f"SELECT {_PASSAGE} WHERE chunk_id = ?", (chunk_id,)).fetchone()
        return _passage(row, 1.0) if row else None

    def present(self, keys: Sequence[int]) -> set[int]:
        with self._connections.reader() as db:
            rows = db.execute(
                "SELECT key FROM chunks WHERE key IN (SELECT value FROM json_each(?))",
                (json.dumps(list(keys)),),
            ).fetchall()
        return {row[0] for row in rows}

    def close(self) -> None:
        with self._writing:
            self._connections.close()

    def _check_claim(self, held: str | None, dim: int) -> None:
        if self._bound is None:
            raise ValueError(f"{self._path}: not bound to an embedding model; call claim_embedder first")
        bound = json.loads(self._bound)
        if held != self._bound:
            raise self._mismatch(held, bound["identity"])
        if dim != bound["dim"]:
            raise ValueError(f"{self._path}: vectors of {dim} dimensions; expected {bound['dim']}")

    def _mismatch(self, held: str | None, identity: str) -> EmbedderMismatch:
        holder = json.loads(held)["identity"] if held else "no model"
        return EmbedderMismatch(
            f"{self._path}: holds vectors of {holder}, not of {identity}; "
            "name that model again, or ingest into a new store"
        )


def _claim(db: sqlite3.Connection) -> str | None:
    row = db.execute("SELECT value FROM meta WHERE name = 'embedder'").fetchone()
    return str(row[0]) if row else None


def _log(db: sqlite3.Connection, op: str, document_id: str) -> None:
    db.execute("INSERT INTO changes (op, document_id, at) VALUES (?, ?, ?)", (op, document_id, time.time()))


def _passage(row: tuple[str, str, str, str, str, str, int, int], score: float) -> Passage:
    chunk_id, document_id, filename, title, heading_path, text, n_tokens, key = row
    return Passage(
        chunk_id, document_id, filename, title, tuple(json.loads(heading_path)), text, n_tokens, score, key
    )
