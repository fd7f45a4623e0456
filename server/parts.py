"""What a turn is served with, and how it is put together at start-up."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
from collections.abc import AsyncGenerator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from retrieval.file_types import FileStore
from retrieval.search.retriever import Retriever
from retrieval.types import DocumentStore
from server.context.assemble import Assembler
from server.context.guess import Guesses
from server.context.joints import Joints
from server.context.ledger import Ledger
from server.context.ledger_store import LedgerStore
from server.context.memory_store import MemoryStore
from server.context.order import SharedOrder
from server.context.redis_store import RedisStore
from server.context.template import ChatTemplate
from server.engine.detached import run_detached
from server.engine.embedded import EmbeddedEngine, import_vllm
from server.engine.protocol import Engine
from server.engine.reply import ReplyParsers
from server.engine.simulated import SimulatedEngine
from server.engine.supervisor import SupervisedEngine
from server.errors import ConfigError, ModelMissing
from server.guard.admission import Admission
from server.guard.auth import Authenticator
from server.guard.drain import Drain
from server.guard.rate import RateLimit
from server.ingestion import Ingestion
from server.knowledge import Report, open_knowledge
from server.sections.section import STARTER
from server.settings import Settings
from server.starter import starter_chat_model, starter_is_prepared
from server.telemetry.metrics import Metrics
from server.telemetry.turnlog import TurnLog

log = logging.getLogger(__name__)

_MIB = 1 << 20

_MOST_ORDERS = 256
"""Tenants, scopes and system messages whose shared order is remembered; each takes up to 2 MB."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a request has to fit."""

    settings: Settings
    vocabulary_size: int
    takes_tools: bool


@dataclass(frozen=True, slots=True)
class Parts:
    settings: Settings
    model_name: str
    deployment: Deployment
    authenticator: Authenticator
    admission: Admission
    drain: Drain
    retriever: Retriever
    store: DocumentStore
    files: FileStore
    ingestion: Ingestion
    template: ChatTemplate
    joints: Joints
    ledger: Ledger
    guesses: Guesses
    prewarm_rate: RateLimit
    order: SharedOrder
    assembler: Assembler
    reply_parsers: ReplyParsers | None
    """None where the model's text is the answer as it stands."""
    engine: SupervisedEngine
    metrics: Metrics
    turn_log: TurnLog

    def may_write_default(self, tenant: str) -> bool:
        """Whether this tenant may add to the deployment's own documents, and take from them."""
        return not self.settings.auth.api_keys or tenant in self.settings.files.default_store_writers


@asynccontextmanager
async def open_parts(settings: Settings, report: Report) -> AsyncGenerator[Parts, None]:
    """Open everything; the engine goes on loading after this has yielded. Blocking work runs in threads.

    Raises `SetupError` or `RetrievalError` with the next step when the configuration cannot be served.
    """
    async with AsyncExitStack() as stack:
        make_data_dir(settings)
        first: list[Awaitable[None]] = []
        if uses_starter(settings) and not starter_is_prepared(settings.models_path):
            report("preparing the starter models (once)")
            first.append(_prepare_starter_models(settings))
        has_parsers = bool(settings.engine.tool_parser or settings.engine.reasoning_parser)
        if settings.engine.kind == "embedded" or has_parsers:
            report("importing vLLM")
            local = _is_local(settings)
            first.append(run_detached(lambda: import_vllm(settings.engine, local=local), "import-vllm"))
        await asyncio.gather(*first)

        report("loading the tokenizer")
        model = chat_model(settings)
        template = await asyncio.to_thread(ChatTemplate, model)
        joints = await asyncio.to_thread(Joints, template)
        if joints.reason:
            log.warning("the chat template is not append-only (%s): %s", joints.kind, joints.reason)
        reply_parsers = None
        if has_parsers:
            report("loading the reply parsers")
            reply_parsers = await run_detached(
                lambda: ReplyParsers(settings.engine, template.tokenizer), "import-parsers"
            )
        engine = SupervisedEngine(lambda: make_engine(settings, model, template), settings.engine)
        # From here the engine loads in processes of its own, beside all that follows.
        engine.start()
        stack.push_async_callback(engine.close)

        admission = Admission(settings.admission, n_tenants=len(settings.auth.api_keys))
        knowledge = await stack.enter_async_context(
            open_knowledge(settings, template, report, lambda: admission.leaves_room(1.0))
        )
        ledger = await _open_ledger(settings, template, stack)
        turn_log = _open_turn_log(settings)
        stack.callback(turn_log.close)
        parts = Parts(
            settings=settings,
            model_name=model_name(settings),
            deployment=Deployment(
                settings, template.vocabulary_size, bool(reply_parsers and reply_parsers.takes_tools)
            ),
            authenticator=Authenticator(settings.auth),
            admission=admission,
            drain=Drain(settings.http.shutdown_grace_s),
            retriever=knowledge.retriever,
            store=knowledge.store,
            files=knowledge.store.files,
            ingestion=knowledge.ingestion,
            template=template,
            joints=joints,
            ledger=ledger,
            guesses=_make_guesses(settings),
            prewarm_rate=RateLimit(settings.prewarm.calls_per_minute),
            order=_make_order(settings),
            assembler=Assembler(template, joints, settings),
            reply_parsers=reply_parsers,
            engine=engine,
            metrics=Metrics(),
            turn_log=turn_log,
        )
        stack.push_async_callback(parts.guesses.close)
        _observe(parts)
        yield parts


