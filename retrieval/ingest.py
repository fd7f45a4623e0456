"""Files and folders into the store: read, compare, parse, chunk, embed, put. One file at a time."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from retrieval.chunk import chunk, chunk_text_for_embedding
from retrieval.errors import RetrievalError, StoreFull, StoreUnusable
from retrieval.parse import PARSER_VERSION, parse, read, require_supported
from retrieval.store import document_id_for
from retrieval.types import Document, DocumentStore, Embedder, TokenCounter
from retrieval.walk import FoundFile, Walk, walk

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
    store: DocumentStore,
    embedder: Embedder,
    counter: TokenCounter,
    *,
    chunk_tokens: int,
    overlap_tokens: int,
    max_document_bytes: int,
    on_progress: Callable[[IngestProgress], None] | None = None,
    prune: bool = False,
) -> IngestReport:
    """Bring the store in line with files and folders; a file stored already in this form costs one read.

    A file that cannot be ingested is an outcome of status "failed", and the rest goes on; what cannot go on
    (a full or unusable store) ends the batch with `stopped` set. `prune` deletes stored documents that lie
    under a given folder and are no longer found there. Blocks: call it off the event loop.
    Raises `EmbedderMismatch` before anything is written; `ValueError` for chunk sizes that cannot work.
    """
    started = time.monotonic()
    store.claim_embedder(embedder.identity, embedder.dim)
    found = walk(paths)
    cutter = _Cutter(embedder, counter, chunk_tokens, overlap_tokens)
    outcomes: list[FileOutcome] = []
    stopped: str | None = None

    for path, reason in found.missing:
        outcomes.append(FileOutcome(str(path), str(path), "failed", reason=reason))
    for file in found.files:
        try:
            outcome = _ingest_file(file, store, cutter, max_document_bytes)
        except (StoreFull, StoreUnusable) as error:
            stopped = str(error)
            outcome = FileOutcome(file.filename, file.source, "failed", reason=stopped)
        except RetrievalError as error:
            outcome = FileOutcome(file.filename, file.source, "failed", reason=str(error))
        outcomes.append(outcome)
        if on_progress:
            on_progress(IngestProgress(len(outcomes), len(found.missing) + len(found.files), outcome))
        if stopped:
            break
    if prune and not stopped:
        try:
            outcomes.extend(_prune(found, store))
        except (StoreFull, StoreUnusable) as error:
            stopped = str(error)
    return IngestReport(tuple(outcomes), found.n_skipped, time.monotonic() - started, stopped)


@dataclass(frozen=True, slots=True)
class _Cutter:
    embedder: Embedder
    counter: TokenCounter
    chunk_tokens: int
    overlap_tokens: int

    def content_sha256(self, data: bytes) -> str:
        """Changes when the stored chunks would: with the bytes, the chunk settings or the parser."""
        settings = json.dumps([PARSER_VERSION, self.chunk_tokens, self.overlap_tokens])
        return hashlib.sha256(settings.encode() + b"\n" + data).hexdigest()


def _ingest_file(
    file: FoundFile, store: DocumentStore, cutter: _Cutter, max_document_bytes: int
) -> FileOutcome:
    require_supported(file.path)
    data = read(file.path, max_document_bytes)
    content_sha256 = cutter.content_sha256(data)
    stored = store.find(file.source)
    if stored and stored.content_sha256 == content_sha256:
        return FileOutcome(file.filename, file.source, "unchanged")
    parsed = parse(data, PurePath(file.filename))
    chunks = chunk(parsed, cutter.counter, cutter.chunk_tokens, cutter.overlap_tokens)
    vectors = cutter.embedder.embed([chunk_text_for_embedding(parsed.title, piece) for piece in chunks])
    document = Document(
        document_id=document_id_for(file.source),
        source=file.source,
        filename=file.filename,
        title=parsed.title,
        content_sha256=content_sha256,
        size_bytes=len(data),
        n_chunks=len(chunks),
        ingested_at=time.time(),
    )
    store.put(document, chunks, vectors)
    return FileOutcome(file.filename, file.source, "updated" if stored else "added", len(chunks))


def _prune(found: Walk, store: DocumentStore) -> list[FileOutcome]:
    sources = {file.source for file in found.files}
    under = tuple(folder.rstrip(os.sep) + os.sep for folder in found.folders)
    gone = [
        document
        for document in store.documents()
        if document.source not in sources and document.source.startswith(under)
    ]
    return [
        FileOutcome(document.filename, document.source, "pruned")
        for document in gone
        if store.delete(document.document_id)
    ]
