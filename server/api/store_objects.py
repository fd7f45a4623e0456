"""What is stored, as the API shows it: from the nouns of `retrieval` to the shapes of `store_shapes.py`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Literal

from retrieval.file_types import Attachment, AttachmentStatus, Batch, StoredFile, VectorStore
from retrieval.types import Chunk, Passage, SearchTiming
from server.api.storage import expires_at
from server.api.store_shapes import (
    AttachmentExtras,
    ChunkingInForce,
    Expiry,
    FileBatch,
    FileContent,
    FileCounts,
    FileObject,
    LastError,
    Progress,
    ResultExtras,
    SearchExtras,
    SearchPhases,
    SearchResult,
    SearchResults,
    SizesInForce,
    StoreExtras,
    TextContent,
    VectorStoreFile,
    VectorStoreObject,
)
from server.sections.retrieval import RetrievalSettings


def file_object(file: StoredFile) -> FileObject:
    return FileObject(
        id=file.file_id,
        object="file",
        bytes=file.size_bytes,
        created_at=int(file.created_at),
        filename=file.filename,
        purpose=file.purpose,
        status="processed",
        expires_at=None,
    )


def store_object(store: VectorStore) -> VectorStoreObject:
    counts = file_counts(store.n_by_status)
    days, ends = store.expires_after_days, expires_at(store)
    status: Literal["in_progress", "completed", "expired"]
    status = "in_progress" if counts.in_progress else "completed"
    return VectorStoreObject(
        id=store.store_id,
        object="vector_store",
        created_at=int(store.created_at),
        name=store.name,
        status="expired" if ends is not None and ends <= time.time() else status,
        usage_bytes=store.usage_bytes,
        file_counts=counts,
        expires_after=None if days is None else Expiry("last_active_at", days),
        expires_at=None if ends is None else int(ends),
        last_active_at=int(store.last_active_at),
        metadata=dict(store.metadata),
        firstword=StoreExtras(store.description),
    )


def file_counts(n_by_status: Mapping[AttachmentStatus, int]) -> FileCounts:
    return FileCounts(
        in_progress=n_by_status.get("in_progress", 0),
        completed=n_by_status.get("completed", 0),
        failed=n_by_status.get("failed", 0),
        cancelled=n_by_status.get("cancelled", 0),
        total=sum(n_by_status.values()),
    )


def store_file(
    attachment: Attachment, settings: RetrievalSettings, progress: tuple[int, int] | None = None
) -> VectorStoreFile:
    """`progress`: chunks done and in all."""
    size, overlap = attachment.chunk_tokens, attachment.overlap_tokens
    sizes = SizesInForce(
        settings.chunk_tokens if size is None else size,
        settings.chunk_overlap_tokens if overlap is None else overlap,
    )
    return VectorStoreFile(
        id=attachment.file_id,
        object="vector_store.file",
        created_at=int(attachment.created_at),
        vector_store_id=attachment.store_id,
        status=attachment.status,
        last_error=_last_error(attachment),
        usage_bytes=attachment.usage_bytes,
        attributes=dict(attachment.attributes),
        chunking_strategy=ChunkingInForce("static", sizes),
        firstword=AttachmentExtras(
            attachment.filename,
            attachment.n_chunks,
            None if progress is None else Progress(*progress),
        ),
    )


def _last_error(attachment: Attachment) -> LastError | None:
    if attachment.status != "failed":
        return None
    match attachment.error_code:
        case "unsupported_file" | "invalid_file" as code:
            return LastError(code, attachment.error)
        case _:
            return LastError("server_error", attachment.error)


def file_batch(batch: Batch) -> FileBatch:
    counts = file_counts(batch.n_by_status)
    status: Literal["in_progress", "completed", "cancelled", "failed"] = "completed"
    if batch.cancelled:
        status = "cancelled"
    elif counts.in_progress:
        status = "in_progress"
    elif counts.total and counts.failed == counts.total:
        status = "failed"
    return FileBatch(
        id=batch.batch_id,
        object="vector_store.files_batch",
        created_at=int(batch.created_at),
        vector_store_id=batch.store_id,
        status=status,
        file_counts=counts,
    )


def file_content(chunks: Sequence[Chunk]) -> FileContent:
    texts = [TextContent("text", chunk.text) for chunk in chunks]
    return FileContent("vector_store.file_content.page", texts, has_more=False, next_page=None)


def search_results(
    queries: Sequence[str], passages: Sequence[Passage], timing: SearchTiming
) -> SearchResults:
    return SearchResults(
        object="vector_store.search_results.page",
        search_query=list(queries),
        data=[_search_result(passage) for passage in passages],
        has_more=False,
        next_page=None,
        firstword=SearchExtras(SearchPhases(timing.embed_ms, timing.search_ms, timing.rerank_ms)),
    )


def _search_result(passage: Passage) -> SearchResult:
    return SearchResult(
        file_id=passage.file_id or passage.document_id,
        filename=passage.filename,
        score=passage.score,
        attributes=dict(passage.attributes),
        content=[TextContent("text", passage.text)],
        firstword=ResultExtras(
            chunk_id=passage.chunk_id,
            title=passage.title,
            heading_path=list(passage.heading_path),
            page=passage.page,
            dense=passage.dense,
            lexical=passage.lexical,
        ),
    )
