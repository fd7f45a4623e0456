"""A store with documents, and retrievers over it with the real indexes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path

from retrieval.embed.hashing import HashingEmbedder
from retrieval.embed.queries import QueryEmbedder
from retrieval.filters import Attribute
from retrieval.index.faiss_index import FaissIndex
from retrieval.lexical.tantivy_index import TantivyIndex
from retrieval.search.retriever import Retriever, SearchOptions
from retrieval.search.serving import Serving
from retrieval.search.view import View
from retrieval.store.sqlite_store import SqliteStore, document_id_for
from retrieval.types import (
    DEFAULT_STORE,
    Chunk,
    Document,
    Embedder,
    Passage,
    Query,
    Reranker,
    Scope,
    Vectors,
)

DIM = 64
EMBEDDER = HashingEmbedder(DIM)


class CountingEmbedder(HashingEmbedder):
    """Remembers what it embedded."""

    def __init__(self, dim: int = DIM) -> None:
        super().__init__(dim)
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.embedded += texts
        return super().embed(texts)


class Words:
    """A token is a word."""

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        offsets, at = [], 0
        for word in text.split():
            at = text.index(word, at)
            offsets.append((at, at + len(word)))
            at += len(word)
        return offsets


def put(
    store: SqliteStore,
    source: str,
    *texts: str,
    store_id: str = DEFAULT_STORE,
    attributes: Mapping[str, Attribute] | None = None,
    embedder: Embedder = EMBEDDER,
) -> str:
    """One chunk for each text; returns the document's id."""
    chunks = [Chunk(ordinal, (), text, len(text.split())) for ordinal, text in enumerate(texts)]
    document_id = document_id_for(source, store_id)
    document = Document(
        document_id=document_id,
        source=source,
        filename=source,
        title="",
        content_sha256="",
        size_bytes=1,
        n_chunks=len(chunks),
        ingested_at=0.0,
        store_id=store_id,
        attributes=attributes or {},
    )
    store.put(document, chunks, embedder.embed(texts))
    return document_id


def open_store(path: Path, embedder: Embedder = EMBEDDER) -> SqliteStore:
    store = SqliteStore(path)
    store.claim_embedder(embedder.identity, embedder.dim)
    return store


def serving_of(
    store: SqliteStore, embedder: Embedder, reading: Executor, snapshot: Path | None = None
) -> Serving:
    view = View(store, FaissIndex(embedder.dim), TantivyIndex(), reading, snapshot)
    return Serving(QueryEmbedder(embedder), view)


@asynccontextmanager
async def retriever_of(
    store: SqliteStore,
    options: SearchOptions | None = None,
    *,
    embedder: Embedder = EMBEDDER,
    reranker: Reranker | None = None,
    snapshot: Path | None = None,
) -> AsyncGenerator[Retriever, None]:
    retriever = Retriever(
        store,
        lambda reading: serving_of(store, embedder, reading, snapshot),
        options or SearchOptions(),
        reranker,
    )
    try:
        await retriever.load()
        yield retriever
    finally:
        await retriever.close()


async def found(
    retriever: Retriever,
    question: str,
    scope: Scope | None = None,
    top_k: int = 5,
    min_score: float | None = None,
) -> list[Passage]:
    passages, _ = await retriever.search(Query(question), scope or Scope(), top_k, min_score)
    return passages


async def texts(
    retriever: Retriever,
    question: str,
    scope: Scope | None = None,
    top_k: int = 5,
    min_score: float | None = None,
) -> list[str]:
    return [passage.text for passage in await found(retriever, question, scope, top_k, min_score)]
