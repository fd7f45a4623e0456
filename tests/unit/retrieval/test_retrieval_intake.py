"""Only what is new of a document is embedded, and what is not new keeps its key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from serving_made import DIM, EMBEDDER, CountingEmbedder, Words, open_store

from retrieval.embed.hashing import HashingEmbedder
from retrieval.errors import EmbedderMismatch
from retrieval.ingest.files import ingest
from retrieval.ingest.intake import DirectPreparer, Intake
from retrieval.store.sqlite_store import SqliteStore
from retrieval.types import DEFAULT_STORE, Passage


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = open_store(tmp_path / "store.db")
    yield store
    store.close()


def sections(*texts: str) -> str:
    return "# Page\n\n" + "\n\n".join(f"## Part {text.split()[0]}\n\n{text}" for text in texts)


def taken(store: SqliteStore, path: Path, text: str, embedder: CountingEmbedder) -> dict[str, Passage]:
    """What is stored of the file, by text."""
    path.write_text(text)
    intake = Intake(DirectPreparer(Words()), embedder, store)
    report = ingest([path], intake, chunk_tokens=32, overlap_tokens=0, max_document_bytes=10_000)
    assert report.n_failed == 0
    document = store.find(str(path.resolve()))
    assert document is not None
    passages = store.neighbours(document.document_id, range(100))
    return {passage.text: passage for passage in passages}


def test_a_changed_section_is_embedded_alone_and_the_others_keep_their_keys(
    store: SqliteStore, tmp_path: Path
) -> None:
    embedder, page = CountingEmbedder(), tmp_path / "page.md"
    before = taken(store, page, sections("alpha one", "beta two", "gamma three"), embedder)
    assert len(embedder.embedded) == len(before) == 3
    embedder.embedded.clear()
    after = taken(store, page, sections("zero new", "alpha one", "beta changed", "gamma three"), embedder)
    assert sorted(text.split()[-2:] for text in embedder.embedded) == [["beta", "changed"], ["zero", "new"]]
    for text in ("alpha one", "gamma three"):
        assert after[text].key == before[text].key
        assert after[text].chunk_id == before[text].chunk_id
    assert {after["zero new"].key, after["beta changed"].key}.isdisjoint(one.key for one in before.values())
    assert [one.ordinal for one in after.values()] == [0, 1, 2, 3]


def test_a_text_that_another_document_has_is_not_embedded_again(store: SqliteStore, tmp_path: Path) -> None:
    embedder = CountingEmbedder()
    one = taken(store, tmp_path / "one.md", sections("alpha one"), embedder)
    two = taken(store, tmp_path / "two.md", sections("alpha one", "beta two"), embedder)
    assert len(embedder.embedded) == 2
    assert two["alpha one"].key != one["alpha one"].key
    with store.snapshot() as snapshot:
        (rows,) = snapshot.rows(10)
    np.testing.assert_array_equal(rows.vectors[0], rows.vectors[1])
    np.testing.assert_allclose(rows.vectors, EMBEDDER.embed(rows.texts), atol=1e-6)


def test_a_text_that_is_repeated_is_embedded_once_and_told_as_it_goes(store: SqliteStore) -> None:
    embedder, told = CountingEmbedder(), list[tuple[int, int]]()
    intake = Intake(DirectPreparer(Words()), embedder, store)
    text = "\n\n".join(f"## Part\n\n{'same' if n % 2 else f'other{n}'} words" for n in range(300))
    found = intake.take(text.encode(), "page.md", 16, 0, DEFAULT_STORE, lambda *at: told.append(at))
    assert len(embedder.embedded) == len(set(embedder.embedded)) == found.n_embedded == 151
    assert found.vectors.shape == (len(found.chunks), DIM) == (300, DIM)
    assert told == sorted(told)
    assert told[-1] == (300, 300)
    assert len(told) > 2


def test_vectors_of_a_model_that_came_meanwhile_are_not_mixed_in(store: SqliteStore, tmp_path: Path) -> None:
    taken(store, tmp_path / "one.md", sections("alpha one"), CountingEmbedder())
    intake = Intake(DirectPreparer(Words()), HashingEmbedder(DIM // 2), store)
    with pytest.raises(EmbedderMismatch, match=r"one\.md"):
        intake.take(sections("alpha one", "beta two").encode(), "one.md", 32, 0, DEFAULT_STORE)


def test_what_was_ingested_in_another_way_has_another_digest(store: SqliteStore) -> None:
    intake = Intake(DirectPreparer(Words()), EMBEDDER, store)
    digests = {
        intake.content_sha256(data, *sizes)
        for data in (b"one", b"two", b"")
        for sizes in ((32, 8), (33, 8), (32, 7), (3, 28))
    }
    assert len(digests) == 12
    assert intake.content_sha256(b"one", 32, 8) in digests
