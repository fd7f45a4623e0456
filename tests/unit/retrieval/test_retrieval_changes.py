"""The change log: bounded, and honest about what it no longer knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from retrieval.store import changes
from retrieval.store.sqlite_store import SqliteStore, document_id_for
from retrieval.types import Chunk, Document


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db")
    store.claim_embedder("model", 2)
    yield store
    store.close()


def put(store: SqliteStore, source: str, n_chunks: int) -> None:
    document = Document(document_id_for(source), source, source, source, "", 1, n_chunks, 0.0)
    chunks = [Chunk(n, (), f"{source} {n}", 1) for n in range(n_chunks)]
    store.put(document, chunks, np.ones((n_chunks, 2), dtype=np.float32))


def n_logged(store: SqliteStore) -> int:
    with store.connections.reader() as db:
        return int(db.execute("SELECT count(*) FROM changes").fetchone()[0])


def test_the_log_is_bounded_and_says_where_it_ends(store: SqliteStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(changes, "KEPT_CHANGES", 40)
    monkeypatch.setattr(changes, "_SLACK", 10)
    versions = [store.version()]
    for n in range(30):
        put(store, f"s{n}", 4)
        versions.append(store.version())
        assert n_logged(store) <= 51
        known = [store.changes(since) for since in versions]
        first = next(at for at, change in enumerate(known) if change is not None)
        assert all(change is not None for change in known[first:])
        # What it still tells, it tells whole.
        for at, change in enumerate(known[first:], first):
            assert change is not None
            assert len(change.added.keys) == 4 * (n + 1 - at)
            assert len(change.entries) == n + 1 - at
    assert versions == sorted(set(versions))
    assert store.changes(0) is None


def test_a_change_above_the_bound_leaves_the_log_usable(store: SqliteStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(changes, "KEPT_CHANGES", 10)
    monkeypatch.setattr(changes, "_SLACK", 0)
    put(store, "a", 3)
    since = store.version()
    put(store, "b", 100)
    assert store.changes(since) is None
    since = store.version()
    put(store, "c", 1)
    found = store.changes(since)
    assert found is not None
    assert len(found.added.keys) == 1


def test_reads_never_prune(store: SqliteStore, monkeypatch: pytest.MonkeyPatch):
    put(store, "a", 3)
    before = n_logged(store)
    monkeypatch.setattr(changes, "KEPT_CHANGES", 1)
    monkeypatch.setattr(changes, "_SLACK", 0)
    store.version()
    store.changes(0)
    with store.snapshot():
        pass
    assert n_logged(store) == before
    store.modify(document_id_for("a"), {})
    assert n_logged(store) == 1


def test_a_rolled_back_change_leaves_no_gap(store: SqliteStore):
    put(store, "a", 3)
    since = store.version()
    document = Document(document_id_for("b"), "b", "b", "b", "", 1, 2, 0.0)
    with pytest.raises(UnicodeEncodeError):
        store.put(
            document, [Chunk(0, (), "good", 1), Chunk(1, (), "\udcff", 1)], np.ones((2, 2), dtype=np.float32)
        )
    assert store.version() == since
    put(store, "c", 1)
    found = store.changes(since)
    assert found is not None
    assert (len(found.added.keys), len(found.entries)) == (1, 1)
    assert found.version == since + 2
