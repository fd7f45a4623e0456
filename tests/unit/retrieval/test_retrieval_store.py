"""The SQLite store under faults: crashes, full disks, damaged files, several processes."""

from __future__ import annotations

import gc
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import retrieval
from retrieval.errors import EmbedderMismatch, NotHere, StoreFull, StoreUnusable
from retrieval.file_types import Page, ToAttach
from retrieval.store.integrity import check
from retrieval.store.schema import MIGRATIONS
from retrieval.store.sqlite_store import SqliteStore, document_id_for
from retrieval.types import Chunk, Document

ROOT = Path(retrieval.__file__).parents[1]
DIM = 8


def put(store: SqliteStore, source: str, content: str = "a", n_chunks: int = 3, text: str = "text") -> None:
    document = Document(document_id_for(source), source, source, source, content, 1, n_chunks, 0.0)
    chunks = [Chunk(ordinal, (), f"{text} {content}", 2) for ordinal in range(n_chunks)]
    store.put(document, chunks, np.full((n_chunks, DIM), DIM**-0.5, dtype=np.float32))


def rows(store: SqliteStore) -> tuple[list[int], np.ndarray]:
    with store.snapshot() as snapshot:
        found = list(snapshot.rows(1000))
    keys = [int(key) for each in found for key in each.keys]
    return keys, np.concatenate([np.empty((0, DIM), dtype=np.float32), *(each.vectors for each in found)])


def opened(path: Path, **options: int) -> SqliteStore:
    store = SqliteStore(path, **options)
    store.claim_embedder("model", DIM)
    return store


def run(script: str, *arguments: str) -> subprocess.Popen[str]:
    preamble = (
        "import sys, numpy as np\nfrom retrieval.store.sqlite_store import SqliteStore, document_id_for\n"
        "from retrieval.types import Chunk, Document\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", preamble + script, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


WRITE = f"""
store = SqliteStore(sys.argv[1])
store.claim_embedder("model", {DIM})
n = int(sys.argv[2])
print("ready", flush=True)
while True:
    source, content = f"s{{n % 7}}", str(n)
    chunks = [Chunk(i, (), f"{{content}} " + "x" * 3000, 2) for i in range(1 + n % 5)]
    document = Document(document_id_for(source), source, source, source, content, 1, len(chunks), 0.0)
    store.put(document, chunks, np.full((len(chunks), {DIM}), n, dtype=np.float32))
    print(source, content, flush=True)
    n += 1
"""


def test_kill_9_loses_no_acknowledged_document_and_leaves_no_half_one(tmp_path: Path):
    path = tmp_path / "store.db"
    acknowledged: dict[str, int] = {}
    n = 0
    delays = random.Random(5)
    for _ in range(5):
        process = run(WRITE, str(path), str(n))
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delays.uniform(0.01, 0.25))
        process.send_signal(signal.SIGKILL)
        lines = process.communicate()[0].splitlines(keepends=True)
        for line in lines:
            if line.endswith("\n"):
                source, content = line.split()
                acknowledged[source] = int(content)
                n = int(content) + 1
        store = opened(path)
        held = {document.source: document for document in store.documents()}
        for source, content in acknowledged.items():
            # One write may have been committed and killed before it could say so.
            assert int(held[source].content_sha256) in {content, n}
        acknowledged = {source: int(document.content_sha256) for source, document in held.items()}
        assert check(store.connections) == []
        keys, vectors = rows(store)
        passages = store.passages([(key, 0.0) for key in keys])
        assert len(passages) == len(keys) == sum(document.n_chunks for document in held.values())
        for passage, vector in zip(passages, vectors, strict=True):
            content = held[passage.filename].content_sha256
            assert passage.text.startswith(content + " ")
            assert vector.tolist() == [float(content)] * DIM
        n += 1
        store.close()
    assert n > 10


