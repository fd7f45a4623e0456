"""What the endpoints of files and vector stores answer, in OpenAI's shapes; `openapi_stores.py` publishes them.

Divergences:
- What is ours stands under `firstword`.
- `search_query` is a list always, as OpenAI's schema has it (its examples show a text).
- `content` of a file in a vector store has one entry per chunk; neighbouring chunks share their overlap.

https://platform.openai.com/docs/api-reference/files, https://platform.openai.com/docs/api-reference/vector-stores
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from retrieval.file_types import AttachmentStatus

AttributeValue = str | int | float | bool


class FileObject(Struct):
    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"]
    """Deprecated by OpenAI. What became of a file in a vector store stands there."""
    expires_at: None
    """Files are kept until they are deleted."""


class FileList(Struct):
    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(Struct):
    id: str
    object: Literal["file"]
    deleted: Literal[True]


class FileCounts(Struct):
    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class Expiry(Struct):
    anchor: Literal["last_active_at"]
    days: int


class StoreExtras(Struct):
    description: str


class VectorStoreObject(Struct):
    id: str
    object: Literal["vector_store"]
    created_at: int
    name: str
    status: Literal["in_progress", "completed", "expired"]
    """`in_progress` while files are being read in."""
    usage_bytes: int
    file_counts: FileCounts
    expires_after: Expiry | None
    expires_at: int | None
    last_active_at: int
    metadata: dict[str, str]
    firstword: StoreExtras


class VectorStoreList(Struct):
    object: Literal["list"]
    data: list[VectorStoreObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VectorStoreDeleted(Struct):
    id: str
    object: Literal["vector_store.deleted"]
    deleted: Literal[True]


class LastError(Struct):
    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


class SizesInForce(Struct):
    max_chunk_size_tokens: int
    chunk_overlap_tokens: int


class ChunkingInForce(Struct):
    type: Literal["static"]
    static: SizesInForce


class Progress(Struct):
    chunks_done: int
    chunks_total: int


class AttachmentExtras(Struct):
    filename: str
    n_chunks: int
    progress: Progress | None
    """While the file is being embedded."""


class VectorStoreFile(Struct):
    id: str
    """Of the file."""
    object: Literal["vector_store.file"]
    created_at: int
    vector_store_id: str
    status: AttachmentStatus
    last_error: LastError | None
    usage_bytes: int
    attributes: dict[str, AttributeValue]
    chunking_strategy: ChunkingInForce
    firstword: AttachmentExtras


class VectorStoreFileList(Struct):
    object: Literal["list"]
    data: list[VectorStoreFile]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VectorStoreFileDeleted(Struct):
    id: str
    object: Literal["vector_store.file.deleted"]
    deleted: Literal[True]


class TextContent(Struct):
    type: Literal["text"]
    text: str


class FileContent(Struct):
    object: Literal["vector_store.file_content.page"]
    data: list[TextContent]
    """One per chunk, in reading order; empty until the file is read in."""
    has_more: Literal[False]
    next_page: None


class FileBatch(Struct):
    id: str
    object: Literal["vector_store.files_batch"]
    created_at: int
    vector_store_id: str
    status: Literal["in_progress", "completed", "cancelled", "failed"]
    """`failed` when every file did."""
    file_counts: FileCounts


class ResultExtras(Struct):
    chunk_id: str
    title: str
    heading_path: list[str]
    page: int | None
    """Of a document with pages, from 1."""
    dense: float | None
    """Cosine similarity to the query."""
    lexical: float | None
    """BM25; comparable within one search only."""


class SearchResult(Struct):
    file_id: str
    """Of documents that the operator ingested from a folder: the document's id."""
    filename: str
    score: float
    attributes: dict[str, AttributeValue]
    content: list[TextContent]
    firstword: ResultExtras


class SearchPhases(Struct):
    """In milliseconds."""

    embed: float
    search: float
    rerank: float


class SearchExtras(Struct):
    timing: SearchPhases


class SearchResults(Struct):
    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[SearchResult]
    has_more: Literal[False]
    next_page: None
    firstword: SearchExtras


RESPONSES: tuple[type[Struct], ...] = (
    FileObject,
    FileList,
    FileDeleted,
    VectorStoreObject,
    VectorStoreList,
    VectorStoreDeleted,
    VectorStoreFile,
    VectorStoreFileList,
    VectorStoreFileDeleted,
    FileContent,
    FileBatch,
    SearchResults,
)
