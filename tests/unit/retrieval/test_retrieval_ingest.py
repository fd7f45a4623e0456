from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import retrieval
from retrieval.embed.spec import HashingEmbedder
from retrieval.errors import EmbedderMismatch, StoreFull
from retrieval.ingest.files import IngestProgress, IngestReport, ingest
from retrieval.ingest.intake import DirectPreparer, Intake
from retrieval.store.sqlite_store import SqliteStore, document_id_for
from retrieval.types import Chunk, Document, Vectors


class Words:
    def count_tokens(self, text: str) -> int:
        return len(self.token_offsets(text))

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        offsets, at = [], 0
        for word in text.split():
            at = text.index(word, at)
            offsets.append((at, at + len(word)))
            at += len(word)
        return offsets


class CountingEmbedder(HashingEmbedder):
    n_texts = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.n_texts += len(texts)
        return super().embed(texts)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db")
    yield store
    store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    write(folder, "b.md", "# Bee\n\nhoney")
    write(folder, "a/z.txt", "zed")
    write(folder, "a/c.html", "<h1>Sea</h1><p>salt</p>")
    return folder


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def run(paths: Sequence[str | Path], store: SqliteStore, **options: Any) -> IngestReport:
    embedder = options.pop("embedder", HashingEmbedder(32))
    options = {"chunk_tokens": 32, "overlap_tokens": 8, "max_document_bytes": 10_000} | options
    return ingest(paths, Intake(DirectPreparer(Words()), embedder, store), **options)


def n_vectors(store: SqliteStore) -> int:
    with store.snapshot() as snapshot:
        return sum(len(rows.keys) for rows in snapshot.rows(100))


def statuses(report: IngestReport) -> dict[str, str]:
    return {outcome.filename: outcome.status for outcome in report.outcomes}


def test_a_folder_is_ingested_in_order_with_names_relative_to_it(store: SqliteStore, folder: Path):
    seen: list[IngestProgress] = []
    report = run([folder], store, on_progress=seen.append)
    assert statuses(report) == {"b.md": "added", "a/c.html": "added", "a/z.txt": "added"}
    assert [(at.n_done, at.n_files) for at in seen] == [(1, 3), (2, 3), (3, 3)]
    assert tuple(at.last for at in seen) == report.outcomes
    assert (report.n_added, report.n_chunks, report.n_failed, report.stopped) == (3, 3, 0, None)
    assert report.seconds > 0
    found = store.find(str(folder / "b.md"))
    assert found is not None
    assert replace(found, ingested_at=0.0, content_sha256="") == Document(
        document_id_for(str(folder / "b.md")), str(folder / "b.md"), "b.md", "Bee", "", 12, 1, 0.0
    )


def test_ingesting_again_changes_and_embeds_nothing(store: SqliteStore, folder: Path):
    run([folder], store)
    before, version = store.documents(), store.version()
    embedder = CountingEmbedder(32)
    report = run([folder], store, embedder=embedder)
    assert set(statuses(report).values()) == {"unchanged"}
    assert (embedder.n_texts, report.n_chunks) == (0, 0)
    assert (store.documents(), store.version()) == (before, version)


def test_only_a_changed_file_is_updated_under_its_old_id(store: SqliteStore, folder: Path):
    run([folder], store)
    write(folder, "b.md", "# Bee\n\nwax")
    report = run([folder], store)
    assert statuses(report) == {"b.md": "updated", "a/c.html": "unchanged", "a/z.txt": "unchanged"}
    (chunk,) = store.chunks(document_id_for(str(folder / "b.md")))
    assert chunk.text == "wax"
    assert n_vectors(store) == 3


@pytest.mark.parametrize("setting", [{"chunk_tokens": 33}, {"overlap_tokens": 7}])
def test_other_chunk_settings_ingest_again(store: SqliteStore, folder: Path, setting: dict[str, int]):
    run([folder], store)
    assert run([folder], store, **setting).n_updated == 3