def test_a_full_disk_keeps_the_old_content(tmp_path: Path):
    path = tmp_path / "store.db"
    store = opened(path)
    put(store, "a", "old")
    store.connections.writer.execute("PRAGMA max_page_count = 60")
    version = store.version()
    with pytest.raises(StoreFull, match="free space") as raised:
        put(store, "a", "new", n_chunks=80, text="x" * 4000)
    assert str(path) in str(raised.value)
    found = store.find("a")
    assert found is not None
    assert found.content_sha256 == "old"
    assert {passage.text for passage in store.passages([(key, 0) for key in rows(store)[0]])} == {"text old"}
    assert store.version() == version
    store.connections.writer.execute("PRAGMA max_page_count = 100000")
    put(store, "a", "new", n_chunks=80, text="x" * 4000)
    assert len(rows(store)[0]) == 80
    store.close()


def test_a_full_disk_seen_by_the_system_is_the_same_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(StoreFull, match="free space"):
        SqliteStore(tmp_path / "store.db")


def test_what_is_not_a_store_is_refused_and_left_as_it_is(tmp_path: Path):
    noise = tmp_path / "noise.db"
    noise.write_bytes(b"not a database, but long enough to be read as one" * 100)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    newer = tmp_path / "newer.db"
    with sqlite3.connect(newer) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    for path, reason in ((noise, "not a store"), (foreign, "another program"), (newer, "upgrade")):
        before = path.read_bytes()
        with pytest.raises(StoreUnusable, match=reason) as raised:
            SqliteStore(path)
        assert str(path) in str(raised.value)
        assert path.read_bytes() == before
    with pytest.raises(StoreUnusable):
        SqliteStore(tmp_path)
    with pytest.raises(StoreUnusable, match="can be written"):
        SqliteStore(noise / "store.db")


def test_damage_met_while_reading_is_typed(tmp_path: Path):
    path = tmp_path / "store.db"
    store = opened(path)
    put(store, "a", n_chunks=50, text="x" * 2000)
    store.close()
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(path.stat().st_size - 8192))
    store = SqliteStore(path)  # its first page, the schema's, is whole
    with pytest.raises(StoreUnusable, match="damaged"):
        rows(store)
    store.close()


def test_a_store_locked_by_another_process_says_so_and_still_reads(tmp_path: Path):
    path = tmp_path / "store.db"
    store = opened(path, busy_timeout_ms=50)
    put(store, "a")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnusable, match="locked by another process; try again"):
        put(store, "b")
    assert [document.source for document in store.documents()] == ["a"]
    other.execute("ROLLBACK")
    other.close()
    put(store, "b")
    store.close()


def test_changes_of_another_process_are_seen_at_once(tmp_path: Path):
    path = tmp_path / "store.db"
    store = opened(path)
    put(store, "a")
    version = store.version()
    script = f"""
store = SqliteStore(sys.argv[1])
store.claim_embedder("model", {DIM})
store.delete(document_id_for("a"))
store.close()
"""
    process = run(script, str(path))
    assert process.communicate()[1] == ""
    assert store.version() > version
    assert store.documents() == []
    store.close()


def test_processes_may_create_the_same_store_at_once(tmp_path: Path):
    path = tmp_path / "new" / "store.db"
    script = f"""
store = SqliteStore(sys.argv[1])
store.claim_embedder("model", {DIM})
for n in range(10):
    source = sys.argv[2] + str(n)
    store.put(Document(document_id_for(source), source, source, source, "", 1, 1, 0.0), [Chunk(0, (), "x", 1)],
              np.ones((1, {DIM}), dtype=np.float32))
store.close()
"""
    processes = [run(script, str(path), name) for name in "abcd"]
    assert [process.communicate()[1] for process in processes] == [""] * 4
    store = opened(path)
    assert len(store.documents()) == len(rows(store)[0]) == 40
    changes = store.changes(0)
    assert changes is not None
    assert len(changes.added.keys) == len(changes.entries) == 40
    store.close()