def parts_with(parts: Parts, settings: Settings) -> Parts:
    """The same engine, documents and records with the context of other settings, whose ledgers begin empty."""
    store = MemoryStore(settings.context.ledger_mib * _MIB)
    return replace(
        parts,
        settings=settings,
        ledger=Ledger(store, _fingerprint(settings, parts.template)),
        guesses=_make_guesses(settings),
        order=_make_order(settings),
        assembler=Assembler(parts.template, parts.joints, settings),
    )


def _make_guesses(settings: Settings) -> Guesses:
    return Guesses(settings.prewarm.max_per_key, settings.prewarm.guess_ttl_s)


def _make_order(settings: Settings) -> SharedOrder:
    return SharedOrder(settings.context.order_window, settings.context.order_margin, _MOST_ORDERS)


async def _open_ledger(settings: Settings, template: ChatTemplate, stack: AsyncExitStack) -> Ledger:
    """Raises `ConfigError` for a shared ledger's URL that cannot be used."""
    context = settings.context
    fingerprint = _fingerprint(settings, template)
    memory = MemoryStore(context.ledger_mib * _MIB)
    if context.ledger_snapshot:
        path = settings.data_path / "ledger.snapshot"
        await asyncio.to_thread(memory.load, path, fingerprint)
        stack.callback(memory.save, path, fingerprint)
    store: LedgerStore = memory
    if url := context.ledger_url.get_secret_value():
        namespace = f"firstword:{fingerprint.hex()}"
        store = RedisStore(url, context.ledger_timeout_ms, context.ledger_ttl_s, namespace, memory)
    ledger = Ledger(store, fingerprint)
    stack.push_async_callback(ledger.close)
    return ledger


def _fingerprint(settings: Settings, template: ChatTemplate) -> bytes:
    """Of all that decides which token ids stand for a message."""
    digest = blake2b(digest_size=16)
    digest.update(template.fingerprint)
    digest.update(settings.prompt.model_dump_json().encode())
    return digest.digest()


def make_data_dir(settings: Settings) -> None:
    """Raises `ConfigError` when nothing can be kept there."""
    try:
        settings.data_path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"data_dir: {settings.data_path} cannot be made: {error.strerror}",
            next_step="set data_dir (FIRSTWORD_DATA_DIR) to a folder that can be written",
        ) from error


def _open_turn_log(settings: Settings) -> TurnLog:
    path = settings.data_path / "turns.sqlite"
    try:
        return TurnLog(path, settings.telemetry.turns_kept)
    except sqlite3.Error as error:
        raise ConfigError(
            f"the turn log {path} cannot be opened: {error}",
            next_step="make room and check its permissions; a damaged turn log can be moved away",
        ) from error


def uses_starter(settings: Settings) -> bool:
    retrieval = settings.retrieval
    return settings.engine.model == STARTER or (
        retrieval.embedder == STARTER and retrieval.embedder_kind == "sentence-transformers"
    )


