"""A reindex: vectors of a new model gathered beside the old ones, then swapped in as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import EmbedderMismatch
from retrieval.store.integrity import check
from retrieval.store.sqlite_store import SqliteStore, document_id_for
from retrieval.types import Chunk, Document, Vectors

DIM, NEXT_DIM = 4, 6


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db")
    store.claim_embedder("old", DIM)
    for source in "abc":
        put(store, source, "one", "two")
    yield store
    store.close()


def put(store: SqliteStore, source: str, *texts: str, dim: int = DIM) -> None:
    document = Document(document_id_for(source), source, source, source, "", 1, len(texts), 0.0)
    chunks = [Chunk(n, (), text, 1) for n, text in enumerate(texts)]
    store.put(document, chunks, np.full((len(texts), dim), 0.5, dtype=np.float32))


def embed(keys: list[int]) -> Vectors:
    return np.repeat(np.array(keys, dtype=np.float32)[:, None], NEXT_DIM, axis=1)


def embed_missing(store: SqliteStore) -> list[str]:
    texts: list[str] = []
    last = -1
    while True:
        keys, found = store.next_vectors.next_missing(4, last)
        if not keys:
            return texts
        store.next_vectors.put("new", keys, embed(keys))
        texts += found
        last = keys[-1]


def test_a_reindex_swaps_all_vectors_at_once(store: SqliteStore):
    following = store.next_vectors
    since = store.version()
    with store.snapshot() as before:
        (old,) = before.rows(10)
        assert following.under_way() is None
        assert following.begin("new", NEXT_DIM)
        assert following.under_way() == ("new", NEXT_DIM)
        assert following.finish("new", NEXT_DIM) is False
        assert embed_missing(store) == list(old.texts)
        put(store, "a", "one", "late")  # "two" goes, "late" comes; the old model's
        changes = store.changes(since)
        assert changes is not None
        assert changes.added.vectors.shape == (1, DIM)
        assert following.finish("new", NEXT_DIM) is False
        assert following.missing() == 1
        assert embed_missing(store) == ["a\nlate"]
        version = store.version()
        assert following.finish("new", NEXT_DIM) is True
        (still,) = before.rows(10)
        np.testing.assert_array_equal(still.vectors, old.vectors)
    assert store.version() > version
    assert store.changes(version) is None
    with store.snapshot() as after:
        (rows,) = after.rows(10)
    np.testing.assert_array_equal(rows.vectors, embed(rows.keys.tolist()))
    assert set(old.keys.tolist()) - set(rows.keys.tolist()) == {2}
    assert following.under_way() is None
    assert check(store.connections) == []
    with pytest.raises(EmbedderMismatch):
        put(store, "d", "of the old model")
    with pytest.raises(EmbedderMismatch):
        store.claim_embedder("old", DIM)
    store.claim_embedder("new", NEXT_DIM)
    put(store, "d", "of the new model", dim=NEXT_DIM)
    changes = store.changes(version + 1)
    assert changes is not None
    assert changes.added.vectors.shape == (1, NEXT_DIM)
    assert store.delete(document_id_for("d"))
    assert following.begin("new", NEXT_DIM) is False


def test_a_second_reindex_works_as_the_first(store: SqliteStore):
    for _ in range(2):
        assert store.next_vectors.begin("new", NEXT_DIM)
        embed_missing(store)
        assert store.next_vectors.finish("new", NEXT_DIM)
        assert store.next_vectors.begin("old", DIM)
        keys, _ = store.next_vectors.next_missing(100)
        store.next_vectors.put("old", keys, np.zeros((len(keys), DIM), dtype=np.float32))
        assert store.next_vectors.finish("old", DIM)
        assert check(store.connections) == []


def test_an_interrupted_reindex_goes_on_where_it_was(store: SqliteStore, tmp_path: Path):
    assert store.next_vectors.begin("new", NEXT_DIM)
    keys, _ = store.next_vectors.next_missing(4)
    store.next_vectors.put("new", keys, embed(keys))
    again = SqliteStore(tmp_path / "store.db")
    assert again.next_vectors.begin("new", NEXT_DIM)
    assert again.next_vectors.missing() == 2
    assert len(embed_missing(again)) == 2
    assert again.next_vectors.finish("new", NEXT_DIM)
    again.close()


def test_another_model_begins_anew(store: SqliteStore):
    store.next_vectors.begin("third", NEXT_DIM)
    store.next_vectors.put("third", [1], embed([1]))
    assert store.next_vectors.begin("new", NEXT_DIM)
    assert store.next_vectors.missing() == 6
    for call in (
        lambda: store.next_vectors.put("third", [1], embed([1])),
        lambda: store.next_vectors.put("new", [1], embed([1])[:, :3]),
        lambda: store.next_vectors.finish("third", NEXT_DIM),
    ):
        with pytest.raises(EmbedderMismatch, match="begin anew"):
            call()
    with pytest.raises(ValueError, match="expected"):
        store.next_vectors.put("new", [1, 2], embed([1]))


def test_an_abandoned_reindex_leaves_nothing(store: SqliteStore):
    version = store.version()
    store.next_vectors.begin("new", NEXT_DIM)
    store.next_vectors.put("new", [1, 10**6], embed([1, 2]))
    assert store.next_vectors.missing() == 5
    store.next_vectors.abandon()
    assert (store.next_vectors.under_way(), store.next_vectors.missing()) == (None, 6)
    assert store.version() == version
    with pytest.raises(EmbedderMismatch):
        embed_missing(store)
    put(store, "d", "goes on")
