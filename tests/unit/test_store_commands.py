"""The commands that look after the store: backup, check, reindex, and the watch on a folder."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from gateways import MakeSettings
from retrieval.embed.hashing import HashingEmbedder
from retrieval.embed.spec import EmbedderSpec
from retrieval.errors import EmbedderMismatch, StoreUnusable
from retrieval.store.sqlite_store import SqliteStore, document_id_for
from retrieval.types import Chunk, Document, Vectors
from server import knowledge
from server.commands import reindex
from server.commands.reindex import reindex_store
from server.commands.store import back_up, check_store
from server.commands.watch import changed_files
from server.errors import ConfigError
from server.knowledge import embedder_of, remember_embedder, store_path
from server.sections.section import STARTER
from server.settings import Settings

OLD = HashingEmbedder(32)


class Said(Console):
    def __init__(self) -> None:
        self.out = io.StringIO()
        super().__init__(file=self.out, width=300)

    @property
    def text(self) -> str:
        return self.out.getvalue()


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


@pytest.fixture
def store(settings: Settings) -> Iterator[SqliteStore]:
    store = SqliteStore(store_path(settings))
    store.claim_embedder(OLD.identity, OLD.dim)
    yield store
    store.close()


def put(store: SqliteStore, source: str, n_chunks: int = 1, embedder: HashingEmbedder = OLD) -> None:
    texts = [f"words {at} of {source}" for at in range(n_chunks)]
    document = Document(document_id_for(source), source, source, "", "", 1, n_chunks, 0.0)
    store.put(document, [Chunk(at, (), text, 4) for at, text in enumerate(texts)], embedder.embed(texts))


def test_a_backup_put_in_the_stores_place_has_everything(settings: Settings, store: SqliteStore) -> None:
    put(store, "a", 3)
    file = store.files.add_file("me", "a.md", "assistants", b"uploaded")
    target, said = settings.data_path / "backup.sqlite", Said()
    back_up(settings, target, said)
    assert str(store_path(settings)) in said.text
    put(store, "after the backup")
    before = store.identity()
    store.close()
    for path in settings.data_path.glob("store.sqlite*"):
        path.unlink()
    os.replace(target, store_path(settings))
    restored = SqliteStore(store_path(settings))
    try:
        restored.claim_embedder(OLD.identity, OLD.dim)
        assert [document.source for document in restored.documents()] == ["a"]
        assert len(restored.chunks(document_id_for("a"))) == 3
        assert restored.files.file_data("me", file.file_id) == b"uploaded"
        assert restored.identity() != before, "no snapshot of the other's index is taken for its own"
        put(restored, "b")
    finally:
        restored.close()
    assert check_store(settings, Said()) == 0


def test_a_store_that_is_not_whole_is_told_with_the_next_step(settings: Settings, store: SqliteStore) -> None:
    put(store, "a", 3)
    said = Said()
    assert check_store(settings, said) == 0
    assert "whole" in said.text
    with sqlite3.connect(store_path(settings)) as db:
        db.execute("DELETE FROM vectors WHERE key = 2")
    db.close()
    said = Said()
    assert check_store(settings, said) == 1
    assert "chunk 2 has no vector" in said.text
    assert "backup" in said.text


def test_a_damaged_file_is_no_store(settings: Settings, tmp_path: Path) -> None:
    store_path(settings).parent.mkdir(parents=True)
    store_path(settings).write_bytes(b"no database" * 1000)
    for command in (
        lambda: check_store(settings, Said()),
        lambda: back_up(settings, tmp_path / "copy", Said()),
    ):
        with pytest.raises(StoreUnusable, match=r"store\.sqlite"):
            command()
    assert not (tmp_path / "copy").exists()


def test_without_a_store_there_is_nothing_to_do(settings: Settings, tmp_path: Path) -> None:
    for command in (
        lambda: check_store(settings, Said()),
        lambda: back_up(settings, tmp_path / "copy", Said()),
        lambda: reindex_store(settings, STARTER, abandon=False, console=Said()),
    ):
        with pytest.raises(ConfigError, match="no store yet"):
            command()
    assert not store_path(settings).exists()


class New(HashingEmbedder):
    """Fails after so many texts."""

    def __init__(self, dim: int = 48, fails_after: int = 10**6) -> None:
        super().__init__(dim)
        self.left = fails_after
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.left -= len(texts)
        if self.left < 0:
            raise RuntimeError("interrupted")
        self.embedded += texts
        return super().embed(texts)


def held(store: SqliteStore) -> tuple[Vectors, tuple[str, ...]]:
    with store.snapshot() as snapshot:
        parts = list(snapshot.rows(10_000))
    return np.concatenate([part.vectors for part in parts]), tuple(
        text for part in parts for text in part.texts
    )


def use(monkeypatch: pytest.MonkeyPatch, embedder: HashingEmbedder) -> None:
    monkeypatch.setattr(reindex, "open_embedder", lambda spec: embedder)
    monkeypatch.setattr(knowledge, "open_embedder", lambda spec: embedder)


def test_a_reindex_goes_on_where_it_was_interrupted(
    settings: Settings, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", 150)
    use(monkeypatch, New(fails_after=100))
    with pytest.raises(RuntimeError, match="interrupted"):
        reindex_store(settings, "model", abandon=False, console=Said())
    assert store.embedder() == (OLD.identity, OLD.dim), "it serves as before"
    assert store.next_vectors.under_way() == ("hashing-48", 48)
    put(store, "b", 2)

    new, said = New(), Said()
    use(monkeypatch, new)
    reindex_store(settings, "model", abandon=False, console=said)
    assert len(new.embedded) == 150 - 64 + 2
    assert store.embedder() == (new.identity, new.dim)
    vectors, texts = held(store)
    np.testing.assert_array_equal(vectors, HashingEmbedder(48).embed(texts))
    assert "retrieval.embedder" in said.text

    found = embedder_of(settings, store, OLD)
    assert (found.identity, found.dim) == (new.identity, new.dim), "a running server finds the model"
    with pytest.raises(EmbedderMismatch):
        put(store, "c")
    again = Said()
    reindex_store(settings, "model", abandon=False, console=again)
    assert "already" in again.text
    assert len(new.embedded) == 88


def test_what_comes_while_it_embeds_is_embedded_too(
    settings: Settings, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", 3)

    class Busy(New):
        def embed(self, texts: Sequence[str]) -> Vectors:
            if len(self.embedded) == 0:
                put(store, "meanwhile", 2)
                assert store.delete(document_id_for("a"))
            return super().embed(texts)

    new = Busy()
    use(monkeypatch, new)
    reindex_store(settings, "model", abandon=False, console=Said())
    vectors, texts = held(store)
    assert len(texts) == 2
    np.testing.assert_array_equal(vectors, HashingEmbedder(48).embed(texts))
    assert check_store(settings, Said()) == 0


def test_a_reindex_can_be_given_up(
    settings: Settings, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", 100)
    use(monkeypatch, New(fails_after=70))
    with pytest.raises(RuntimeError, match="interrupted"):
        reindex_store(settings, "model", abandon=False, console=Said())
    reindex_store(settings, "model", abandon=True, console=Said())
    assert store.next_vectors.under_way() is None
    assert store.embedder() == (OLD.identity, OLD.dim)
    put(store, "b")


def test_a_server_that_does_not_know_the_new_model_says_what_to_do(
    settings: Settings, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a")
    assert embedder_of(settings, store, OLD) is OLD
    with pytest.raises(EmbedderMismatch, match=r"retrieval\.embedder"):
        embedder_of(settings, store, HashingEmbedder(8))
    use(monkeypatch, HashingEmbedder(16))
    remember_embedder(settings, EmbedderSpec("model", "hashing"), OLD)
    with pytest.raises(EmbedderMismatch, match=r"retrieval\.embedder"):
        embedder_of(settings, store, HashingEmbedder(8))
    (settings.data_path / "reindexed.json").write_text("{")
    with pytest.raises(EmbedderMismatch, match=r"retrieval\.embedder"):
        embedder_of(settings, store, HashingEmbedder(8))


def test_changes_are_seen_from_the_first_set_on(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b.md").write_text("b")
    (tmp_path / "single.md").write_text("single")
    changes = changed_files([folder, tmp_path / "single.md"])
    assert next(changes) == set()
    (folder / "a.md").write_text("a")
    (folder / "b.md").unlink()
    (tmp_path / "single.md").write_text("changed")
    expected = {str(folder / "a.md"), str(folder / "b.md"), str(tmp_path / "single.md")}
    seen: set[str] = set()
    while not expected <= seen:
        seen |= next(changes)
    changes.close()


class InterruptedFinaliser:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_a_finaliser_swallows_ends_the_watch_all_the_same(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    changes = changed_files([tmp_path])
    assert next(changes) == set()
    finalised = InterruptedFinaliser()
    del finalised
    with pytest.raises(KeyboardInterrupt):
        next(changes)
    assert signal.getsignal(signal.SIGINT) == before