def test_a_model_bound_by_another_process_stops_a_put(tmp_path: Path):
    path = tmp_path / "store.db"
    store, other = opened(path), SqliteStore(path)
    other.claim_embedder("other model", DIM)  # allowed: the store is still empty
    with pytest.raises(EmbedderMismatch, match="other model"):
        put(store, "a")
    store.close()
    other.close()


def test_put_without_a_model_is_refused(tmp_path: Path):
    store = SqliteStore(tmp_path / "store.db")
    with pytest.raises(ValueError, match="claim_embedder"):
        put(store, "a")
    store.close()


def test_commits_are_durable_and_checked(tmp_path: Path):
    store = opened(tmp_path / "store.db")
    pragma = {
        name: store.connections.writer.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys", "user_version")
    }
    assert pragma == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "user_version": len(MIGRATIONS),
    }
    store.close()


def open_files(folder: Path) -> list[str]:
    gc.collect()
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors through /proc")
def test_close_leaks_no_descriptor(tmp_path: Path):
    store = opened(tmp_path / "store.db")
    put(store, "a")
    threads = [threading.Thread(target=lambda: [store.documents() for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert open_files(tmp_path)
    store.close()
    assert open_files(tmp_path) == []
    store.close()
    for call in (store.version, store.documents, lambda: put(store, "b")):
        with pytest.raises(StoreUnusable, match="closed"):
            call()
    (tmp_path / "noise.db").write_bytes(b"noise" * 1000)
    with pytest.raises(StoreUnusable):
        SqliteStore(tmp_path / "noise.db")
    assert open_files(tmp_path) == []
    assert sorted(file.name for file in tmp_path.iterdir()) == ["noise.db", "store.db"]


def test_a_reader_beside_close_gives_its_connection_back(tmp_path: Path):
    store = opened(tmp_path / "store.db")
    with store.connections.reader() as db:
        store.close()
        assert db.execute("SELECT 1").fetchone() == (1,)
    assert open_files(tmp_path) == []


def test_a_snapshot_that_was_left_early_holds_nothing_up(tmp_path: Path):
    store = opened(tmp_path / "store.db")
    put(store, "a", n_chunks=50, text="x" * 2000)
    with pytest.raises(ZeroDivisionError), store.snapshot() as snapshot:
        print(next(snapshot.rows(5)), 1 // 0)
    abandoned = store.snapshot()
    batches = abandoned.__enter__().rows(5)
    next(batches)
    abandoned.__exit__(None, None, None)
    put(store, "b")
    busy, log, moved = store.connections.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert (busy, log, moved) == (0, 0, 0)
    assert (tmp_path / "store.db-wal").stat().st_size == 0
    store.close()


def test_what_fails_beside_a_snapshot_is_not_the_stores_error(tmp_path: Path):
    store = opened(tmp_path / "store.db")
    with pytest.raises(FileNotFoundError), store.snapshot():
        (tmp_path / "gone").read_bytes()
    store.close()


def test_the_places_of_what_was_deleted_do_not_pile_up(tmp_path: Path):
    store = SqliteStore(tmp_path / "store.db")
    files = store.files

    def kinds() -> list[str]:
        with store.connections.reader() as db:
            return [kind for (kind,) in db.execute("SELECT kind FROM departed ORDER BY place")]

    made = [files.add_file("t", str(n), "p", b"").file_id for n in range(4)]
    store_id = files.create_store("t", "s").store_id
    files.attach("t", store_id, [ToAttach(file_id) for file_id in made])
    files.detach("t", store_id, made[0])
    assert kinds() == ["attachments"]
    files.delete_store("t", store_id)  # with three attachments
    assert kinds() == ["vector_stores"]
    files.delete_file("t", made[1])
    assert [file.file_id for file in files.files("t", Page(after=made[1]))[0]] == [made[0]]
    with store.connections.transaction() as db:
        db.execute("UPDATE sqlite_sequence SET seq = seq + 99999 WHERE name = 'departed'")
    files.delete_file("t", made[3])
    assert kinds() == ["files"]
    with pytest.raises(NotHere):
        files.files("t", Page(after=made[1]))
    store.close()
