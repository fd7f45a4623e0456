"""Whether a store is whole: what SQLite can tell, and what must hold between its tables."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from retrieval.errors import StoreUnusable
from retrieval.store.changes import dim
from retrieval.store.connection import Connections
from retrieval.store.schema import MIGRATIONS, user_version

_MOST_FINDINGS = 100

_MUST_BE_EMPTY = (
    (
        "chunk {} has no vector",
        "SELECT key FROM chunks WHERE NOT EXISTS (SELECT 1 FROM vectors WHERE vectors.key = chunks.key)",
    ),
    (
        "the vector of chunk {} is not of {dim} numbers",
        "SELECT key FROM vectors WHERE length(vector) != 4 * :dim",
    ),
    (
        "document {} has not the chunks that it says",
        """SELECT document_id FROM documents LEFT JOIN chunks USING (number) GROUP BY number
            HAVING count(key) != n_chunks OR count(DISTINCT ordinal) != n_chunks
                OR (n_chunks AND (min(ordinal) != 0 OR max(ordinal) != n_chunks - 1))""",
    ),
    (
        "document {} is of a file that is not attached",
        """SELECT document_id FROM documents WHERE file_id != '' AND NOT EXISTS (
            SELECT 1 FROM attachments WHERE attachments.store_id = documents.store_id
                AND attachments.file_id = documents.file_id)""",
    ),
    (
        "the content of file {} is not of its length",
        "SELECT file_id FROM files JOIN contents USING (sha256) WHERE length(data) != size_bytes",
    ),
    (
        "content {} belongs to no file",
        "SELECT sha256 FROM contents WHERE NOT EXISTS (SELECT 1 FROM files WHERE files.sha256 = contents.sha256)",
    ),
)


def check(connections: Connections, quick: bool = False) -> list[str]:
    """What is wrong with the store, as sentences; an empty list where it is whole. It may be in use meanwhile.

    Reads the whole file; `quick` leaves out whether each index agrees with its table.
    """
    with connections.reading() as db:
        return findings(db, quick)


def findings(db: sqlite3.Connection, quick: bool = False) -> list[str]:
    """As `check`, of an open file."""
    found: list[str] = []
    try:
        found += _of_sqlite(db, quick)
        if user_version(db) == len(MIGRATIONS):
            found += _of_tables(db)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        found.append(f"it cannot be read to its end: {error}")
    return found


def require_readable_file(db: sqlite3.Connection, path: Path) -> None:
    """That SQLite finds the file whole; raises `StoreUnusable` with the first finding."""
    if found := _of_sqlite(db, quick=False):
        raise StoreUnusable(f"{path}: damaged ({found[0]}); restore a backup, or ingest again")


def _of_sqlite(db: sqlite3.Connection, quick: bool) -> list[str]:
    pragma = "quick_check" if quick else "integrity_check"
    rows = [str(row[0]) for row in db.execute(f"PRAGMA {pragma}({_MOST_FINDINGS})")]
    found = [] if rows == ["ok"] else rows
    for table, row, parent, _ in db.execute("PRAGMA foreign_key_check").fetchmany(_MOST_FINDINGS):
        found.append(f"row {row} of {table} belongs to a row of {parent} that is not there")
    return found


def _of_tables(db: sqlite3.Connection) -> list[str]:
    dimensions = dim(db)
    found: list[str] = []
    for sentence, query in _MUST_BE_EMPTY:
        rows = db.execute(query, {"dim": dimensions}).fetchmany(_MOST_FINDINGS)
        found += [sentence.format(row[0], dim=dimensions) for row in rows]
    return found
