"""The store's tables, as a list of migrations: a file's `user_version` is how many of them it has had."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import time

from retrieval.embed.text import chunk_text_for_embedding
from retrieval.types import Chunk

VECTORS_NEXT = """CREATE TABLE vectors_next (
    key INTEGER PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
    vector BLOB NOT NULL
) STRICT"""

_FIRST = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE documents (
        document_id TEXT PRIMARY KEY,
        source TEXT NOT NULL UNIQUE,
        filename TEXT NOT NULL,
        title TEXT NOT NULL,
        content_sha256 TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        n_chunks INTEGER NOT NULL,
        ingested_at REAL NOT NULL
    ) STRICT""",
    # AUTOINCREMENT: a key is never given out twice, so that an index which is a moment behind can only
    # miss a chunk, never return another one's text.
    """CREATE TABLE chunks (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        chunk_id TEXT NOT NULL UNIQUE,
        document_id TEXT NOT NULL REFERENCES documents ON DELETE CASCADE,
        ordinal INTEGER NOT NULL,
        heading_path TEXT NOT NULL,
        text TEXT NOT NULL,
        n_tokens INTEGER NOT NULL,
        UNIQUE (document_id, ordinal)
    ) STRICT""",
    """CREATE TABLE vectors (
        key INTEGER PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
        vector BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE changes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        op TEXT NOT NULL CHECK (op IN ('put', 'delete')),
        document_id TEXT NOT NULL,
        at REAL NOT NULL
    ) STRICT""",
)

