"""Which files are in which vector stores, and how far on their way there.

Whoever ingests an attachment hands it back as `pending` gave it: `created_at` changes each time that a file is
attached, so that a worker which comes late neither settles nor stores what was asked for anew, or taken away.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from retrieval.errors import NotHere
from retrieval.file_types import Attachment, AttachmentStatus, Batch, Page, ToAttach
from retrieval.filters import Attribute
from retrieval.store.changes import attributes as attributes_of
from retrieval.store.claim import EmbedderClaim
from retrieval.store.connection import Connections
from retrieval.store.listing import Listing
from retrieval.store.put import put_document, require_fitting
from retrieval.store.uploads import file_of
from retrieval.store.vector_stores import count_by_status, require_readable
from retrieval.types import DEFAULT_STORE, DEPLOYMENT, Chunk, Document, Vectors

_COLUMNS = (
    "store_id, file_id, tenant, (SELECT filename FROM files WHERE files.file_id = attachments.file_id), "
    "status, created_at, attributes, chunk_tokens, overlap_tokens, batch_id, document_id, usage_bytes, "
    "n_chunks, error_code, error"
)
_LISTING = Listing("attachments", _COLUMNS, "file_id", "file in this vector store")
_PENDING = "store_id = ? AND file_id = ? AND created_at = ? AND status = 'in_progress'"
_LATER_S = 1e-6


class Attachments:
    """The part of `SqliteFileStore` that brings files into vector stores."""

    _connections: Connections
    _claim: EmbedderClaim

    def attach(
        self, tenant: str, store_id: str, files: Sequence[ToAttach], *, batch: bool = False
    ) -> tuple[list[Attachment], str]:
        """Of a file that is attached already, the document stays until the new one is there, and so do the
        attributes unless others are given."""
        wanted: dict[str, ToAttach] = {}
        for each in files:
            wanted.setdefault(each.file_id, each)
        now = time.time()
        batch_id = f"vsfb_{secrets.token_hex(16)}" if batch else ""
        with self._connections.transaction() as db:
            require_readable(db, tenant, store_id)
            if batch:
                db.execute(
                    "INSERT INTO batches (batch_id, store_id, tenant, created_at) VALUES (?, ?, ?, ?)",
                    (batch_id, store_id, tenant, now),
                )
            attached = []
            for each in wanted.values():
                fresh = Attachment(
                    store_id=store_id,
                    file_id=each.file_id,
                    tenant=tenant,
                    filename=file_of(db, tenant, each.file_id).filename,
                    status="in_progress",
                    created_at=now,
                    attributes=dict(each.attributes or {}),
                    chunk_tokens=each.chunk_tokens,
                    overlap_tokens=each.overlap_tokens,
                    batch_id=batch_id,
                )
                attached.append(_attach(db, fresh, keep_attributes=each.attributes is None))
            db.execute("UPDATE vector_stores SET last_active_at = ? WHERE store_id = ?", (now, store_id))
        return attached, batch_id

    def attachment(self, tenant: str, store_id: str, file_id: str) -> Attachment:
        with self._connections.reading() as db:
            require_readable(db, tenant, store_id)
            return _required(db, store_id, file_id)

    def attachments(
        self,
        tenant: str,
        store_id: str,
        page: Page,
        *,
        status: AttachmentStatus | None = None,
        batch_id: str = "",
    ) -> tuple[list[Attachment], bool]:
        wanted = [(name, value) for name, value in (("status", status), ("batch_id", batch_id)) if value]
        only = " AND ".join(["1", *(f"{name} = ?" for name, _ in wanted)])
        with self._connections.reading() as db:
            require_readable(db, tenant, store_id)
            if batch_id:
                _batch(db, tenant, store_id, batch_id)
            rows, more = _LISTING.page(
                db, page, ("store_id = ?", (store_id,)), (only, tuple(value for _, value in wanted))
            )
        return [_attachment(row) for row in rows], more

    def pending(self, limit: int) -> list[Attachment]:
        with self._connections.reader() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM attachments WHERE status = 'in_progress' ORDER BY seq LIMIT ?",  # noqa: S608
                (limit,),
            ).fetchall()
        return [_attachment(row) for row in rows]

    def finish(
        self, attachment: Attachment, document: Document, chunks: Sequence[Chunk], vectors: Vectors
    ) -> bool:
        """`put` and `settle` in one transaction. False when the attachment was cancelled, removed or attached
        again, or its store deleted: nothing is written then. The document gets the attributes that the
        attachment has by now.

        Raises what `put` raises.
        """
        require_fitting(document, chunks, vectors)
        if (document.store_id, document.file_id) != (attachment.store_id, attachment.file_id):
            raise ValueError(
                f"{document.filename}: a document of {document.file_id} in {document.store_id}; expected "
                f"{attachment.file_id} in {attachment.store_id}"
            )
        with self._connections.transaction() as db:
            row = db.execute(
                f"SELECT attributes FROM attachments WHERE {_PENDING}",  # noqa: S608
                _token(attachment),
            ).fetchone()
            if row is None:
                return False
            self._claim.check(db, vectors.shape[1])
            usage_bytes = put_document(
                db, replace(document, attributes=attributes_of(row[0])), chunks, vectors
            )
            return _complete(db, attachment, document.document_id, usage_bytes, len(chunks))

    def settle(
        self,
        attachment: Attachment,
        *,
        document_id: str = "",
        usage_bytes: int = 0,
        n_chunks: int = 0,
        error_code: str = "",
        error: str = "",
    ) -> bool:
        """Where there is an error, what was stored of the file before stays as it is."""
        with self._connections.transaction() as db:
            if not error_code and not error:
                return _complete(db, attachment, document_id, usage_bytes, n_chunks)
            failed = db.execute(
                f"UPDATE attachments SET status = 'failed', error_code = ?, error = ? WHERE {_PENDING}",  # noqa: S608
                (error_code or "server_error", error, *_token(attachment)),
            )
            return failed.rowcount > 0

    def modify_attachment(
        self, tenant: str, store_id: str, file_id: str, attributes: Mapping[str, Attribute]
    ) -> Attachment:
        values = (json.dumps(dict(attributes)), store_id, file_id)
        with self._connections.transaction() as db:
            _require_owned(db, tenant, store_id, file_id)
            for table in ("attachments", "documents"):
                db.execute(
                    f"UPDATE {table} SET attributes = ? WHERE store_id = ? AND file_id = ? AND file_id != ''",  # noqa: S608
                    values,
                )
            return _required(db, store_id, file_id)

    def detach(self, tenant: str, store_id: str, file_id: str) -> None:
        its = "WHERE store_id = ? AND file_id = ? AND file_id != ''"
        with self._connections.transaction() as db:
            _require_owned(db, tenant, store_id, file_id)
            for table in ("attachments", "documents"):
                db.execute(f"DELETE FROM {table} {its}", (store_id, file_id))  # noqa: S608

    def batch(self, tenant: str, store_id: str, batch_id: str) -> Batch:
        with self._connections.reading() as db:
            return _batch(db, tenant, store_id, batch_id)

    def cancel_batch(self, tenant: str, store_id: str, batch_id: str) -> Batch:
        with self._connections.transaction() as db:
            _batch(db, tenant, store_id, batch_id)
            db.execute("UPDATE batches SET cancelled = 1 WHERE batch_id = ?", (batch_id,))
            db.execute(
                "UPDATE attachments SET status = 'cancelled' "
                "WHERE batch_id = ? AND batch_id != '' AND status = 'in_progress'",
                (batch_id,),
            )
            return _batch(db, tenant, store_id, batch_id)


def _attach(db: sqlite3.Connection, fresh: Attachment, keep_attributes: bool) -> Attachment:
    held = _find(db, fresh.store_id, fresh.file_id)
    if held:
        fresh = replace(
            fresh,
            created_at=max(fresh.created_at, held.created_at + _LATER_S),
            attributes=held.attributes if keep_attributes else fresh.attributes,
            document_id=held.document_id,
            usage_bytes=held.usage_bytes,
            n_chunks=held.n_chunks,
        )
        db.execute(
            "DELETE FROM attachments WHERE store_id = ? AND file_id = ?", (fresh.store_id, fresh.file_id)
        )
    db.execute(
        "INSERT INTO attachments (store_id, file_id, tenant, status, created_at, attributes, chunk_tokens, "
        "overlap_tokens, batch_id, document_id, usage_bytes, n_chunks) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            fresh.store_id,
            fresh.file_id,
            fresh.tenant,
            fresh.status,
            fresh.created_at,
            json.dumps(dict(fresh.attributes)),
            fresh.chunk_tokens,
            fresh.overlap_tokens,
            fresh.batch_id,
            fresh.document_id,
            fresh.usage_bytes,
            fresh.n_chunks,
        ),
    )
    return fresh


def _complete(
    db: sqlite3.Connection, attachment: Attachment, document_id: str, usage_bytes: int, n_chunks: int
) -> bool:
    completed = db.execute(
        "UPDATE attachments SET status = 'completed', document_id = ?, usage_bytes = ?, n_chunks = ? "  # noqa: S608
        f"WHERE {_PENDING}",
        (document_id, usage_bytes, n_chunks, *_token(attachment)),
    )
    return completed.rowcount > 0


def _token(attachment: Attachment) -> tuple[str, str, float]:
    return attachment.store_id, attachment.file_id, attachment.created_at


def _find(db: sqlite3.Connection, store_id: str, file_id: str) -> Attachment | None:
    row = db.execute(
        f"SELECT {_COLUMNS} FROM attachments WHERE store_id = ? AND file_id = ?",  # noqa: S608
        (store_id, file_id),
    ).fetchone()
    return _attachment(row) if row else None


def _required(db: sqlite3.Connection, store_id: str, file_id: str) -> Attachment:
    found = _find(db, store_id, file_id)
    if found is None:
        raise NotHere("file in this vector store", file_id)
    return found


def _require_owned(db: sqlite3.Connection, tenant: str, store_id: str, file_id: str) -> None:
    """In `default` everybody sees everything, and takes away what is theirs; the deployment may take it all."""
    require_readable(db, tenant, store_id)
    found = _required(db, store_id, file_id)
    if store_id == DEFAULT_STORE and tenant not in (found.tenant, DEPLOYMENT):
        raise NotHere("file in this vector store", file_id)


def _batch(db: sqlite3.Connection, tenant: str, store_id: str, batch_id: str) -> Batch:
    require_readable(db, tenant, store_id)
    row = db.execute(
        "SELECT batch_id, store_id, created_at, cancelled FROM batches "
        "WHERE batch_id = ? AND store_id = ? AND tenant = ?",
        (batch_id, store_id, tenant),
    ).fetchone()
    if row is None:
        raise NotHere("batch", batch_id)
    return Batch(row[0], row[1], row[2], bool(row[3]), count_by_status(db, "batch_id", batch_id))


def _attachment(row: tuple[Any, ...]) -> Attachment:
    values = list(row)
    values[6] = attributes_of(row[6])
    return Attachment(*values)
