"""One document into the tables: what is unchanged of it stays, with its keys and vectors."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.errors import NotHere
from retrieval.store.schema import embedded_sha256
from retrieval.types import Chunk, Document, Vectors

_ID_DIGITS = 12


def require_fitting(document: Document, chunks: Sequence[Chunk], vectors: Vectors) -> None:
    """Raises `ValueError` when the parts do not belong together."""
    if len(chunks) != document.n_chunks or vectors.shape[:1] != (len(chunks),) or vectors.ndim != 2:
        raise ValueError(
            f"{document.filename}: n_chunks {document.n_chunks}, {len(chunks)} chunks and vectors "
            f"{vectors.shape}; expected one vector for each chunk"
        )
    if any(chunk.ordinal != place for place, chunk in enumerate(chunks)):
        raise ValueError(f"{document.filename}: chunks out of order; expected ordinals 0, 1, 2 ...")


def put_document(
    db: sqlite3.Connection, document: Document, chunks: Sequence[Chunk], vectors: Vectors
) -> int:
    """Within the caller's transaction; returns the bytes of the texts and vectors.

    Raises `NotHere` when the document's vector store is gone.
    """
    if not db.execute("SELECT 1 FROM vector_stores WHERE store_id = ?", (document.store_id,)).fetchone():
        raise NotHere("vector store", document.store_id)
    usage_bytes = sum(len(chunk.text.encode()) for chunk in chunks) + 4 * vectors.size
    number = _put_head(db, document, usage_bytes)
    diff = _diff(db, document, number, chunks)
    db.executemany("DELETE FROM chunks WHERE key = ?", ((key,) for key in diff.gone))
    db.executemany("UPDATE chunks SET ordinal = ?, page = ?, n_tokens = ? WHERE key = ?", diff.moved)
    _insert(db, diff, number, chunks, np.ascontiguousarray(vectors, dtype="<f4"))
    return usage_bytes


@dataclass(frozen=True, slots=True)
class _Diff:
    gone: list[int]
    """Keys."""
    moved: list[tuple[int, int | None, int, int]]
    """(ordinal, page, n_tokens, key)"""
    new: list[tuple[int, str, str, bytes]]
    """(place in `chunks`, chunk id, heading path, SHA-256)"""


def _put_head(db: sqlite3.Connection, document: Document, usage_bytes: int) -> int:
    held = db.execute(
        "SELECT number, document_id, store_id, source, file_id FROM documents "
        "WHERE document_id = ? OR (store_id = ? AND source = ?)",
        (document.document_id, document.store_id, document.source),
    ).fetchall()
    values = (
        document.filename,
        document.title,
        document.content_sha256,
        document.size_bytes,
        document.n_chunks,
        document.ingested_at,
        json.dumps(dict(document.attributes)),
        usage_bytes,
    )
    name = (document.document_id, document.store_id, document.source, document.file_id)
    if not held:
        added = db.execute(
            "INSERT INTO documents (document_id, store_id, source, file_id, filename, title, content_sha256, "
            "size_bytes, n_chunks, ingested_at, attributes, usage_bytes) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*name, *values),
        )
        return int(added.lastrowid or 0)
    if len(held) > 1 or held[0][1:] != name:
        raise ValueError(
            f"{document.filename}: {document.document_id} from {document.source!r} is not what "
            f"{document.store_id} holds under this id or source; expected an id made with document_id_for"
        )
    db.execute(
        "UPDATE documents SET filename = ?, title = ?, content_sha256 = ?, size_bytes = ?, n_chunks = ?, "
        "ingested_at = ?, attributes = ?, usage_bytes = ? WHERE number = ?",
        (*values, held[0][0]),
    )
    return int(held[0][0])


def _diff(db: sqlite3.Connection, document: Document, number: int, chunks: Sequence[Chunk]) -> _Diff:
    held: defaultdict[tuple[bytes, str, str], deque[tuple[int, str, int, int | None, int]]]
    held = defaultdict(deque)
    for row in db.execute(
        "SELECT embedded_sha256, heading_path, text, key, chunk_id, ordinal, page, n_tokens "
        "FROM chunks WHERE number = ? ORDER BY ordinal",
        (number,),
    ):
        held[row[:3]].append(row[3:])
    moved, new, kept_ids = [], [], set()
    for place, chunk in enumerate(chunks):
        digest = embedded_sha256(document.title, chunk)
        path = json.dumps(chunk.heading_path, ensure_ascii=False)
        # The heading path and the text are compared, too: a key names them, and not only what was embedded.
        if same := held.get((digest, path, chunk.text)):
            key, chunk_id, *place_of_it = same.popleft()
            kept_ids.add(chunk_id)
            if place_of_it != [chunk.ordinal, chunk.page, chunk.n_tokens]:
                moved.append((chunk.ordinal, chunk.page, chunk.n_tokens, key))
        else:
            new.append((place, path, digest))
    gone = [row[0] for rows in held.values() for row in rows]
    ids = _ids(document.document_id, (digest for _, _, digest in new), kept_ids)
    return _Diff(
        gone,
        moved,
        [(place, id_, path, digest) for (place, path, digest), id_ in zip(new, ids, strict=True)],
    )


def _ids(document_id: str, digests: Iterable[bytes], taken: set[str]) -> Iterable[str]:
    """An id says what the chunk says: it stays where text is inserted before it. Repeats are counted."""
    counts: defaultdict[str, int] = defaultdict(int)
    for digest in digests:
        stem = f"{document_id}-{digest.hex()[:_ID_DIGITS]}"
        while True:
            counts[stem] += 1
            chunk_id = stem if counts[stem] == 1 else f"{stem}-{counts[stem]}"
            if chunk_id not in taken:
                break
        yield chunk_id


def _insert(
    db: sqlite3.Connection, diff: _Diff, number: int, chunks: Sequence[Chunk], vectors: Vectors
) -> None:
    if not diff.new:
        return
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'chunks'").fetchone()
    first = (row[0] if row else 0) + 1
    db.executemany(
        "INSERT INTO chunks (key, chunk_id, number, ordinal, page, heading_path, text, n_tokens, "
        "embedded_sha256) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (key, chunk_id, number, chunk.ordinal, chunk.page, path, chunk.text, chunk.n_tokens, digest)
            for key, (place, chunk_id, path, digest) in enumerate(diff.new, first)
            for chunk in (chunks[place],)
        ),
    )
    db.executemany(
        "INSERT INTO vectors VALUES (?, ?)",
        ((key, vectors[place].tobytes()) for key, (place, *_) in enumerate(diff.new, first)),
    )
