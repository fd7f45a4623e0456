"""The store's tables, as a list of migrations: a file's `user_version` is how many of them it has had."""

from __future__ import annotations

import sqlite3

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
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
    ),
)


def user_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to this program's version, in one transaction. It must not be of a newer one."""
    if user_version(connection) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read again under the lock: another process may have been first.
        for statements in MIGRATIONS[user_version(connection) :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
