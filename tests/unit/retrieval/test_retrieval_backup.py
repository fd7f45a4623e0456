"""Copies of a store: made while it is written to, whole or not there; and what its check finds."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import retrieval
from retrieval.errors import StoreFull, StoreUnusable
from retrieval.file_types import ToAttach
from retrieval.store.backup import backup
from retrieval.store.integrity import check
from retrieval.store.sqlite_store import SqliteStore, document_id_for
from retrieval.types import DEFAULT_STORE, Chunk, Document

DIM = 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    store = opened(tmp_path / "store.db")
    for n in range(5):
        put(store, f"s{n}", str(n))
    store.close()
    return tmp_path / "store.db"


def opened(path: Path) -> SqliteStore:
    store = SqliteStore(path)
    store.claim_embedder("model", DIM)
    return store


def put(store: SqliteStore, source: str, content: str, n_chunks: int = 4) -> None:
    document = Document(document_id_for(source), source, source, source, content, 1, n_chunks, 0.0)
    chunks = [Chunk(n, (), f"{content} {n} {'x' * 3000}", 2) for n in range(n_chunks)]
    store.put(document, chunks, np.full((n_chunks, DIM), 0.5, dtype=np.float32))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_copy_is_the_store_with_an_identity_of_its_own(path: Path, tmp_path: Path):
    told: list[tuple[int, int]] = []
    store = opened(path)
    file = store.files.add_file("t", "a.md", "p", b"bytes")
    store.files.attach("t", DEFAULT_STORE, [ToAttach(file.file_id)])
    backup(path, tmp_path / "copy.db", lambda done, total: told.append((done, total)))
    assert told
    assert told[-1] == ((tmp_path / "copy.db").stat().st_size,) * 2
    assert names(tmp_path) == ["copy.db", "store.db", "store.db-shm", "store.db-wal"]
    copy = opened(tmp_path / "copy.db")
    assert copy.documents() == store.documents()
    assert copy.version() == store.version()
    assert copy.identity() != store.identity()
    assert copy.files.file_data("t", file.file_id) == b"bytes"
    assert copy.files.pending(9) == store.files.pending(9)
    assert check(copy.connections) == []
    put(copy, "new", "new")
    assert store.find("new") is None
    copy.close()
    put(store, "s0", "later")
    backup(path, tmp_path / "copy.db")
    copy = opened(tmp_path / "copy.db")
    assert copy.documents() == store.documents()
    copy.close()
    store.close()


def test_what_is_written_meanwhile_neither_shows_nor_makes_it_start_again(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("retrieval.store.backup._PAGES_AT_ONCE", 2)
    store = opened(path)
    before = store.documents()
    told: list[int] = []

    def write(done: int, _total: int) -> None:
        told.append(done)
        put(store, "s1", str(done))
        put(store, f"new {done}", "new")

    backup(path, tmp_path / "copy.db", write)
    assert len(told) > 10
    assert told == sorted(set(told))
    copy = opened(tmp_path / "copy.db")
    assert copy.documents() == before
    assert check(copy.connections) == []
    copy.close()
    store.close()


def test_what_cannot_be_copied_is_refused(path: Path, tmp_path: Path):
    noise = tmp_path / "noise.db"
    noise.write_bytes(b"noise" * 4000)
    link = tmp_path / "link.db"
    link.symlink_to(path)
    in_use = opened(tmp_path / "in_use.db")
    for store_path, target, reason in (
        (path, path, "the store itself"),
        (path, link, "the store itself"),
        (path, tmp_path, "a folder"),
        (path, tmp_path / "in_use.db", "in use"),
        (path, tmp_path / "gone" / "copy.db", "can be written"),
        (tmp_path / "gone.db", tmp_path / "copy.db", "no store"),
        (noise, tmp_path / "copy.db", "not a store"),
    ):
        before = names(tmp_path)
        with pytest.raises(StoreUnusable, match=reason):
            backup(store_path, target)
        assert names(tmp_path) == before
    in_use.close()


def test_a_damaged_store_is_not_copied_over_a_good_copy(path: Path, tmp_path: Path):
    backup(path, tmp_path / "copy.db")
    good = (tmp_path / "copy.db").read_bytes()
    data = bytearray(path.read_bytes())
    for page in range(3, len(data) // 8192):
        data[page * 8192 : page * 8192 + 64] = b"\xa5" * 64
    path.write_bytes(data)
    with pytest.raises(StoreUnusable, match="damaged"):
        backup(path, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_bytes() == good
    assert names(tmp_path) == ["copy.db", "store.db"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_earlier_copy(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
):
    (tmp_path / "copy.db").write_bytes(b"earlier")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync", fail) if call == "fsync" else (Path, "replace", fail)))
    with pytest.raises(StoreFull, match=r"copy\.db"):
        backup(path, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_bytes() == b"earlier"
    assert names(tmp_path) == ["copy.db", "store.db"]


def test_one_backup_at_a_time_goes_to_a_target(path: Path, tmp_path: Path):
    def meanwhile(_done: int, _total: int) -> None:
        with pytest.raises(StoreUnusable, match="another backup"):
            backup(path, tmp_path / "copy.db")

    backup(path, tmp_path / "copy.db", meanwhile)
    assert names(tmp_path) == ["copy.db", "store.db"]


def test_a_killed_backup_is_made_good_by_the_next(path: Path, tmp_path: Path):
    script = (
        "import os, sys; from retrieval.store.backup import backup\n"
        "backup(sys.argv[1], sys.argv[2], lambda *_: os.kill(os.getpid(), 9))"
    )
    target = tmp_path / "copy.db"
    root = Path(retrieval.__file__).parents[1]
    killed = subprocess.run([sys.executable, "-c", script, str(path), str(target)], cwd=root, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    backup(path, target)
    assert names(tmp_path) == ["copy.db", "store.db"]
    copy = opened(target)
    assert len(copy.documents()) == 5
    copy.close()


DAMAGE = {
    "DELETE FROM vectors WHERE key = 1": "chunk 1 has no vector",
    "UPDATE vectors SET vector = x'00' WHERE key = 2": "chunk 2 is not of 8 numbers",
    "UPDATE chunks SET ordinal = 7 WHERE key = 3": f"document {document_id_for('s0')} has not the chunks",
    "DELETE FROM chunks WHERE key = 4": f"document {document_id_for('s0')} has not the chunks",
    "UPDATE documents SET n_chunks = 9 WHERE number = 2": f"document {document_id_for('s1')} has not",
    "UPDATE documents SET file_id = 'file-1' WHERE number = 2": "is of a file that is not attached",
    "INSERT INTO contents VALUES ('ab', x'')": "content ab belongs to no file",
    "DELETE FROM documents WHERE number = 1": "of chunks belongs to a row of documents that is not there",
}


@pytest.mark.parametrize("statement", DAMAGE)
def test_the_check_finds(path: Path, statement: str):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:  # foreign keys are off here
        db.execute(statement)
    store = opened(path)
    for quick in (False, True):
        assert any(DAMAGE[statement] in finding for finding in check(store.connections, quick))
    store.close()


def test_the_check_of_a_damaged_file_is_a_finding(path: Path):
    data = bytearray(path.read_bytes())
    for page in range(len(data) // 8192 - 5, len(data) // 8192):
        data[page * 8192 : page * 8192 + 64] = b"\xa5" * 64
    path.write_bytes(data)
    store = SqliteStore(path)
    assert check(store.connections)
    store.close()


def test_a_store_may_be_checked_while_it_is_written_to(path: Path):
    store = opened(path)
    writer = threading.Thread(target=lambda: [put(store, "a", str(n)) for n in range(10)])
    writer.start()
    while writer.is_alive():
        assert check(store.connections) == []
        time.sleep(0.01)
    writer.join()
    store.close()