def test_another_parser_version_ingests_again(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    run([folder], store)
    monkeypatch.setattr("retrieval.ingest.intake.PARSER_VERSION", 10**6)
    assert run([folder], store).n_updated == 3


def test_hidden_and_unsupported_files_in_folders_are_skipped_and_counted(store: SqliteStore, folder: Path):
    for name in (".hidden.md", "image.png", "a/.DS_Store"):
        write(folder, name, "x")
    write(folder, ".git/config.txt", "x")
    report = run([folder], store)
    assert (report.n_added, report.n_skipped, report.n_failed) == (3, 3, 0)


def test_each_bad_file_is_named_with_its_reason_and_the_rest_goes_on(store: SqliteStore, folder: Path):
    (folder / "binary.md").write_bytes(b"\0\1\2")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    write(folder, "empty.html", "<p></p>")
    write(folder, "long.txt", "x" * 10_001)
    (folder / "dangling.md").symlink_to("gone")
    write(folder.parent, "table.xlsx", "x")
    report = run([folder / "gone.md", folder, folder.parent / "table.xlsx"], store)
    reasons = {outcome.filename: outcome.reason for outcome in report.outcomes if outcome.status == "failed"}
    assert {name: str(reason).split("; ")[0].rsplit(": ")[-1] for name, reason in reasons.items()} == {
        str(folder / "gone.md"): "no such file or folder",
        "binary.md": "holds NUL bytes, so it is not text",
        "dangling.md": "No such file or directory",
        "empty.html": "holds no text",
        "latin.txt": "not UTF-8 text (byte 3)",
        "long.txt": "10001 bytes, above the limit of 10000",
        "table.xlsx": "looks like text, not like an Excel workbook as its name says",
    }
    assert all(Path(name).name in str(reason) for name, reason in reasons.items())
    assert (report.n_added, report.stopped) == (3, None)
    assert len(store.documents()) == 3


def test_a_file_that_turned_bad_keeps_its_old_content(store: SqliteStore, folder: Path):
    run([folder], store)
    (folder / "b.md").write_bytes(b"\0")
    assert statuses(run([folder], store, prune=True))["b.md"] == "failed"
    assert store.find(str(folder / "b.md")) is not None


def test_a_file_is_ingested_once_however_often_it_is_named(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (folder / "link.md").symlink_to("b.md")
    monkeypatch.chdir(folder)
    report = run([folder, "b.md", folder / "a" / ".." / "b.md", "a"], store)
    assert report.n_added == len(report.outcomes) == 3


def test_odd_names_are_stored_and_cleaned(store: SqliteStore, folder: Path):
    (folder / "caf\udce9\u202e.md").write_text("text")
    report = run([folder], store)
    assert report.n_added == 4
    assert "caf\\xe9.md" in [document.filename for document in store.documents()]
    assert set(statuses(run([folder], store)).values()) == {"unchanged"}


def test_prune_deletes_what_is_gone_from_the_folder_and_nothing_else(store: SqliteStore, folder: Path):
    beside = folder.parent / "docs-too"
    write(beside, "a.md", "beside")
    run([folder, beside], store)
    (folder / "b.md").unlink()
    (beside / "a.md").unlink()
    assert run([folder], store).n_pruned == 0
    report = run([folder], store, prune=True)
    assert statuses(report) == {"a/c.html": "unchanged", "a/z.txt": "unchanged", "b.md": "pruned"}
    assert {Path(document.source).name for document in store.documents()} == {"c.html", "z.txt", "a.md"}
    assert run([folder / "a" / "gone"], store, prune=True).n_pruned == 0


def test_prune_spares_a_folder_that_could_not_be_read(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    run([folder], store)

    def unreadable(top: Path, onerror: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        onerror(PermissionError(13, "Permission denied", str(top / "a")))
        yield str(top), ["a"], ["b.md"]

    monkeypatch.setattr("os.walk", unreadable)
    report = run([folder], store, prune=True)
    assert statuses(report) == {str(folder / "a"): "failed", "b.md": "unchanged"}
    assert len(store.documents()) == 3


def test_a_full_store_ends_the_batch_with_what_was_committed(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    put = store.put

    def full(document: Document, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        if document.filename == "a/c.html":
            raise StoreFull("store.db: the disk is full; free space and ingest again")
        put(document, chunks, vectors)

    monkeypatch.setattr(store, "put", full)
    report = run([folder], store)
    assert statuses(report) == {"b.md": "added", "a/c.html": "failed"}
    assert report.stopped is not None
    assert "free space" in report.stopped
    assert [document.filename for document in store.documents()] == ["b.md"]
    monkeypatch.undo()
    assert statuses(run([folder], store)) == {"b.md": "unchanged", "a/c.html": "added", "a/z.txt": "added"}


def test_another_model_is_refused_before_anything_is_written(store: SqliteStore, folder: Path):
    run([folder / "b.md"], store)
    with pytest.raises(EmbedderMismatch):
        run([folder], store, embedder=HashingEmbedder(16))
    assert len(store.documents()) == 1


def test_chunk_sizes_that_cannot_work_are_an_error_of_the_caller(store: SqliteStore, folder: Path):
    with pytest.raises(ValueError, match="chunk settings"):
        run([folder], store, chunk_tokens=1)


def test_importing_ingest_is_quick_and_loads_no_model_library():
    script = (
        "import sys, retrieval.ingest.files, retrieval.search.retriever, retrieval.index.faiss_index, retrieval.embed.spec\n"
        "heavy = {'torch', 'faiss', 'sentence_transformers', 'transformers', 'bs4', 'markdown_it', 'server'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(retrieval.__file__).parents[1]
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
