"""The documents: the store, what searches it, and the ways into it. Put together at start-up, and by the commands."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from retrieval.embed.process import EmbeddingProcess
from retrieval.embed.queries import QueryEmbedder
from retrieval.embed.spec import EmbedderSpec, open_embedder
from retrieval.errors import EmbedderMismatch
from retrieval.index.faiss_index import FaissIndex
from retrieval.index.kind import IndexChoice
from retrieval.ingest.files import IngestProgress, IngestReport, ingest
from retrieval.ingest.intake import DirectPreparer, Intake
from retrieval.ingest.preparer import ParseLimits, Preparer
from retrieval.lexical.tantivy_index import TantivyIndex
from retrieval.search.rerank import CrossEncoderReranker
from retrieval.search.retriever import Retriever, SearchOptions
from retrieval.search.serving import Serving
from retrieval.search.view import View
from retrieval.store.sqlite_store import SqliteStore
from retrieval.types import DEFAULT_STORE, Embedder, Query, Scope
from server.context.template import ChatTemplate
from server.ingestion import Ingestion, Throttle
from server.sections.section import STARTER
from server.settings import PROJECT_ROOT, Settings
from server.starter import starter_embedder

log = logging.getLogger(__name__)

_MIB = 1 << 20
_REINDEXED = "reindexed.json"

Report = Callable[[str], None]
"""Told each phase of the start, in words for people."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    store: SqliteStore
    retriever: Retriever
    ingestion: Ingestion


@asynccontextmanager
async def open_knowledge(
    settings: Settings, template: ChatTemplate, report: Report, engine_is_free: Callable[[], bool]
) -> AsyncGenerator[Knowledge, None]:
    """Raises `RetrievalError` with the next step when the documents cannot be served."""
    async with AsyncExitStack() as stack:
        report("loading the embedder")
        embedder = await asyncio.to_thread(make_embedder, settings)
        store = await asyncio.to_thread(open_store, settings, embedder)
        stack.callback(store.close)
        if not await asyncio.to_thread(store.documents, DEFAULT_STORE):
            await asyncio.to_thread(_ingest_sample, settings, store, embedder, template, report)
        throttle = Throttle(engine_is_free, settings.files.ingest_pause_s)
        preparer = await asyncio.to_thread(make_preparer, settings, template)
        stack.callback(preparer.close)
        ingestion = Ingestion(
            store.files,
            Intake(preparer, embedder_behind_turns(settings, embedder, throttle), store),
            chunk_tokens=settings.retrieval.chunk_tokens,
            overlap_tokens=settings.retrieval.chunk_overlap_tokens,
            throttle=throttle,
            stop_preparing=preparer.close,
        )
        stack.push_async_callback(ingestion.close)

        def open_serving(reading: Executor) -> Serving:
            """At the start, and after a reindex."""
            serves = embedder_of(settings, store, embedder)
            if serves is not embedder:
                ingestion.embed_with(embedder_behind_turns(settings, serves, throttle))
                store.claim_embedder(serves.identity, serves.dim)
            return make_serving(settings, store, serves, reading)

        retriever = Retriever(store, open_serving, search_options(settings), make_reranker(settings))
        stack.push_async_callback(retriever.close)
        report("loading the index")
        await retriever.load()
        # So that nobody's first turn pays for it.
        await retriever.search(Query("warm-up"), Scope(), top_k=1)
        ingestion.start(retriever.follow)
        yield Knowledge(store, retriever, ingestion)


def make_embedder(settings: Settings) -> Embedder:
    """Raises `EmbedderMissing`."""
    return open_embedder(embedder_spec(settings))


def embedder_spec(settings: Settings, path: str = "") -> EmbedderSpec:
    """Of the model in the settings, or of another that is run in the same way."""
    retrieval = settings.retrieval
    if retrieval.embedder_kind == "hashing":
        return EmbedderSpec("", "hashing")
    if not path:
        starter = retrieval.embedder == STARTER
        path = str(starter_embedder(settings.models_path)) if starter else retrieval.embedder
    return EmbedderSpec(
        path,
        retrieval.embedder_backend,
        retrieval.embedder_device or None,
        n_threads=retrieval.embedder_threads,
    )


def embedder_behind_turns(settings: Settings, embedder: Embedder, throttle: Throttle) -> Embedder:
    """The same model in a process of its own at low priority; what has no model needs none."""
    if settings.retrieval.embedder_kind == "hashing":
        return embedder
    spec = _remembered(settings, embedder.identity) or embedder_spec(settings)
    # More threads embed fewer chunks for the same CPU time.
    return EmbeddingProcess(replace(spec, n_threads=1), embedder.identity, embedder.dim, pause=throttle)