def chat_model(settings: Settings) -> str:
    """The path or Hugging Face name that tokenizer and engine load."""
    model = settings.engine.model
    if model == STARTER:
        return str(starter_chat_model(settings.models_path))
    if model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
        raise ModelMissing(
            f"engine.model = {model!r}: there is no such folder",
            next_step="name a folder with a model, or a Hugging Face name, or 'starter'",
        )
    return str(Path(model).expanduser()) if model.startswith("~") else model


def _is_local(settings: Settings) -> bool:
    """Whether the chat model is a folder; the starter's may not be there yet."""
    return settings.engine.model == STARTER or Path(chat_model(settings)).is_dir()


def model_name(settings: Settings) -> str:
    if settings.engine.served_model_name:
        return settings.engine.served_model_name
    if settings.engine.model == STARTER:
        return starter_chat_model(settings.models_path).name
    return settings.engine.model.rstrip("/").rpartition("/")[2]


def make_engine(settings: Settings, model: str, template: ChatTemplate) -> Engine:
    if settings.engine.kind == "simulated":
        return SimulatedEngine(settings.engine, template)
    return EmbeddedEngine(settings.engine, model)


async def _prepare_starter_models(settings: Settings) -> None:
    """In a process of its own: it needs a gigabyte for half a minute, which this one would keep."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server.starter", str(settings.models_path)
    )
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if code:
        raise ModelMissing(
            "the starter models could not be prepared", next_step="run `firstword models prepare`"
        )


def _observe(parts: Parts) -> None:
    observe, count, engine = parts.metrics.observe, parts.metrics.observe_count, parts.engine
    observe("firstword_active_streams", "Turns that hold a permit", lambda: parts.admission.running_turns)
    observe("firstword_queue_depth", "Turns that wait for a permit", lambda: parts.admission.queued_turns)
    observe(
        "firstword_prefill_tokens_in_flight",
        "Prompt tokens that the engine was given to compute and has not finished",
        lambda: parts.admission.prefill_tokens,
    )
    observe(
        "firstword_engine_running_requests",
        "Requests in the engine's batch, as its scheduler last said",
        lambda: engine.load.running_requests,
    )
    observe(
        "firstword_engine_waiting_requests",
        "Requests in the engine's queue, as its scheduler last said",
        lambda: engine.load.waiting_requests,
    )
    observe(
        "firstword_engine_kv_cache_usage_ratio",
        "Share of the KV blocks that running requests hold",
        lambda: engine.load.kv_cache_usage,
    )
    ingestion = parts.ingestion
    observe("firstword_ingest_running", "Uploaded files that are being ingested", lambda: ingestion.running)
    count("firstword_ingest_completed", "Uploaded files that were ingested", lambda: ingestion.completed)
    count("firstword_ingest_failed", "Uploaded files that could not be ingested", lambda: ingestion.failed)
    count("firstword_ingest_paused_seconds", "How long ingests waited for turns", lambda: ingestion.paused_s)
    observe("firstword_index_chunks", "Chunks in the vector index", lambda: len(parts.retriever.view.vectors))
    observe("firstword_engine_ready", "1 while the engine answers", lambda: engine.status.phase == "ready")
    count("firstword_engine_restarts", "Starts after a crash", lambda: engine.restarts)
    store = parts.ledger.store
    parts.metrics.observe_counts(
        "firstword_ledger_recalls",
        "Turns by how much of their history the ledger knew",
        "known",
        lambda: parts.ledger.recalled,
    )
    observe("firstword_ledger_entries", "Messages that the ledgers in memory hold", lambda: store.n_entries)
    observe("firstword_ledger_bytes", "Memory that they take", lambda: store.n_bytes)
    count("firstword_ledger_evictions", "Messages forgotten to make room", lambda: store.evictions)
    observe("firstword_ledger_up", "1 while the shared ledger answers, or there is none", lambda: store.up)
    count("firstword_ledger_errors", "Requests to the shared ledger that failed", lambda: store.errors)
    count("firstword_turn_log_dropped", "Turns missing from the turn log", lambda: parts.turn_log.dropped)
