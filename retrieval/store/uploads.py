"""Uploaded files, as they came: equal contents are kept once."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time

from retrieval.errors import DocumentTooLarge, NotHere
from retrieval.file_types import Page, StoredFile, Usage
from retrieval.store.connection import Connections
from retrieval.store.listing import Listing
from retrieval.types import DEFAULT_STORE

_COLUMNS = "file_id, tenant, filename, purpose, size_bytes, sha256, created_at"
_LISTING = Listing("files", _COLUMNS, "file_id", "file")
_ROOM_OF_A_ROW_BYTES = 4096


class Uploads:
    """The part of `SqliteFileStore` that keeps files."""

    _connections: Connections

    def add_file(self, tenant: str, filename: str, purpose: str, data: bytes) -> StoredFile:
        """Raises `DocumentTooLarge` above what one SQLite value takes (1 GB), `StoreFull`."""
        file = StoredFile(
            file_id=f"file-{secrets.token_hex(16)}",
            tenant=tenant,
            filename=filename,
            purpose=purpose,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            created_at=time.time(),
        )
        with self._connections.transaction() as db:
            room = db.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) - _ROOM_OF_A_ROW_BYTES
            if len(data) > room:
                raise DocumentTooLarge(
                    f"{filename}: {len(data)} bytes, above the {room} that a file may have; split it"
                )
            db.execute("INSERT INTO contents VALUES (?, ?) ON CONFLICT DO NOTHING", (file.sha256, data))
            db.execute(
                f"INSERT INTO files ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (
                    file.file_id,
                    tenant,
                    filename,
                    purpose,
                    file.size_bytes,
                    file.sha256,
                    file.created_at,
                ),
            )
        return file

    def file(self, tenant: str, file_id: str) -> StoredFile:
        with self._connections.reader() as db:
            return file_of(db, tenant, file_id)

    def file_data(self, tenant: str, file_id: str) -> bytes:
        with self._connections.reading() as db:
            file = file_of(db, tenant, file_id)
            row = db.execute("SELECT data FROM contents WHERE sha256 = ?", (file.sha256,)).fetchone()
        return bytes(row[0])

    def files(self, tenant: str, page: Page, purpose: str = "") -> tuple[list[StoredFile], bool]:
        only = ("purpose = ?", (purpose,)) if purpose else ("1", ())
        with self._connections.reading() as db:
            rows, more = _LISTING.page(db, page, ("tenant = ?", (tenant,)), only)
        return [StoredFile(*row) for row in rows], more

    def usage(self, tenant: str) -> Usage:
        with self._connections.reader() as db:
            row = db.execute(
                "SELECT count(*), coalesce(sum(size_bytes), 0), "
                "(SELECT count(*) FROM vector_stores WHERE tenant = ?1 AND store_id != ?2) "
                "FROM files WHERE tenant = ?1",
                (tenant, DEFAULT_STORE),
            ).fetchone()
        return Usage(*row)

    def delete_file(self, tenant: str, file_id: str) -> None:
        with self._connections.transaction() as db:
            file_of(db, tenant, file_id)
            db.execute("DELETE FROM documents WHERE file_id = ? AND file_id != ''", (file_id,))
            # Its attachments go with it, and its content with the last file of that content.
            db.execute("DELETE FROM files WHERE file_id = ?", (file_id,))


def file_of(db: sqlite3.Connection, tenant: str, file_id: str) -> StoredFile:
    """Raises `NotHere`, for another tenant's file, too."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM files WHERE file_id = ? AND tenant = ?",  # noqa: S608
        (file_id, tenant),
    ).fetchone()
    if row is None:
        raise NotHere("file", file_id)
    return StoredFile(*row)