_VECTOR_STORES = (
    """CREATE TABLE vector_stores (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        store_id TEXT NOT NULL UNIQUE,
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        description TEXT NOT NULL,
        metadata TEXT NOT NULL,
        created_at REAL NOT NULL,
        last_active_at REAL NOT NULL,
        expires_after_days INTEGER
    ) STRICT""",
    # An index ends with the rowid: this one gives a tenant's stores in the order of their making.
    "CREATE INDEX vector_stores_by_tenant ON vector_stores (tenant)",
    """INSERT INTO vector_stores (store_id, tenant, name, description, metadata, created_at, last_active_at)
        VALUES ('default', '', 'default', '', '{}', now_s(), now_s())""",
    """CREATE TABLE files (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        file_id TEXT NOT NULL UNIQUE,
        tenant TEXT NOT NULL,
        filename TEXT NOT NULL,
        purpose TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        sha256 TEXT NOT NULL REFERENCES contents,
        created_at REAL NOT NULL
    ) STRICT""",
    "CREATE INDEX files_by_tenant ON files (tenant)",
    "CREATE INDEX files_by_content ON files (sha256)",
    "CREATE TABLE contents (sha256 TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT",
    """CREATE TRIGGER file_gone AFTER DELETE ON files BEGIN
        DELETE FROM contents WHERE sha256 = OLD.sha256
            AND NOT EXISTS (SELECT 1 FROM files WHERE sha256 = OLD.sha256);
    END""",
    """CREATE TABLE attachments (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        store_id TEXT NOT NULL REFERENCES vector_stores (store_id) ON DELETE CASCADE,
        file_id TEXT NOT NULL REFERENCES files (file_id) ON DELETE CASCADE,
        tenant TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('in_progress', 'completed', 'failed', 'cancelled')),
        created_at REAL NOT NULL,
        attributes TEXT NOT NULL,
        chunk_tokens INTEGER,
        overlap_tokens INTEGER,
        batch_id TEXT NOT NULL,
        document_id TEXT NOT NULL DEFAULT '',
        usage_bytes INTEGER NOT NULL DEFAULT 0,
        n_chunks INTEGER NOT NULL DEFAULT 0,
        error_code TEXT NOT NULL DEFAULT '',
        error TEXT NOT NULL DEFAULT '',
        UNIQUE (store_id, file_id)
    ) STRICT""",
    "CREATE INDEX attachments_by_store ON attachments (store_id)",
    "CREATE INDEX attachments_by_status ON attachments (store_id, status)",
    "CREATE INDEX attachments_by_file ON attachments (file_id)",
    "CREATE INDEX attachments_by_batch ON attachments (batch_id, status) WHERE batch_id != ''",
    "CREATE INDEX attachments_pending ON attachments (status) WHERE status = 'in_progress'",
    """CREATE TABLE batches (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        batch_id TEXT NOT NULL UNIQUE,
        store_id TEXT NOT NULL REFERENCES vector_stores (store_id) ON DELETE CASCADE,
        tenant TEXT NOT NULL,
        created_at REAL NOT NULL,
        cancelled INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    "CREATE INDEX batches_by_store ON batches (store_id)",
)

_DOCUMENTS = (
    """CREATE TABLE documents_2 (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        document_id TEXT NOT NULL UNIQUE,
        store_id TEXT NOT NULL REFERENCES vector_stores (store_id) ON DELETE CASCADE,
        source TEXT NOT NULL,
        file_id TEXT NOT NULL,
        filename TEXT NOT NULL,
        title TEXT NOT NULL,
        content_sha256 TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        n_chunks INTEGER NOT NULL,
        ingested_at REAL NOT NULL,
        attributes TEXT NOT NULL,
        usage_bytes INTEGER NOT NULL,
        UNIQUE (store_id, source)
    ) STRICT""",
    """INSERT INTO documents_2 (document_id, store_id, source, file_id, filename, title, content_sha256,
            size_bytes, n_chunks, ingested_at, attributes, usage_bytes)
        SELECT document_id, 'default', source, '', filename, title, content_sha256,
            size_bytes, n_chunks, ingested_at, '{}', coalesce((
                SELECT sum(length(CAST(text AS BLOB)) + length(vector))
                FROM chunks JOIN vectors USING (key) WHERE chunks.document_id = documents.document_id), 0)
        FROM documents ORDER BY rowid""",
    """CREATE TABLE chunks_2 (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        chunk_id TEXT NOT NULL UNIQUE,
        number INTEGER NOT NULL REFERENCES documents_2 ON DELETE CASCADE,
        ordinal INTEGER NOT NULL,
        page INTEGER,
        heading_path TEXT NOT NULL,
        text TEXT NOT NULL,
        n_tokens INTEGER NOT NULL,
        embedded_sha256 BLOB NOT NULL
    ) STRICT""",
    """INSERT INTO chunks_2
        SELECT key, chunk_id, number, ordinal, NULL, heading_path, text, n_tokens,
            embedded_sha256(title, heading_path, text)
        FROM chunks JOIN documents_2 USING (document_id) ORDER BY key""",
    # Keys that were given out and deleted must not come again either.
    "INSERT INTO sqlite_sequence SELECT 'chunks_2', 0 WHERE NOT EXISTS (SELECT 1 FROM chunks_2)",
    """UPDATE sqlite_sequence SET seq = coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'chunks'), 0)
        WHERE name = 'chunks_2'""",
    "DROP TABLE chunks",
    "DROP TABLE documents",
    "ALTER TABLE documents_2 RENAME TO documents",
    "ALTER TABLE chunks_2 RENAME TO chunks",
    "CREATE INDEX documents_by_usage ON documents (store_id, usage_bytes)",
    "CREATE INDEX documents_by_file ON documents (file_id, store_id) WHERE file_id != ''",
    # Not unique: chunks that move within a document pass one another.
    "CREATE INDEX chunks_by_place ON chunks (number, ordinal)",
    "CREATE INDEX chunks_by_text ON chunks (embedded_sha256)",
    VECTORS_NEXT,
)

_LOG = (
    "ALTER TABLE changes RENAME TO changes_1",
    """CREATE TABLE changes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        op INTEGER NOT NULL,
        id INTEGER NOT NULL
    ) STRICT""",
    # 5: everything is new (retrieval.store.changes.Op). Versions go on from where they were.
    "INSERT INTO changes SELECT seq + 1, 5, 0 FROM changes_1 ORDER BY seq DESC LIMIT 1",
    "DROP TABLE changes_1",
    # Triggers, so that nothing changes without a record, deletions by cascade included.
    """CREATE TRIGGER chunk_added AFTER INSERT ON chunks BEGIN
        INSERT INTO changes (op, id) VALUES (0, NEW.key);
    END""",
    """CREATE TRIGGER chunk_gone AFTER DELETE ON chunks BEGIN
        INSERT INTO changes (op, id) VALUES (1, OLD.key);
    END""",
    """CREATE TRIGGER document_added AFTER INSERT ON documents BEGIN
        INSERT INTO changes (op, id) VALUES (2, NEW.number);
    END""",
    """CREATE TRIGGER document_changed AFTER UPDATE ON documents BEGIN
        INSERT INTO changes (op, id) VALUES (3, NEW.number);
    END""",
    """CREATE TRIGGER document_gone AFTER DELETE ON documents BEGIN
        INSERT INTO changes (op, id) VALUES (4, OLD.number);
    END""",
    "INSERT INTO meta VALUES ('identity', new_identity())",
)

_DEPARTED = (
    # Where what was deleted stood in its list, so that who deletes while reading a list can go on from there.
    # `owner` is whose list it was: a tenant's, or a vector store's. The last 100,000 are kept.
    """CREATE TABLE departed (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        owner TEXT NOT NULL,
        id TEXT NOT NULL,
        seq INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX departed_by_id ON departed (owner, id, kind)",
    """CREATE TRIGGER departed_prune AFTER INSERT ON departed BEGIN
        DELETE FROM departed WHERE place <= NEW.place - 100000;
    END""",
    """CREATE TRIGGER file_departed AFTER DELETE ON files BEGIN
        INSERT INTO departed (kind, owner, id, seq) VALUES ('files', OLD.tenant, OLD.file_id, OLD.seq);
    END""",
    """CREATE TRIGGER vector_store_departed AFTER DELETE ON vector_stores BEGIN
        DELETE FROM departed WHERE owner = OLD.store_id AND kind = 'attachments';
        INSERT INTO departed (kind, owner, id, seq)
            VALUES ('vector_stores', OLD.tenant, OLD.store_id, OLD.seq);
    END""",
    # Not of those that go because their store does.
    """CREATE TRIGGER attachment_departed AFTER DELETE ON attachments
        WHEN EXISTS (SELECT 1 FROM vector_stores WHERE store_id = OLD.store_id) BEGIN
        INSERT INTO departed (kind, owner, id, seq)
            VALUES ('attachments', OLD.store_id, OLD.file_id, OLD.seq);
    END""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _VECTOR_STORES + _DOCUMENTS + _LOG, _DEPARTED)


def user_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def new_identity() -> str:
    return secrets.token_hex(16)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to this program's version, in one transaction. It must not be of a newer one."""
    if user_version(connection) == len(MIGRATIONS):
        return
    connection.create_function("now_s", 0, time.time)
    connection.create_function("new_identity", 0, new_identity)
    connection.create_function("embedded_sha256", 3, _embedded_sha256)
    # While tables are rebuilt, dropping the old ones must not cascade: https://sqlite.org/lang_altertable.html
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read again under the lock: another process may have been first.
        for statements in MIGRATIONS[user_version(connection) :]:
            for statement in statements:
                connection.execute(statement)
        if connection.execute("PRAGMA foreign_key_check").fetchone():
            raise sqlite3.DatabaseError("rows without the rows that they belong to")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    finally:
        connection.execute("PRAGMA foreign_keys = ON")


def embedded_sha256(title: str, chunk: Chunk) -> bytes:
    """Of the text that the chunk's vector is made of."""
    return hashlib.sha256(chunk_text_for_embedding(title, chunk).encode()).digest()


def _embedded_sha256(title: str, heading_path: str, text: str) -> bytes:
    return embedded_sha256(title, Chunk(0, tuple(json.loads(heading_path)), text, 0))
