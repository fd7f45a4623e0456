"""`firstword eval retrieval`: the last turn of each conversation is searched for, in every variant of the search."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import msgspec
import uvloop
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loadtest.report.partial_file import replacing
from retrieval.ingest.chunk import chunk
from retrieval.ingest.intake import Intake
from retrieval.search.query import QueryForm
from retrieval.search.retriever import Retriever, SearchOptions
from retrieval.store.sqlite_store import SqliteStore, document_id_for
from retrieval.types import (
    Chunk,
    Document,
    Embedder,
    ParsedDocument,
    Prepared,
    Query,
    Scope,
    Section,
    TokenCounter,
)
from server.context.conversation import read_conversation
from server.context.template import ChatTemplate, Message
from server.errors import ConfigError, ModelMissing
from server.evaluation.conditions import machine
from server.evaluation.data import Conversation, Data, SourcePassage, read_data
from server.evaluation.search_report import (
    RANKS,
    Found,
    RetrievalReport,
    Variant,
    VariantReport,
    print_report,
    report_of,
)
from server.knowledge import make_embedder, make_reranker, make_serving, search_options
from server.parts import chat_model, uses_starter
from server.settings import Settings
from server.starter import starter_is_prepared

_CHUNKS_A_PASSAGE = 4
_TENANT = "evaluation"


@dataclass(frozen=True, slots=True)
class RetrievalOrder:
    modes: tuple[str, ...]
    query_forms: tuple[str, ...]
    whole: bool
    """Each passage is one chunk, as in the data; else it is cut as a document would be."""


def evaluate_retrieval(
    settings: Settings, folder: Path, order: RetrievalOrder, output: Path, console: Console
) -> int:
    """Returns the exit code. Raises `SetupError` before anything is measured."""
    variants = variants_of(settings, order)
    data = read_data(folder)
    if uses_starter(settings) and not starter_is_prepared(settings.models_path):
        raise ModelMissing("the starter models are not prepared", next_step="run `firstword models prepare`")
    if not output.resolve().parent.is_dir():
        raise ConfigError(
            f"--output {output}: there is no such folder", next_step="name a file in an existing one"
        )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(_evaluate(settings, data, order, variants, console))
    print_report(report, console)
    with replacing(output) as file:
        file.write(msgspec.json.format(msgspec.json.encode(report), indent=1))
    console.print(f"everything that was found: {escape(str(output))}", highlight=False, soft_wrap=True)
    return 0


def variants_of(settings: Settings, order: RetrievalOrder) -> list[Variant]:
    """The settings' own, and each mode with each query form. Raises `ConfigError` for a name that is none."""
    own = search_options(settings)
    forms = [_named("--query-forms", form, get_args(QueryForm)) for form in order.query_forms]
    modes = [_named("--modes", mode, ("dense", "lexical", "hybrid")) for mode in order.modes]
    variants = [Variant(f"as configured ({own.mode}, {own.query})", own)]
    for mode in modes:
        for form in forms:
            options = replace(own, mode=mode, query=form)  # type: ignore[arg-type]
            if options != own:
                variants.append(Variant(f"{mode}, {form}", options))
    return variants


def _named(option: str, name: str, known: Sequence[str]) -> str:
    if name not in known:
        raise ConfigError(f"{option}: there is no {name!r}", next_step=f"choose among {', '.join(known)}")
    return name


@dataclass(frozen=True, slots=True)
class _Whole:
    """A preparer for passages, which have no title and are cut already."""

    counter: TokenCounter
    whole: bool

    def prepare(self, data: bytes, filename: str, chunk_tokens: int, overlap_tokens: int) -> Prepared:
        text = data.decode()
        if self.whole:
            return Prepared("", (Chunk(0, (), text, self.counter.count_tokens(text)),))
        parsed = ParsedDocument("", (Section((), text),))
        return Prepared("", tuple(chunk(parsed, self.counter, chunk_tokens, overlap_tokens)))


