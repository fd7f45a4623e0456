"""What every `DocumentStore` keeps to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import EmbedderMismatch
from retrieval.store import SqliteStore, document_id_for
from retrieval.types import Chunk, Document, DocumentStore, Passage, Vectors

DIM = 8


def document(source: str, n_chunks: int = 2, content: str = "a") -> Document:
    return Document(
        document_id_for(source), source, f"{source}.md", f"T {source}", content, 10, n_chunks, 1.5
    )


def chunks(n: int, text: str = "text") -> list[Chunk]:
    return [Chunk(ordinal, ("Ä", "b"), f"{text} {ordinal}", 3) for ordinal in range(n)]


def vectors(n: int, seed: int = 0) -> Vectors:
    drawn = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture(params=[SqliteStore], ids=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DocumentStore]:
    store: DocumentStore = request.param(tmp_path / "store.db")
    store.claim_embedder("model", DIM)
    yield store
    store.close()


def test_an_empty_store_answers(store: DocumentStore):
    keys, held = store.chunk_vectors()
    assert (keys.shape, keys.dtype, held.shape, held.dtype) == ((0,), np.int64, (0, DIM), np.float32)
    assert store.version() == 0
    assert (store.documents(), store.find("a"), store.passages([(1, 0.5)]), store.passage("x-0")) == (
        [],
        None,
        [],
        None,
    )
    assert store.delete("doc_gone") is False


def test_what_was_put_is_found(store: DocumentStore):
    store.put(document("b"), chunks(2), vectors(2))
    store.put(document("a", 1), chunks(1, "other"), vectors(1, seed=1))
    assert store.find("a") == document("a", 1)
    assert store.documents() == [document("a", 1), document("b")]
    keys, held = store.chunk_vectors()
    assert np.all(np.diff(keys) > 0)
    np.testing.assert_array_equal(held, np.concatenate([vectors(2), vectors(1, seed=1)]))
    assert held.flags.c_contiguous
    first = store.passages([(int(keys[0]), 0.25)])[0]
    document_id = document_id_for("b")
    key = int(keys[0])
    assert first == Passage(
        f"{document_id}-0", document_id, "b.md", "T b", ("Ä", "b"), "text 0", 3, 0.25, key
    )
    again = store.passage(first.chunk_id)
    assert again is not None
    assert again.text == first.text


def test_keys_are_present_until_their_document_changes(store: DocumentStore):
    store.put(document("a", 2), chunks(2), vectors(2))
    store.put(document("b", 1), chunks(1), vectors(1))
    keys = store.chunk_vectors()[0].tolist()
    assert store.present([*keys, 10**9]) == set(keys)
    store.put(document("a", 2), chunks(2), vectors(2))
    assert store.present(keys) == {keys[2]}
    store.delete(document_id_for("b"))
    assert store.present(keys) == set()


def test_passages_keep_the_order_and_leave_out_what_is_gone(store: DocumentStore):
    store.put(document("a", 3), chunks(3), vectors(3))
    keys = store.chunk_vectors()[0].tolist()
    hits = [(keys[2], 0.9), (10**9, 0.8), (keys[0], 0.7), (keys[1], 0.6)]
    assert [(passage.text, passage.score) for passage in store.passages(hits)] == [
        ("text 2", 0.9),
        ("text 0", 0.7),
        ("text 1", 0.6),
    ]


def test_put_replaces_the_document_whole_and_reuses_no_key(store: DocumentStore):
    store.put(document("a", 3), chunks(3, "old"), vectors(3))
    old_keys = store.chunk_vectors()[0].tolist()
    store.put(document("a", 2, "b"), chunks(2, "new"), vectors(2, seed=1))
    keys, held = store.chunk_vectors()
    assert not set(keys.tolist()) & set(old_keys)
    assert store.passages([(key, 0.0) for key in old_keys]) == []
    np.testing.assert_array_equal(held, vectors(2, seed=1))
    assert store.documents() == [document("a", 2, "b")]
    assert store.passage(f"{document_id_for('a')}-2") is None


def test_delete_takes_chunks_and_vectors_along(store: DocumentStore):
    store.put(document("a"), chunks(2), vectors(2))
    store.put(document("b"), chunks(2), vectors(2))
    assert store.delete(document_id_for("a")) is True
    assert store.delete(document_id_for("a")) is False
    assert store.documents() == [document("b")]
    assert len(store.chunk_vectors()[0]) == 2
    assert store.passage(f"{document_id_for('a')}-0") is None


def test_version_grows_with_every_change_and_only_then(store: DocumentStore):
    versions = [store.version()]
    for change in (
        lambda: store.put(document("a"), chunks(2), vectors(2)),
        lambda: store.put(document("a"), chunks(2), vectors(2)),
        lambda: store.delete(document_id_for("a")),
    ):
        change()
        versions.append(store.version())
    assert versions == sorted(set(versions))
    store.delete(document_id_for("a"))
    store.documents()
    assert store.version() == versions[-1]


def test_parts_that_do_not_fit_are_refused_and_change_nothing(store: DocumentStore):
    store.put(document("a"), chunks(2), vectors(2))
    for parts in (
        (document("a"), chunks(1), vectors(2)),
        (document("a"), chunks(2), vectors(1)),
        (document("a", 1), chunks(2), vectors(2)),
        (document("a"), chunks(2), vectors(2)[:, :4]),
    ):
        with pytest.raises(ValueError, match=r"expected"):
            store.put(*parts)
    assert store.documents() == [document("a")]
    assert store.version() == 1


def test_vectors_of_two_models_never_mix(store: DocumentStore):
    store.claim_embedder("model", DIM)
    store.claim_embedder("other", 4)  # nothing held yet
    store.claim_embedder("model", DIM)
    store.put(document("a"), chunks(2), vectors(2))
    for identity, dim in (("other", DIM), ("model", 4)):
        with pytest.raises(EmbedderMismatch, match="new store"):
            store.claim_embedder(identity, dim)
    store.claim_embedder("model", DIM)


def test_threads_read_whole_documents_while_one_writes(store: DocumentStore):
    store.put(document("a", 5, "0"), chunks(5, "0"), vectors(5))
    stop = threading.Event()
    wrong: list[object] = []

    def look() -> None:
        while not stop.is_set():
            passages = store.passages([(int(key), 0.0) for key in store.chunk_vectors()[0]])
            # Between the two calls the document may have been replaced: all of it, or none.
            if len(passages) not in (0, 5) or len({passage.text.split()[0] for passage in passages}) > 1:
                wrong.append(passages)

    readers = [threading.Thread(target=look) for _ in range(4)]
    for reader in readers:
        reader.start()
    for n in range(40):
        store.put(document("a", 5, str(n)), chunks(5, str(n)), vectors(5))
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong


def test_threads_may_all_write(store: DocumentStore):
    def write(thread: int) -> None:
        for n in range(10):
            store.put(document(f"{thread}-{n}"), chunks(2), vectors(2))

    writers = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(store.documents()) == 40
    assert store.version() == 40
