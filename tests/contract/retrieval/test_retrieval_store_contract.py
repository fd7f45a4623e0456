"""What every `DocumentStore` keeps to."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval.embed.text import chunk_text_for_embedding
from retrieval.errors import EmbedderMismatch, NotHere
from retrieval.store.sqlite_store import SqliteStore, document_id_for
from retrieval.types import DEFAULT_STORE, Chunk, Document, DocumentStore, Entry, Passage, Rows, Vectors

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


def held(store: DocumentStore) -> Rows:
    """All rows, read in small batches."""
    with store.snapshot() as snapshot:
        parts = list(snapshot.rows(3))
        assert sum(len(part.keys) for part in parts) == snapshot.n_chunks
    empty = np.empty((0, DIM), dtype=np.float32)
    return Rows(
        np.concatenate([np.empty(0, dtype=np.int64), *(part.keys for part in parts)]),
        np.concatenate([np.empty(0, dtype=np.int64), *(part.documents for part in parts)]),
        np.concatenate([empty, *(part.vectors for part in parts)]),
        tuple(text for part in parts for text in part.texts),
    )


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@pytest.fixture(params=[SqliteStore], ids=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DocumentStore]:
    store: DocumentStore = request.param(tmp_path / "store.db")
    store.claim_embedder("model", DIM)
    yield store
    store.close()


def test_an_empty_store_answers(store: DocumentStore):
    with store.snapshot() as snapshot:
        assert (snapshot.version, snapshot.n_chunks, snapshot.entries()) == (0, 0, [])
        assert list(snapshot.rows(10)) == []
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
    rows = held(store)
    keys = rows.keys
    assert np.all(np.diff(keys) > 0)
    np.testing.assert_array_equal(rows.vectors, np.concatenate([vectors(2), vectors(1, seed=1)]))
    assert rows.vectors.flags.c_contiguous
    assert (rows.vectors.dtype, keys.dtype, rows.documents.dtype) == (np.float32, np.int64, np.int64)
    assert rows.texts[0] == chunk_text_for_embedding("T b", chunks(2)[0])
    first = store.passages([(int(keys[0]), 0.25)])[0]
    document_id = document_id_for("b")
    assert first == Passage(
        first.chunk_id, document_id, "b.md", "T b", ("Ä", "b"), "text 0", 3, 0.25, int(keys[0])
    )
    again = store.passage(first.chunk_id)
    assert again is not None
    assert again.text == first.text


def test_keys_are_present_until_their_document_changes(store: DocumentStore):
    store.put(document("a", 2), chunks(2), vectors(2))
    store.put(document("b", 1), chunks(1), vectors(1))
    keys = held(store).keys.tolist()
    assert store.present([*keys, 10**9]) == set(keys)
    store.put(document("a", 2), [chunks(2)[0], replace(chunks(2)[1], text="new")], vectors(2))
    assert store.present(keys) == {keys[0], keys[2]}
    store.delete(document_id_for("b"))
    assert store.present(keys) == {keys[0]}


def test_passages_keep_the_order_and_leave_out_what_is_gone(store: DocumentStore):
    store.put(document("a", 3), chunks(3), vectors(3))
    keys = held(store).keys.tolist()
    hits = [(keys[2], 0.9), (10**9, 0.8), (keys[0], 0.7), (keys[1], 0.6)]
    assert [(passage.text, passage.score) for passage in store.passages(hits)] == [
        ("text 2", 0.9),
        ("text 0", 0.7),
        ("text 1", 0.6),
    ]


def test_put_replaces_the_document_whole_and_reuses_no_key(store: DocumentStore):
    store.put(document("a", 3), chunks(3, "old"), vectors(3))
    old_keys = held(store).keys.tolist()
    old_ids = [passage.chunk_id for passage in store.passages([(key, 0) for key in old_keys])]
    store.put(document("a", 2, "b"), chunks(2, "new"), vectors(2, seed=1))
    rows = held(store)
    assert not set(rows.keys.tolist()) & set(old_keys)
    assert store.passages([(key, 0.0) for key in old_keys]) == []
    np.testing.assert_array_equal(rows.vectors, vectors(2, seed=1))
    assert store.documents() == [document("a", 2, "b")]
    assert [store.passage(chunk_id) for chunk_id in old_ids] == [None] * 3


def test_delete_takes_chunks_and_vectors_along(store: DocumentStore):
    store.put(document("a"), chunks(2), vectors(2))
    store.put(document("b"), chunks(2), vectors(2))
    assert store.delete(document_id_for("a")) is True
    assert store.delete(document_id_for("a")) is False
    assert store.documents() == [document("b")]
    assert len(held(store).keys) == 2


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
    version = store.version()
    for parts in (
        (document("a"), chunks(1), vectors(2)),
        (document("a"), chunks(2), vectors(1)),
        (document("a", 1), chunks(2), vectors(2)),
        (document("a"), chunks(2), vectors(2)[:, :4]),
        (document("a"), chunks(2)[::-1], vectors(2)),
        (replace(document("a"), document_id="doc_other"), chunks(2), vectors(2)),
        (replace(document("a"), source="b"), chunks(2), vectors(2)),
        (replace(document("a"), file_id="file-1"), chunks(2), vectors(2)),
    ):
        with pytest.raises(ValueError, match=r"expected"):
            store.put(*parts)
    assert store.documents() == [document("a")]
    assert store.version() == version


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
            passages = store.passages([(int(key), 0.0) for key in held(store).keys])
            with store.snapshot() as snapshot:
                rows = [
                    row for rows in snapshot.rows(2) for row in zip(rows.documents, rows.texts, strict=True)
                ]
                if len(rows) != snapshot.n_chunks or len({text.split()[-2] for _, text in rows}) != 1:
                    wrong.append(rows)
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
    assert len(held(store).keys) == 80


def texts(store: DocumentStore, source: str) -> list[str]:
    return [chunk.text for chunk in store.chunks(document_id_for(source))]


def cut(*texts: str, page: int | None = None) -> list[Chunk]:
    return [Chunk(ordinal, (), text, 1, page) for ordinal, text in enumerate(texts)]


def put(store: DocumentStore, source: str, *texts: str, seed: int = 0, page: int | None = None) -> None:
    store.put(document(source, len(texts)), cut(*texts, page=page), vectors(len(texts), seed))


def test_unchanged_chunks_keep_key_id_and_vector_when_others_come_and_go(store: DocumentStore):
    put(store, "a", "one", "two", "same", "same", "three")
    before = {passage.ordinal: passage for passage in store.neighbours(document_id_for("a"), range(5))}
    old = held(store)
    put(store, "a", "new", "same", "one", "same", "three", "same", seed=1, page=7)
    after = store.neighbours(document_id_for("a"), range(10))
    assert [passage.text for passage in after] == ["new", "same", "one", "same", "three", "same"]
    assert [(passage.ordinal, passage.page) for passage in after] == [(n, 7) for n in range(6)]
    kept = {2: before[0], 1: before[2], 3: before[3], 4: before[4]}
    for ordinal, was in kept.items():
        assert (after[ordinal].key, after[ordinal].chunk_id) == (was.key, was.chunk_id)
    assert len({passage.chunk_id for passage in after}) == 6
    assert min(after[0].key, after[5].key) > max(passage.key for passage in before.values())
    for passage in after:
        assert store.passage(passage.chunk_id) == replace(passage, score=1.0)
    assert store.passage(before[1].chunk_id) is None
    new = held(store)
    was_vector = dict(zip(old.keys.tolist(), old.vectors.tolist(), strict=True))
    is_vector = dict(zip(new.keys.tolist(), new.vectors.tolist(), strict=True))
    for was in kept.values():
        assert is_vector[was.key] == was_vector[was.key]
    assert is_vector[after[0].key] == vectors(6, 1)[0].tolist()
    assert is_vector[after[5].key] == vectors(6, 1)[5].tolist()
    assert set(new.documents.tolist()) == set(old.documents.tolist())


def test_a_new_title_makes_new_chunks(store: DocumentStore):
    put(store, "a", "one")
    keys = held(store).keys.tolist()
    store.put(replace(document("a", 1), title="other"), cut("one"), vectors(1))
    assert store.present(keys) == set()


def test_vectors_are_known_by_the_text_that_they_were_made_of(store: DocumentStore):
    put(store, "a", "one", "two")
    one, absent = sha256("T a\none"), sha256("T a\nnone")
    found = store.known_vectors([one, absent], DEFAULT_STORE)
    assert list(found) == [one]
    np.testing.assert_array_equal(found[one], vectors(2)[0])
    assert found[one].dtype == np.float32
    store.delete(document_id_for("a"))
    assert store.known_vectors([one], DEFAULT_STORE) == {}


def test_attributes_are_modified_and_found_with_the_passages(store: DocumentStore):
    attributes = {"ä": "\udcff", "n": 1.5, "whole": 3, "yes": True}
    store.put(replace(document("a"), attributes=attributes), chunks(2), vectors(2))
    assert store.document(document_id_for("a")) == replace(document("a"), attributes=attributes)
    assert store.neighbours(document_id_for("a"), [1])[0].attributes == attributes
    version = store.version()
    assert store.modify(document_id_for("a"), {"b": False}) is True
    assert store.modify("doc_gone", {}) is False
    assert store.version() > version
    changes = store.changes(version)
    assert changes is not None
    assert [entry.attributes for entry in changes.entries] == [{"b": False}]
    assert (changes.gone_keys, changes.gone_documents, len(changes.added.keys)) == ((), (), 0)
    with store.snapshot() as snapshot:
        assert snapshot.entries() == list(changes.entries)


def test_a_document_belongs_to_a_vector_store_that_is_there(store: DocumentStore):
    version = store.version()
    with pytest.raises(NotHere, match="vs_gone"):
        store.put(
            replace(document("a"), store_id="vs_gone", document_id=document_id_for("a", "vs_gone")),
            chunks(2),
            vectors(2),
        )
    assert (store.documents(), store.version()) == ([], version)


def test_changes_tell_the_net_effect(store: DocumentStore):
    put(store, "a", "one", "two")
    put(store, "b", "three")
    before = held(store)
    since = store.version()
    empty = store.changes(since)
    assert empty is not None
    assert (empty.version, empty.entries, empty.gone_keys, len(empty.added.keys)) == (since, (), (), 0)
    put(store, "a", "two", "four")
    put(store, "passing", "x")
    store.delete(document_id_for("passing"))
    store.delete(document_id_for("b"))
    put(store, "c", "five")
    changes = store.changes(since)
    assert changes is not None
    a, b = before.documents[0], before.documents[2]
    assert changes.version == store.version()
    assert changes.gone_keys == (before.keys[0], before.keys[2])
    assert changes.gone_documents == (b,)
    assert changes.added.texts == ("T a\nfour", "T c\nfive")
    assert [entry.number for entry in changes.entries] == [a, changes.added.documents[1]]
    assert a == changes.added.documents[0]
    assert store.changes(store.version() + 1) is None


def test_following_the_changes_equals_looking_anew(store: DocumentStore):
    drawn = np.random.default_rng(3)
    rows: dict[int, tuple[int, str, bytes]] = {}
    entries: dict[int, Entry] = {}
    since = store.version()
    for _ in range(60):
        for _ in range(int(drawn.integers(1, 4))):
            source = f"s{drawn.integers(5)}"
            match drawn.integers(4):
                case 0:
                    store.delete(document_id_for(source))
                case 1:
                    store.modify(document_id_for(source), {"n": int(drawn.integers(9))})
                case _:
                    words = [f"w{word}" for word in drawn.integers(6, size=int(drawn.integers(0, 6)))]
                    put(store, source, *words, seed=int(drawn.integers(99)))
        changes = store.changes(since)
        assert changes is not None
        for key in changes.gone_keys:
            del rows[key]  # each was there
        for number in changes.gone_documents:
            del entries[number]
        entries |= {entry.number: entry for entry in changes.entries}
        rows |= as_dict(changes.added)
        since = changes.version
        with store.snapshot() as snapshot:
            assert snapshot.version == since
            assert snapshot.entries() == [entries[number] for number in sorted(entries)]
        assert rows == as_dict(held(store))


def as_dict(rows: Rows) -> dict[int, tuple[int, str, bytes]]:
    each = zip(rows.keys.tolist(), rows.documents.tolist(), rows.texts, rows.vectors, strict=True)
    return {key: (number, text, vector.tobytes()) for key, number, text, vector in each}


def test_a_snapshot_stays_as_it_is(store: DocumentStore):
    put(store, "a", "one", "two", "three")
    with store.snapshot() as snapshot:
        batches = snapshot.rows(1)
        first = next(batches)
        put(store, "a", "new")
        put(store, "b", "new")
        assert [rows.texts for rows in [first, *batches]] == [("T a\none",), ("T a\ntwo",), ("T a\nthree",)]
        assert len(snapshot.entries()) == 1
        assert snapshot.version < store.version()
        changes = snapshot.changes(0)
        assert changes is not None
        assert len(changes.added.keys) == 3
        assert [rows.keys[0] for rows in snapshot.rows(9, int(first.keys[0]))] == [first.keys[0] + 1]


def test_an_identity_is_the_stores_own(store: DocumentStore, tmp_path: Path):
    other = type(store)(tmp_path / "other.db")
    assert store.identity() == store.identity() != other.identity()
    other.close()


def test_a_document_without_chunks_is_a_document(store: DocumentStore):
    put(store, "a")
    assert store.documents() == [document("a", 0)]
    assert texts(store, "a") == []
