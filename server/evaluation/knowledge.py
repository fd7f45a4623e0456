"""The passages of the data, ready to be searched: one store, index and retriever for each collection.

A passage is one chunk of a document of its own, so that the ids of what a search returns are the data's, and all modes
search the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from loadtest.report.partial_file import replacing
from retrieval.search.retriever import Retriever
from retrieval.store.sqlite_store import SqliteStore
from retrieval.types import Chunk, Document, Embedder, Query, Scope, TokenCounter, Vectors
from server.evaluation.data import SourcePassage
from server.knowledge import make_reranker, make_serving, search_options
from server.settings import Settings

log = logging.getLogger(__name__)

_BATCH = 64

OnProgress = Callable[[int, int], None]
"""Passages embedded, and passages in all."""


@dataclass(frozen=True, slots=True)
class Collection:
    store: SqliteStore
    retriever: Retriever


@asynccontextmanager
async def open_collections(
    settings: Settings,
    passages: Mapping[str, Sequence[SourcePassage]],
    embedder: Embedder,
    counter: TokenCounter,
    vectors_dir: Path,
    on_progress: OnProgress,
) -> AsyncGenerator[dict[str, Collection], None]:
    """By name of the collection. The stores live in a temporary folder; the vectors are kept in `vectors_dir`."""
    # The deployment's snapshot file is of another store.
    retrieval = settings.retrieval.model_copy(update={"index_snapshot": False})
    settings = settings.model_copy(update={"retrieval": retrieval})
    vectors = await asyncio.to_thread(embed_once, passages, embedder, vectors_dir, on_progress)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="firstword-evaluation-")))
        opened = {}
        for number, (name, held) in enumerate(passages.items()):
            store = SqliteStore(folder / f"{number}.sqlite")
            stack.callback(store.close)
            await asyncio.to_thread(_fill, store, held, vectors[name], embedder, counter)
            retriever = Retriever(
                store,
                partial(make_serving, settings, store, embedder),
                search_options(settings),
                make_reranker(settings),
            )
            stack.push_async_callback(retriever.close)
            await retriever.load()
            await retriever.search(Query("warm-up"), Scope(), top_k=1)
            opened[name] = Collection(store, retriever)
        yield opened


def embed_once(
    passages: Mapping[str, Sequence[SourcePassage]],
    embedder: Embedder,
    vectors_dir: Path,
    on_progress: OnProgress,
) -> dict[str, Vectors]:
    """`(n, dim)` float32 for each collection, in the order of its passages.

    Kept in a file that is named by the embedder and by what was embedded, so none is ever out of date. A folder that
    cannot be written costs the embedding of the next run, nothing else.
    """
    n_all = sum(len(held) for held in passages.values())
    vectors: dict[str, Vectors] = {}
    n_done = 0
    for name, held in passages.items():
        texts = [passage.text for passage in held]
        path = vectors_dir / f"vectors-{_digest(embedder.identity, texts)}.npy"
        found = _load(path, (len(texts), embedder.dim))
        if found is None:
            batches = []
            for first in range(0, len(texts), _BATCH):
                batches.append(embedder.embed(texts[first : first + _BATCH]))
                on_progress(n_done + min(first + _BATCH, len(texts)), n_all)
            found = np.concatenate(batches)
            _keep(path, found)
        vectors[name] = found
        n_done += len(texts)
        on_progress(n_done, n_all)
    return vectors


def _fill(
    store: SqliteStore,
    passages: Sequence[SourcePassage],
    vectors: Vectors,
    embedder: Embedder,
    counter: TokenCounter,
) -> None:
    store.claim_embedder(embedder.identity, embedder.dim)
    for passage, vector in zip(passages, vectors, strict=True):
        document = Document(
            document_id=passage.id,
            source=passage.id,
            filename=passage.id,
            title=passage.id,
            content_sha256=hashlib.sha256(passage.text.encode()).hexdigest(),
            size_bytes=len(passage.text.encode()),
            n_chunks=1,
            ingested_at=0.0,
        )
        store.put(document, [Chunk(0, (), passage.text, counter.count_tokens(passage.text))], vector[None])


def _digest(identity: str, texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps([identity, *texts]).encode()).hexdigest()[:32]


def _load(path: Path, shape: tuple[int, int]) -> Vectors | None:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.float32 else None


def _keep(path: Path, vectors: Vectors) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            np.save(file, vectors, allow_pickle=False)
    except OSError as error:
        log.warning("the vectors are not kept in %s: %s", path, error.strerror or error)
