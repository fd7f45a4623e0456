"""The nouns of retrieval and the protocols between its parts.

A *document* is one source file in one *vector store*. It is cut into *chunks*; each chunk has one *vector*.
A chunk that a search returns, with its score, is a *passage*. A vector store belongs to one tenant; the store
`default` belongs to the deployment and is there from the beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.filters import Attribute, Filter

Vectors = NDArray[np.float32]
"""(n, dim) float32, rows L2-normalised, C-contiguous."""

ChunkKeys = NDArray[np.int64]
"""(n,) int64: the store's integer key of each chunk. Grows with every new chunk and is never given out twice."""

DocumentNumbers = NDArray[np.int64]
"""(n,) int64: the store's integer number of each chunk's document. Kept over updates, never given out twice."""

DEFAULT_STORE = "default"
DEPLOYMENT = ""
"""The tenant that the store `default` belongs to."""


@dataclass(frozen=True, slots=True)
class Section:
    """A run of text under one heading path, as a parser found it."""

    heading_path: tuple[str, ...]
    text: str
    page: int | None = None
    """Of a document with pages or slides, counted from 1: where the section begins."""


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    title: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document, small enough to be prompted with: at most the configured number of tokens."""

    ordinal: int
    heading_path: tuple[str, ...]
    text: str
    n_tokens: int
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that is parsed and cut."""

    title: str
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A stored document. `document_id` is stable for a store and source: ingesting a changed file keeps it."""

    document_id: str
    source: str
    filename: str
    title: str
    content_sha256: str
    """Of the bytes and of all that decides what becomes of them: parser version and chunk settings."""
    size_bytes: int
    n_chunks: int
    ingested_at: float
    """Unix seconds, for people; never used to measure a duration."""
    store_id: str = DEFAULT_STORE
    file_id: str = ""
    """Of the uploaded file that it was made from; empty for files that were read from a folder."""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that a search returned, or neighbouring chunks of one document as one.

    `score` is what passages are ranked by, but for a reranker, in [0, 1]; `dense` the cosine similarity to the query, in [-1, 1].
    """

    chunk_id: str
    document_id: str
    filename: str
    title: str
    heading_path: tuple[str, ...]
    text: str
    n_tokens: int
    score: float
    key: int = 0
    """The store's key of the chunk: never given out twice, so it names this version of the text."""
    ordinal: int = 0
    page: int | None = None
    store_id: str = DEFAULT_STORE
    file_id: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    dense: float | None = None
    lexical: float | None = None
    """BM25 as a share of what the query's words could earn."""
    also: tuple[int, ...] = ()
    """Keys of neighbouring chunks whose text is in it, too."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for, in the user's words."""

    question: str
    previous: tuple[str, ...] = ()
    """The user's earlier messages of the conversation, oldest first."""
    reply: str = ""
    """The assistant's last message."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What may be found. That the caller may read these stores was checked before."""

    store_ids: tuple[str, ...] = (DEFAULT_STORE,)
    filter: Filter | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The documents of a scope, as they are at one version of the store.

    Indexes keep what they derive from a selection for as long as that very object lives.
    """

    store_ids: tuple[str, ...]
    documents: NDArray[np.bool_]
    """By document number; numbers beyond its end are not selected."""
    every_document: bool
    """All documents of these stores are selected."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Chunks as the indexes take them in. All parts have the length n."""

    keys: ChunkKeys
    documents: DocumentNumbers
    vectors: Vectors
    texts: tuple[str, ...]
    """What a lexical index reads: title, heading path and text."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a selection needs to know of a document."""

    number: int
    store_id: str
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class Changes:
    """What came to be after one version of the store and up to `version`; what came and went is left out."""

    version: int
    entries: tuple[Entry, ...]
    """Documents that are new or whose attributes changed."""
    gone_documents: tuple[int, ...]
    gone_keys: tuple[int, ...]
    added: Rows


class Snapshot(Protocol):
    """One consistent state of a store, for as long as its context is open."""

    @property
    def version(self) -> int: ...

    @property
    def n_chunks(self) -> int: ...

    def entries(self) -> list[Entry]: ...

    def rows(self, batch: int, above_key: int = -1) -> Iterator[Rows]:
        """All chunks above a key in key order, at most `batch` at a time."""
        ...

    def changes(self, since: int) -> Changes | None:
        """`DocumentStore.changes`, up to this state."""
        ...


@dataclass(frozen=True, slots=True)
class SearchTiming:
    """How long the consecutive phases of one retrieval took, in milliseconds."""

    embed_ms: float
    search_ms: float
    rerank_ms: float


class TokenCounter(Protocol):
    """Counts tokens as the chat model would, so that a chunk's size is a share of the prompt."""

    def count_tokens(self, text: str) -> int: ...

    def token_offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """Character spans `(start, end)` of the text's tokens, in order."""
        ...