def embedder_of(settings: Settings, store: SqliteStore, embedder: Embedder) -> Embedder:
    """That of the store's vectors: `embedder`, unless they were made anew since. Raises `EmbedderMismatch`."""
    held = store.embedder()
    if held is None or held == (embedder.identity, embedder.dim):
        return embedder
    spec = _remembered(settings, held[0])
    found = open_embedder(spec) if spec is not None else None
    if found is None or (found.identity, found.dim) != held:
        raise EmbedderMismatch(
            f"the store holds vectors of {held[0]} now; restart the server with that model in retrieval.embedder"
        )
    return found


def remember_embedder(settings: Settings, spec: EmbedderSpec, embedder: Embedder) -> None:
    """So that a running server finds the model that a reindex was made with."""
    known = {"identity": embedder.identity, "spec": asdict(spec)}
    path = settings.data_path / _REINDEXED
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(known), encoding="utf-8")
    partial.replace(path)


def _remembered(settings: Settings, identity: str) -> EmbedderSpec | None:
    try:
        known = json.loads((settings.data_path / _REINDEXED).read_text(encoding="utf-8"))
        return EmbedderSpec(**known["spec"]) if known["identity"] == identity else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def make_reranker(settings: Settings) -> CrossEncoderReranker | None:
    """Raises `RerankerMissing`."""
    path = settings.retrieval.reranker
    return CrossEncoderReranker(path) if path else None


def make_preparer(settings: Settings, template: ChatTemplate) -> Preparer:
    """Its workers count the chat model's tokens, for chunks are a share of the prompt."""
    path = settings.data_path / "chunk-tokenizer.json"
    partial = path.with_suffix(f".{os.getpid()}.partial")
    template.tokenizer.backend_tokenizer.save(str(partial))
    partial.replace(path)
    retrieval = settings.retrieval
    limits = ParseLimits(
        max_bytes=retrieval.max_document_bytes,
        max_unpacked_bytes=retrieval.max_unpacked_bytes,
        max_pages=retrieval.max_pages,
        max_chunks=retrieval.max_chunks,
        max_seconds=retrieval.parse_seconds,
        max_memory_bytes=retrieval.parse_memory_mib * _MIB,
    )
    return Preparer(path, limits)


def open_store(settings: Settings, embedder: Embedder) -> SqliteStore:
    """Raises `EmbedderMismatch`, `StoreUnusable`."""
    store = SqliteStore(store_path(settings))
    store.claim_embedder(embedder.identity, embedder.dim)
    return store


def store_path(settings: Settings) -> Path:
    return settings.data_path / "store.sqlite"


def search_options(settings: Settings) -> SearchOptions:
    retrieval = settings.retrieval
    return SearchOptions(
        mode=retrieval.mode,
        query=retrieval.query,
        candidates=retrieval.candidates,
        rerank_candidates=retrieval.rerank_candidates,
        rerank_budget_ms=retrieval.rerank_budget_ms,
    )


def make_serving(settings: Settings, store: SqliteStore, embedder: Embedder, reading: Executor) -> Serving:
    """Called anew after a reindex, when the model of the settings may not be the store's any more."""
    retrieval = settings.retrieval
    vectors = FaissIndex(embedder.dim, IndexChoice(kind=retrieval.index, device=retrieval.index_device))
    lexical = TantivyIndex() if retrieval.mode != "dense" else None
    snapshot = settings.data_path / "vectors.snapshot" if retrieval.index_snapshot else None
    return Serving(QueryEmbedder(embedder), View(store, vectors, lexical, reading, snapshot))


def _ingest_sample(
    settings: Settings, store: SqliteStore, embedder: Embedder, template: ChatTemplate, report: Report
) -> None:
    """Our own pages need no process of their own to be parsed in."""
    sample = settings.retrieval.sample_knowledge
    if not sample:
        return

    def on_progress(progress: IngestProgress) -> None:
        if progress.n_done == progress.n_files:
            report(f"ingested the sample knowledge, {progress.n_files} documents")

    report("ingesting the sample knowledge")
    intake = Intake(DirectPreparer(template), embedder, store)
    outcome = ingest_paths(settings, [PROJECT_ROOT / sample], intake, on_progress=on_progress)
    for failed in outcome.outcomes:
        if failed.status == "failed":
            log.warning("sample knowledge: %s", failed.reason)


def ingest_paths(
    settings: Settings,
    paths: Sequence[Path],
    intake: Intake,
    *,
    on_progress: Callable[[IngestProgress], None],
    prune: bool = False,
    only: Collection[str] | None = None,
) -> IngestReport:
    """`retrieval.ingest.files.ingest` with this deployment's settings."""
    retrieval = settings.retrieval
    return ingest(
        paths,
        intake,
        chunk_tokens=retrieval.chunk_tokens,
        overlap_tokens=retrieval.chunk_overlap_tokens,
        max_document_bytes=retrieval.max_document_bytes,
        on_progress=on_progress,
        prune=prune,
        only=only,
    )
