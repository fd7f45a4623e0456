"""Files and folders into the store: read, compare, parse, chunk, embed, put. One file at a time."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retrieval.errors import RetrievalError, StoreFull, StoreUnusable
from retrieval.ingest.intake import Intake
from retrieval.ingest.walk import FoundFile, Walk, walk
from retrieval.parse.document import read, require_supported
from retrieval.store.sqlite_store import document_id_for
from retrieval.types import DEFAULT_STORE, Document

Status = Literal["added", "updated", "unchanged", "failed", "pruned"]


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one file. `reason` says why it failed; `n_chunks` is 0 unless it was added or updated."""

    filename: str
    source: str
    status: Status
    n_chunks: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """`n_done` of `n_files` are through; `last` is the one that just was."""

    n_done: int
    n_files: int
    last: FileOutcome


@dataclass(frozen=True, slots=True)
class IngestReport:
    outcomes: tuple[FileOutcome, ...]
    n_skipped: int
    """Files inside folders that are hidden or of a kind without a parser."""
    seconds: float
    stopped: str | None
    """Why the batch ended early (the store is full or unusable); what came before is committed."""

    def count(self, status: Status) -> int:
        return Counter(outcome.status for outcome in self.outcomes)[status]

    @property
    def n_added(self) -> int:
        return self.count("added")

    @property
    def n_updated(self) -> int:
        return self.count("updated")

    @property
    def n_unchanged(self) -> int:
        return self.count("unchanged")

    @property
    def n_failed(self) -> int:
        return self.count("failed")

    @property
    def n_pruned(self) -> int:
        return self.count("pruned")

    @property
    def n_chunks(self) -> int:
        """Chunks written by this ingest."""
        return sum(outcome.n_chunks for outcome in self.outcomes)


def ingest(
    paths: Sequence[str | Path],
    intake: Intake,
    *,
    chunk_tokens: int,
    overlap_tokens: int,
    max_document_bytes: int,
    on_progress: Callable[[IngestProgress], None] | None = None,
    prune: bool = False,
    only: Collection[str] | None = None,
    store_id: str = DEFAULT_STORE,
) -> IngestReport:
    """Bring a vector store in line with files and folders; a file stored already in this form costs one read.

    A file that cannot be ingested is an outcome of status "failed", and the rest goes on; what cannot go on
    (a full or unusable store) ends the batch with `stopped` set. `prune` deletes stored documents that lie
    under a given folder and are no longer found there. Of what the folders hold, `only` the files with these
    sources are looked at. Blocks: call it off the event loop.
    Raises `EmbedderMismatch` before anything is written; `ValueError` for chunk sizes that cannot work.
    """
    started = time.monotonic()
    intake.store.claim_embedder(intake.embedder.identity, intake.embedder.dim)
    found = walk(paths)
    files = [file for file in found.files if only is None or file.source in only]
    cut = _Cut(intake, chunk_tokens, overlap_tokens, max_document_bytes, store_id)
    outcomes: list[FileOutcome] = []
    stopped: str | None = None

    for path, reason in found.missing:
        outcomes.append(FileOutcome(str(path), str(path), "failed", reason=reason))
    for file in files:
        try:
            outcome = cut.ingest(file)
        except (StoreFull, StoreUnusable) as error:
            stopped = str(error)
            outcome = FileOutcome(file.filename, file.source, "failed", reason=stopped)
        except RetrievalError as error:
            outcome = FileOutcome(file.filename, file.source, "failed", reason=str(error))
        outcomes.append(outcome)
        if on_progress:
            on_progress(IngestProgress(len(outcomes), len(found.missing) + len(files), outcome))
        if stopped:
            break
    if prune and not stopped:
        try:
            outcomes.extend(_prune(found, intake, store_id))
        except (StoreFull, StoreUnusable) as error:
            stopped = str(error)
    return IngestReport(tuple(outcomes), found.n_skipped, time.monotonic() - started, stopped)


@dataclass(frozen=True, slots=True)
class _Cut:
    intake: Intake
    chunk_tokens: int
    overlap_tokens: int
    max_document_bytes: int
    store_id: str

    def ingest(self, file: FoundFile) -> FileOutcome:
        require_supported(file.path)
        data = read(file.path, self.max_document_bytes)
        sizes = self.chunk_tokens, self.overlap_tokens
        content_sha256 = self.intake.content_sha256(data, *sizes)
        stored = self.intake.store.find(file.source, self.store_id)
        if stored and stored.content_sha256 == content_sha256:
            return FileOutcome(file.filename, file.source, "unchanged")
        taken = self.intake.take(data, file.filename, *sizes, self.store_id)
        document = Document(
            document_id=document_id_for(file.source, self.store_id),
            source=file.source,
            filename=file.filename,
            title=taken.title,
            content_sha256=content_sha256,
            size_bytes=len(data),
            n_chunks=len(taken.chunks),
            ingested_at=time.time(),
            store_id=self.store_id,
        )
        self.intake.store.put(document, taken.chunks, taken.vectors)
        return FileOutcome(file.filename, file.source, "updated" if stored else "added", len(taken.chunks))


def _prune(found: Walk, intake: Intake, store_id: str) -> list[FileOutcome]:
    sources = {file.source for file in found.files}
    under = tuple(folder.rstrip(os.sep) + os.sep for folder in found.folders)
    gone = [
        document
        for document in intake.store.documents(store_id)
        if document.source not in sources and document.source.startswith(under)
    ]
    return [
        FileOutcome(document.filename, document.source, "pruned")
        for document in gone
        if intake.store.delete(document.document_id)
    ]