class Embedder(Protocol):
    """Text to vectors. Implementations may block; callers keep them off the event loop."""

    @property
    def identity(self) -> str:
        """Names model and weights; vectors of different identities are never compared."""
        ...

    @property
    def dim(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """`(len(texts), dim)` float32, L2-normalised."""
        ...


class VectorIndex(Protocol):
    """Nearest neighbours by inner product. One thread owns an index; the methods are awaited from any task."""

    async def replace(self, rows: Sequence[Rows]) -> None:
        """Swap the whole content; searches see the old or the new, never a mixture."""
        ...

    async def change(self, gone: Sequence[int], added: Rows) -> None:
        """When this has returned, every search that begins sees the change. Unknown keys are passed over."""
        ...

    async def search(
        self, queries: Vectors, top_k: int, selection: Selection | None = None
    ) -> list[list[tuple[int, float]]]:
        """For each of the `(n, dim)` queries at most `top_k` pairs (chunk key, score) of the selection, best
        first; equal scores are ordered by key."""
        ...

    async def scores(self, query: Vectors, keys: Sequence[int]) -> list[float]:
        """The inner products of one `(1, dim)` query with these chunks; `nan` for keys that are not there."""
        ...

    def __len__(self) -> int: ...

    def close(self) -> None: ...


class LexicalIndex(Protocol):
    """BM25, as a share of what the query's words could earn. The statistics of a store (how rare a word is) are its own: no tenant's text shows in another's scores."""

    async def replace(self, entries: Sequence[Entry], rows: Sequence[Rows]) -> None: ...

    async def change(self, gone: Sequence[int], entries: Sequence[Entry], added: Rows) -> None:
        """`entries` tells the store of every document in `added`. As `VectorIndex.change`."""
        ...

    async def search(
        self, parts: Sequence[tuple[str, float]], top_k: int, selection: Selection
    ) -> list[tuple[int, float]]:
        """At most `top_k` pairs (chunk key, share) of the selection, best first; equal scores by key. A chunk that holds
        every word has about 1, whatever the query.

        `parts` are texts and how much their words count; any text is words, never query syntax.
        """
        ...

    def __len__(self) -> int: ...

    def close(self) -> None: ...


class Reranker(Protocol):
    def rerank(self, query: str, texts: Sequence[str], budget_ms: float) -> list[float | None]:
        """The relevance of each text, in its order; `None` from where the time was used up."""
        ...


class DocumentStore(Protocol):
    """The durable truth: documents, chunks, vectors. What `put` returned from survives a crash."""

    def claim_embedder(self, identity: str, dim: int) -> None:
        """Bind the store to one embedding model, before the first `put`. Raises `EmbedderMismatch`."""
        ...

    def embedder(self) -> tuple[str, int] | None:
        """Identity and dimensions of the model whose vectors it holds, whoever bound it; None before the first."""
        ...

    def identity(self) -> str:
        """Of this store, made with it: a snapshot that belongs to another store is told by it."""
        ...

    def version(self) -> int:
        """Grows with every committed change, by whichever process; cheap enough to ask before each search."""
        ...

    def known_vectors(self, texts_sha256: Sequence[bytes], store_id: str) -> dict[bytes, NDArray[np.float32]]:
        """Vectors `(dim,)` that some chunk has already, by the SHA-256 of the text they were made of.

        Of chunks that the owner of that vector store may search: an ingest that is quick must not tell what others hold.
        """
        ...

    def put(self, document: Document, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Insert or replace one document atomically; chunks whose embedded text is unchanged keep their key.

        Raises `StoreFull`, leaving the old one intact; `NotHere` when its vector store is gone.
        """
        ...

    def modify(self, document_id: str, attributes: Mapping[str, Attribute]) -> bool:
        """Replace the attributes."""
        ...

    def delete(self, document_id: str) -> bool: ...

    def find(self, source: str, store_id: str = DEFAULT_STORE) -> Document | None: ...

    def document(self, document_id: str) -> Document | None: ...

    def documents(self, store_id: str | None = None) -> list[Document]:
        """Of one store, or all; ordered by store and source."""
        ...

    def chunks(self, document_id: str) -> list[Chunk]:
        """In reading order."""
        ...

    def snapshot(self) -> AbstractContextManager[Snapshot]: ...

    def changes(self, since: int) -> Changes | None:
        """None when the log does not reach back that far, or all vectors are new: the views are built anew."""
        ...

    def passages(self, hits: Sequence[tuple[int, float]]) -> list[Passage]:
        """The chunks behind index hits, in the given order; keys that are gone are left out."""
        ...

    def neighbours(self, document_id: str, ordinals: Sequence[int]) -> list[Passage]:
        """Chunks of one document by their ordinals, in reading order, with a score of 0."""
        ...

    def passage(self, chunk_id: str) -> Passage | None: ...

    def present(self, keys: Sequence[int]) -> set[int]:
        """Those of the chunk keys that are still there, unchanged."""
        ...

    def close(self) -> None: ...