async def _evaluate(
    settings: Settings, data: Data, order: RetrievalOrder, variants: Sequence[Variant], console: Console
) -> RetrievalReport:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        tempfile.TemporaryDirectory(prefix="firstword-evaluation-") as folder,
        Progress(*columns, console=console) as progress,
    ):
        retrieval = settings.retrieval.model_copy(update={"index_snapshot": False})
        own = settings.model_copy(update={"data_dir": Path(folder), "retrieval": retrieval})
        embedder = await asyncio.to_thread(make_embedder, settings)
        template = await asyncio.to_thread(ChatTemplate, chat_model(settings))
        store = SqliteStore(Path(folder) / "store.sqlite")
        try:
            store.claim_embedder(embedder.identity, embedder.dim)
            intake = Intake(_Whole(template, order.whole), embedder, store)
            stores = await asyncio.to_thread(_fill, own, data, intake, store, progress)
            reports = [
                await _measure(own, data.conversations, stores, store, embedder, variant, progress)
                for variant in variants
            ]
            n_chunks = sum(document.n_chunks for document in store.documents())
        finally:
            store.close()
    return RetrievalReport(
        tool=f"firstword {version('firstword')}",
        machine=machine(),
        embedder=embedder.identity,
        data=data.name,
        data_sha256=data.sha256,
        passages=sum(map(len, data.passages.values())),
        chunks=n_chunks,
        chunk_tokens=settings.retrieval.chunk_tokens,
        overlap_tokens=settings.retrieval.chunk_overlap_tokens,
        variants=tuple(reports),
    )


def _fill(
    settings: Settings, data: Data, intake: Intake, store: SqliteStore, progress: Progress
) -> dict[str, str]:
    """The vector store of each collection: all in one index, as tenants would be."""
    task = progress.add_task("embedding the passages", total=sum(map(len, data.passages.values())))
    stores = {}
    for name, passages in data.passages.items():
        store_id = stores[name] = store.files.create_store(_TENANT, name).store_id
        for passage in passages:
            _put(settings, passage, store_id, intake, store)
            progress.advance(task)
    return stores


def _put(
    settings: Settings, passage: SourcePassage, store_id: str, intake: Intake, store: SqliteStore
) -> None:
    retrieval = settings.retrieval
    data = passage.text.encode()
    taken = intake.take(data, passage.id, retrieval.chunk_tokens, retrieval.chunk_overlap_tokens, store_id)
    document = Document(
        document_id=document_id_for(passage.id, store_id),
        source=passage.id,
        filename=passage.id,
        title="",
        content_sha256="",
        size_bytes=len(data),
        n_chunks=len(taken.chunks),
        ingested_at=0.0,
        store_id=store_id,
    )
    store.put(document, taken.chunks, taken.vectors)


async def _measure(
    settings: Settings,
    conversations: Sequence[Conversation],
    stores: Mapping[str, str],
    store: SqliteStore,
    embedder: Embedder,
    variant: Variant,
    progress: Progress,
) -> VariantReport:
    """With a retriever of its own, so that no variant finds another's query vectors."""
    task = progress.add_task(variant.name, total=len(conversations))
    found = []
    async with _opened(settings, store, embedder, variant.options) as retriever:
        await retriever.search(Query("warm-up"), Scope(tuple(stores.values())), top_k=1)
        for conversation in conversations:
            scope = Scope((stores[conversation.collection],))
            found.append(await _search(conversation, scope, retriever))
            progress.advance(task)
    return report_of(variant, found)


@asynccontextmanager
async def _opened(
    settings: Settings, store: SqliteStore, embedder: Embedder, options: SearchOptions
) -> AsyncGenerator[Retriever, None]:
    retriever = Retriever(
        store,
        lambda reading: make_serving(settings, store, embedder, reading),
        options,
        make_reranker(settings),
    )
    try:
        await retriever.load()
        yield retriever
    finally:
        await retriever.close()


async def _search(conversation: Conversation, scope: Scope, retriever: Retriever) -> Found:
    messages = [
        message
        for turn in conversation.turns
        for message in (Message("user", turn.user), Message("assistant", turn.agent))
    ]
    query = read_conversation(messages[:-1]).query
    passages, timing = await retriever.search(query, scope, top_k=_CHUNKS_A_PASSAGE * max(RANKS))
    return Found(
        conversation=conversation.id,
        collection=conversation.collection,
        passages=tuple(dict.fromkeys(passage.filename for passage in passages)),
        relevant=tuple(sorted(conversation.relevant)),
        top_score=passages[0].score if passages else None,
        embed_ms=timing.embed_ms,
        search_ms=timing.search_ms,
        rerank_ms=timing.rerank_ms,
    )
