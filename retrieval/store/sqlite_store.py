"""The durable truth on one machine: documents, chunks and vectors in a SQLite file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.filters import Attribute
from retrieval.store import changes
from retrieval.store.changes import SqliteSnapshot, attributes, heading_path
from retrieval.store.claim import EmbedderClaim, held_claim
from retrieval.store.connection import Connections
from retrieval.store.file_store import SqliteFileStore
from retrieval.store.put import put_document, require_fitting
from retrieval.store.vectors_next import VectorsNext
from retrieval.types import DEFAULT_STORE, DEPLOYMENT, Changes, Chunk, Document, Passage, Snapshot, Vectors

_DOCUMENT = (
    "SELECT document_id, source, filename, title, content_sha256, size_bytes, n_chunks, ingested_at, "
    "store_id, file_id, attributes FROM documents"
)
_PASSAGE = (
    "SELECT key, chunk_id, document_id, filename, title, heading_path, text, n_tokens, ordinal, page, "
    "store_id, file_id, attributes FROM chunks JOIN documents USING (number)"
)


def document_id_for(source: str, store_id: str = DEFAULT_STORE) -> str:
    """`doc_` and 16 hexadecimal digits: the same for the same store and source, wherever it is asked."""
    name = source if store_id == DEFAULT_STORE else f"{store_id}\0{source}"
    return "doc_" + hashlib.sha256(name.encode()).hexdigest()[:16]


class SqliteStore:
    """A `DocumentStore` in WAL mode with `synchronous=FULL`: what `put` and `delete` returned from is on disk.

    Any thread may call it and any number of processes may open the same file; writers wait for one another
    up to `busy_timeout_ms`. Every method may raise `StoreUnusable`. `files` is the `FileStore` in the same
    file, `next_vectors` what a reindex writes to.
    """

    def __init__(self, path: str | Path, busy_timeout_ms: int = 10_000) -> None:
        self.connections = Connections(Path(path), busy_timeout_ms)
        self._claim = EmbedderClaim(self.connections)
        self.files = SqliteFileStore(self.connections, self._claim)
        self.next_vectors = VectorsNext(self.connections)

    def claim_embedder(self, identity: str, dim: int) -> None:
        """Bind the store to one embedding model; a store without documents may be bound anew.

        Raises `EmbedderMismatch` when it holds another model's vectors.
        """
        self._claim.bind(identity, dim)

    def embedder(self) -> tuple[str, int] | None:
        with self.connections.reader() as db:
            held = held_claim(db)
        if held is None:
            return None
        told = json.loads(held)
        return str(told["identity"]), int(told["dim"])

    def identity(self) -> str:
        with self.connections.reader() as db:
            return str(db.execute("SELECT value FROM meta WHERE name = 'identity'").fetchone()[0])

    def version(self) -> int:
        with self.connections.reader() as db:
            return changes.version(db)

    def known_vectors(self, texts_sha256: Sequence[bytes], store_id: str) -> dict[bytes, NDArray[np.float32]]:
        found = {}
        with self.connections.reading() as db:
            for digest in texts_sha256:
                row = db.execute(_KNOWN_VECTOR, (digest, DEPLOYMENT, store_id)).fetchone()
                if row:
                    found[digest] = np.frombuffer(row[0], dtype="<f4").astype(np.float32)
        return found

    def put(self, document: Document, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """`vectors` is `(len(chunks), dim)` float32, in the order of the chunks.

        Raises `StoreFull`, and the document is as it was before; `NotHere` when its vector store is gone;
        `EmbedderMismatch` when another process bound the store to another model since this one did;
        `ValueError` when the parts do not fit together.
        """
        require_fitting(document, chunks, vectors)
        with self.connections.transaction() as db:
            self._claim.check(db, vectors.shape[1])
            put_document(db, document, chunks, vectors)

    def modify(self, document_id: str, attributes: Mapping[str, Attribute]) -> bool:
        """The attributes of the attachment that it came from, too."""
        text = json.dumps(dict(attributes))
        with self.connections.transaction() as db:
            found = db.execute(
                "UPDATE documents SET attributes = ? WHERE document_id = ?", (text, document_id)
            ).rowcount
            db.execute(f"UPDATE attachments SET attributes = ? {_ITS_ATTACHMENT}", (text, document_id))  # noqa: S608
        return found > 0

    def delete(self, document_id: str) -> bool:
        """With the attachment that it came from."""
        with self.connections.transaction() as db:
            db.execute(f"DELETE FROM attachments {_ITS_ATTACHMENT}", (document_id,))  # noqa: S608
            return db.execute("DELETE FROM documents WHERE document_id = ?", (document_id,)).rowcount > 0

    def find(self, source: str, store_id: str = DEFAULT_STORE) -> Document | None:
        return self._document("WHERE store_id = ? AND source = ?", store_id, source)

    def document(self, document_id: str) -> Document | None:
        return self._document("WHERE document_id = ?", document_id)

    def documents(self, store_id: str | None = None) -> list[Document]:
        where, values = ("", ()) if store_id is None else ("WHERE store_id = ?", (store_id,))
        with self.connections.reader() as db:
            rows = db.execute(f"{_DOCUMENT} {where} ORDER BY store_id, source", values).fetchall()
        return [_document(row) for row in rows]

    def chunks(self, document_id: str) -> list[Chunk]:
        with self.connections.reader() as db:
            rows = db.execute(
                "SELECT ordinal, heading_path, text, chunks.n_tokens, page FROM chunks "
                "JOIN documents USING (number) WHERE document_id = ? ORDER BY ordinal",
                (document_id,),
            ).fetchall()
        return [Chunk(row[0], heading_path(row[1]), *row[2:]) for row in rows]

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Close it soon: while it is open, what is committed cannot be moved out of the write-ahead log."""
        with self.connections.reading() as db:
            yield SqliteSnapshot(db)

    def changes(self, since: int) -> Changes | None:
        with self.connections.reading() as db:
            return changes.changes(db, since)

    def passages(self, hits: Sequence[tuple[int, float]]) -> list[Passage]:
        rows = self._passages(
            "WHERE key IN (SELECT value FROM json_each(?))", json.dumps([key for key, _ in hits])
        )
        found = {row[0]: row for row in rows}
        return [_passage(found[key], score) for key, score in hits if key in found]

    def neighbours(self, document_id: str, ordinals: Sequence[int]) -> list[Passage]:
        rows = self._passages(
            "WHERE document_id = ? AND ordinal IN (SELECT value FROM json_each(?)) ORDER BY ordinal",
            document_id,
            json.dumps(list(ordinals)),
        )
        return [_passage(row, 0.0) for row in rows]

    def passage(self, chunk_id: str) -> Passage | None:
        """The chunk of that public id, with a score of 1."""
        rows = self._passages("WHERE chunk_id = ?", chunk_id)
        return _passage(rows[0], 1.0) if rows else None

    def present(self, keys: Sequence[int]) -> set[int]:
        with self.connections.reader() as db:
            rows = db.execute(
                "SELECT key FROM chunks WHERE key IN (SELECT value FROM json_each(?))",
                (json.dumps(list(keys)),),
            ).fetchall()
        return {row[0] for row in rows}

    def close(self) -> None:
        self.connections.close()

    def _document(self, where: str, *values: str) -> Document | None:
        with self.connections.reader() as db:
            row = db.execute(f"{_DOCUMENT} {where}", values).fetchone()
        return _document(row) if row else None

    def _passages(self, where: str, *values: str) -> list[tuple[Any, ...]]:
        with self.connections.reader() as db:
            return db.execute(f"{_PASSAGE} {where}", values).fetchall()


# What the owner of a vector store may search: its own stores, and the deployment's.
_KNOWN_VECTOR = """SELECT vector FROM chunks JOIN vectors USING (key)
    JOIN documents USING (number) JOIN vector_stores USING (store_id)
    WHERE embedded_sha256 = ?
    AND tenant IN (?, (SELECT tenant FROM vector_stores WHERE store_id = ?)) LIMIT 1"""

_ITS_ATTACHMENT = (
    "WHERE (store_id, file_id) = (SELECT store_id, file_id FROM documents WHERE document_id = ?)"
)


def _document(row: tuple[Any, ...]) -> Document:
    values = list(row)
    values[-1] = attributes(row[-1])
    return Document(*values)


def _passage(row: tuple[Any, ...], score: float) -> Passage:
    key, chunk_id, document_id, filename, title, path, text, n_tokens, ordinal, page, *place = row
    return Passage(
        chunk_id,
        document_id,
        filename,
        title,
        heading_path(path),
        text,
        n_tokens,
        score,
        key,
        ordinal,
        page,
        store_id=place[0],
        file_id=place[1],
        attributes=attributes(place[2]),
    )
