"""Vector stores: whose they are, what they are called, when they end."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Mapping
from typing import Any, get_args

from retrieval.errors import NotHere
from retrieval.file_types import AttachmentStatus, Page, VectorStore
from retrieval.store.connection import Connections
from retrieval.store.listing import Listing
from retrieval.types import DEFAULT_STORE

_COLUMNS = (
    "store_id, tenant, name, created_at, last_active_at, metadata, description, expires_after_days, "
    "(SELECT coalesce(sum(usage_bytes), 0) FROM documents WHERE documents.store_id = vector_stores.store_id)"
)
_LISTING = Listing("vector_stores", _COLUMNS, "store_id", "vector store")
_SECONDS_OF_A_DAY = 86_400
_TOUCHED_EVERY_S = 60


class VectorStores:
    """The part of `SqliteFileStore` that keeps vector stores."""

    _connections: Connections

    def create_store(
        self,
        tenant: str,
        name: str,
        *,
        description: str = "",
        metadata: Mapping[str, str] | None = None,
        expires_after_days: int | None = None,
    ) -> VectorStore:
        store_id = f"vs_{secrets.token_hex(16)}"
        now = time.time()
        with self._connections.transaction() as db:
            db.execute(
                "INSERT INTO vector_stores (store_id, tenant, name, description, metadata, created_at, "
                "last_active_at, expires_after_days) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (store_id, tenant, name, description, _text(metadata), now, now, expires_after_days),
            )
            return readable(db, tenant, store_id)

    def store(self, tenant: str, store_id: str) -> VectorStore:
        with self._connections.reading() as db:
            return readable(db, tenant, store_id)

    def stores(self, tenant: str, page: Page) -> tuple[list[VectorStore], bool]:
        with self._connections.reading() as db:
            rows, more = _LISTING.page(db, page, ("(tenant = ? OR store_id = ?)", (tenant, DEFAULT_STORE)))
            return [_store(db, row) for row in rows], more

    def modify_store(
        self,
        tenant: str,
        store_id: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        expires_after_days: int | None = None,
        expires: bool = True,
    ) -> VectorStore:
        with self._connections.transaction() as db:
            _require_owned(db, tenant, store_id)
            db.execute(
                "UPDATE vector_stores SET name = coalesce(?, name), metadata = coalesce(?, metadata), "
                "expires_after_days = CASE WHEN ? THEN coalesce(?, expires_after_days) END, "
                "last_active_at = ? WHERE store_id = ?",
                (
                    name,
                    None if metadata is None else _text(metadata),
                    expires,
                    expires_after_days,
                    time.time(),
                    store_id,
                ),
            )
            return readable(db, tenant, store_id)

    def touch_store(self, store_id: str) -> None:
        now = time.time()
        stale = "store_id = ? AND abs(? - last_active_at) >= ?"
        values = (store_id, now, _TOUCHED_EVERY_S)
        with self._connections.reader() as db:
            due = db.execute(f"SELECT 1 FROM vector_stores WHERE {stale}", values).fetchone()  # noqa: S608
        if due:
            with self._connections.transaction() as db:
                db.execute(f"UPDATE vector_stores SET last_active_at = ? WHERE {stale}", (now, *values))  # noqa: S608

    def delete_store(self, tenant: str, store_id: str) -> None:
        with self._connections.transaction() as db:
            if store_id == DEFAULT_STORE:
                raise NotHere("vector store", store_id)
            _require_owned(db, tenant, store_id)
            # Its documents, attachments and batches go with it.
            db.execute("DELETE FROM vector_stores WHERE store_id = ?", (store_id,))

    def delete_expired(self, now: float) -> list[str]:
        """`now` in Unix seconds; `default` never expires."""
        over = "store_id != ? AND expires_after_days IS NOT NULL AND last_active_at + ? * expires_after_days <= ?"
        values = (DEFAULT_STORE, _SECONDS_OF_A_DAY, now)
        with self._connections.reader() as db:
            if not db.execute(f"SELECT 1 FROM vector_stores WHERE {over}", values).fetchone():  # noqa: S608
                return []
        with self._connections.transaction() as db:
            gone = db.execute(f"SELECT store_id FROM vector_stores WHERE {over}", values).fetchall()  # noqa: S608
            db.executemany("DELETE FROM vector_stores WHERE store_id = ?", gone)
        return [row[0] for row in gone]


def readable(db: sqlite3.Connection, tenant: str, store_id: str) -> VectorStore:
    """The tenant's, or `default`; raises `NotHere`."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM vector_stores WHERE store_id = ? AND (tenant = ? OR store_id = ?)",  # noqa: S608
        (store_id, tenant, DEFAULT_STORE),
    ).fetchone()
    if row is None:
        raise NotHere("vector store", store_id)
    return _store(db, row)


def require_readable(db: sqlite3.Connection, tenant: str, store_id: str) -> None:
    if store_id != DEFAULT_STORE:
        _require_owned(db, tenant, store_id)


def count_by_status(db: sqlite3.Connection, column: str, value: str) -> dict[AttachmentStatus, int]:
    """Of the attachments whose `column` is `value`; all statuses are named."""
    counts: dict[AttachmentStatus, int] = dict.fromkeys(get_args(AttachmentStatus), 0)
    counts.update(
        db.execute(
            f"SELECT status, count(*) FROM attachments WHERE {column} = ? AND {column} != '' GROUP BY status",  # noqa: S608
            (value,),
        ).fetchall()
    )
    return counts


def _require_owned(db: sqlite3.Connection, tenant: str, store_id: str) -> None:
    owned = db.execute(
        "SELECT 1 FROM vector_stores WHERE store_id = ? AND tenant = ?", (store_id, tenant)
    ).fetchone()
    if not owned:
        raise NotHere("vector store", store_id)


def _store(db: sqlite3.Connection, row: tuple[Any, ...]) -> VectorStore:
    store_id, tenant, name, created_at, last_active_at, metadata, description, days, usage_bytes = row
    return VectorStore(
        store_id=store_id,
        tenant=tenant,
        name=name,
        created_at=created_at,
        last_active_at=last_active_at,
        metadata=json.loads(metadata),
        description=description,
        expires_after_days=days,
        n_by_status=count_by_status(db, "store_id", store_id),
        usage_bytes=usage_bytes,
    )


def _text(metadata: Mapping[str, str] | None) -> str:
    return json.dumps(dict(metadata or {}))
