"""A store of an earlier version is opened and brought up to this one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import retrieval
from retrieval.embed.text import chunk_text_for_embedding
from retrieval.errors import StoreUnusable
from retrieval.store.integrity import check
from retrieval.store.schema import MIGRATIONS
from retrieval.store.sqlite_store import SqliteStore, document_id_for
from retrieval.types import DEFAULT_STORE, DEPLOYMENT, Chunk, Document

DIM = 8


def vector(key: int) -> bytes:
    return np.full(DIM, key, dtype="<f4").tobytes()


def first_version(path: Path, n_documents: int = 3) -> None:
    """As migration 1 left it: document n has n chunks; then one more document came and went."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA foreign_keys = ON")
        for statement in MIGRATIONS[0]:
            db.execute(statement)
        db.execute("PRAGMA user_version = 1")
        db.execute("INSERT INTO meta VALUES ('embedder', ?)", (f'{{"identity": "model", "dim": {DIM}}}',))
        key = 0
        for n in range(n_documents + 1):
            document_id = document_id_for(f"s{n}")
            db.execute(
                "INSERT INTO documents VALUES (?, ?, ?, ?, 'sha', 10, ?, 1.5)",
                (document_id, f"s{n}", f"s{n}.md", f"T{n}", n),
            )
            for ordinal in range(n):
                key += 1
                db.execute(
                    "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, 3)",
                    (key, f"{document_id}-{ordinal}", document_id, ordinal, '["Ä"]', f"text {n} {ordinal}"),
                )
                db.execute("INSERT INTO vectors VALUES (?, ?)", (key, vector(key)))
            db.execute("INSERT INTO changes (op, document_id, at) VALUES ('put', ?, 1.5)", (document_id,))
        db.execute("DELETE FROM documents WHERE document_id = ?", (document_id_for(f"s{n_documents}"),))
        db.execute("INSERT INTO changes (op, document_id, at) VALUES ('delete', 'x', 1.5)")


def test_everything_of_the_first_version_is_in_default(tmp_path: Path):
    path = tmp_path / "store.db"
    first_version(path)
    store = SqliteStore(path)
    store.claim_embedder("model", DIM)
    assert store.documents() == store.documents(DEFAULT_STORE)
    assert store.documents() == [
        Document(document_id_for(f"s{n}"), f"s{n}", f"s{n}.md", f"T{n}", "sha", 10, n, 1.5) for n in range(3)
    ]
    with store.snapshot() as snapshot:
        (rows,) = snapshot.rows(100)
        assert len({entry.number for entry in snapshot.entries()}) == 3
    assert rows.keys.tolist() == [1, 2, 3]
    assert rows.vectors.tolist() == [[float(key)] * DIM for key in (1, 2, 3)]
    assert rows.texts == ("T1\nÄ\ntext 1 0", "T2\nÄ\ntext 2 0", "T2\nÄ\ntext 2 1")
    passage = store.passage(f"{document_id_for('s2')}-1")
    assert passage is not None
    assert (passage.key, passage.text) == (3, "text 2 1")
    assert store.files.store("anyone", DEFAULT_STORE).tenant == DEPLOYMENT
    assert store.files.store("anyone", DEFAULT_STORE).usage_bytes == 3 * (len("text 1 0") + 4 * DIM)
    assert check(store.connections) == []
    assert store.identity()
    store.close()


def test_neither_versions_nor_keys_of_the_first_version_come_again(tmp_path: Path):
    path = tmp_path / "store.db"
    first_version(path)
    store = SqliteStore(path)
    store.claim_embedder("model", DIM)
    version = store.version()
    assert version > 5
    assert [store.changes(since) for since in range(version)] == [None] * version
    chunks = [Chunk(0, ("Ä",), "text 2 1", 3), Chunk(1, ("Ä",), "new", 1)]
    store.put(store.documents()[2], chunks, np.ones((2, DIM), dtype=np.float32))
    changes = store.changes(version)
    assert changes is not None
    # What was unchanged is told by the text hash that the migration made; 4 to 6 were deleted before it.
    assert (changes.gone_keys, changes.added.keys.tolist()) == ((2,), [7])
    passages = store.neighbours(document_id_for("s2"), [0, 1])
    assert [passage.key for passage in passages] == [3, 7]
    assert passages[0].chunk_id == f"{document_id_for('s2')}-1"
    store.close()


def test_an_empty_store_of_the_first_version_opens(tmp_path: Path):
    first_version(tmp_path / "store.db", 0)
    store = SqliteStore(tmp_path / "store.db")
    assert store.documents() == []
    store.close()


def test_a_migration_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "store.db"
    first_version(path)
    for broken_at in range(len(MIGRATIONS[1]) + 1):
        statements = (*MIGRATIONS[1][:broken_at], "this is no statement")
        monkeypatch.setattr("retrieval.store.schema.MIGRATIONS", (MIGRATIONS[0], statements))
        with pytest.raises(StoreUnusable):
            SqliteStore(path)
    monkeypatch.undo()
    store = SqliteStore(path)
    assert len(store.documents()) == 3
    assert check(store.connections) == []
    store.close()


def test_processes_may_migrate_at_once(tmp_path: Path):
    path = tmp_path / "store.db"
    first_version(path)
    script = (
        "import sys; from retrieval.store.sqlite_store import SqliteStore; SqliteStore(sys.argv[1]).close()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path)],
            cwd=Path(retrieval.__file__).parents[1],
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    assert [process.communicate()[1] for process in processes] == [b""] * 2
    store = SqliteStore(path)
    assert len(store.documents()) == 3
    store.close()


def test_texts_are_hashed_as_they_are_embedded(tmp_path: Path):
    first_version(tmp_path / "store.db")
    store = SqliteStore(tmp_path / "store.db")
    chunk = store.chunks(document_id_for("s1"))[0]
    assert chunk_text_for_embedding("T1", chunk) == "T1\nÄ\ntext 1 0"
    store.close()
