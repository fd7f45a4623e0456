"""The nouns of retrieval and the protocols between its parts.

A *document* is one source file. It is cut into *chunks*; each chunk has one *vector*. A chunk that a
search returns, with its score, is a *passage*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""(n, dim) float32, rows L2-normalised, C-contiguous."""

ChunkKeys = NDArray[np.int64]
"""(n,) int64: the store's integer key of each chunk, the id under which FAISS holds its vector."""


@dataclass(frozen=True, slots=True)
class Section:
    """A run of text under one heading path, as a parser found it."""

    heading_path: tuple[str, ...]
    text: str


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


@dataclass(frozen=True, slots=True)
class Document:
    """A stored document. `document_id` is stable for a source: ingesting a changed file keeps it."""

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


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that a search returned. `score` is the cosine similarity to the query, in [-1, 1]."""

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

    async def replace(self, keys: ChunkKeys, vectors: Vectors) -> None:
        """Swap the whole content; searches see the old or the new, never a mixture."""
        ...

    async def search(self, query: Vectors, top_k: int) -> list[tuple[int, float]]:
        """`query` is `(1, dim)`. At most `top_k` pairs (chunk key, score), best first."""
        ...

    def __len__(self) -> int: ...

    def close(self) -> None: ...


class DocumentStore(Protocol):
    """The durable truth: documents, chunks, vectors. What `put` returned from survives a crash."""

    def claim_embedder(self, identity: str, dim: int) -> None:
        """Bind the store to one embedding model, before the first `put`. Raises `EmbedderMismatch`."""
        ...

    def version(self) -> int:
        """Grows with every committed change, by whichever process; cheap enough to ask before each search."""
        ...

    def put(self, document: Document, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Insert or replace one document atomically. Raises `StoreFull`, leaving the old one intact."""
        ...

    def delete(self, document_id: str) -> bool: ...

    def find(self, source: str) -> Document | None: ...

    def documents(self) -> list[Document]: ...

    def chunk_vectors(self) -> tuple[ChunkKeys, Vectors]:
        """A consistent snapshot of every vector, in key order."""
        ...

    def passages(self, hits: Sequence[tuple[int, float]]) -> list[Passage]:
        """The chunks behind index hits, in the given order; keys that are gone are left out."""
        ...

    def passage(self, chunk_id: str) -> Passage | None: ...

    def present(self, keys: Sequence[int]) -> set[int]:
        """Those of the chunk keys that are still there, unchanged."""
        ...

    def close(self) -> None: ...
