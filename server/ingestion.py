"""Uploaded files on their way into their vector stores: one at a time, behind the turns.

What is to be done stands in the store (`FileStore.pending`), so that it is done after a restart too. Parsing and
embedding happen in processes of their own at low priority; here is only their order.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from retrieval.embed.process import EmbeddingProcess
from retrieval.errors import (
    DocumentTooLarge,
    EmbedderMismatch,
    NotHere,
    ParsingStopped,
    RetrievalError,
    StoreFull,
    StoreUnusable,
    UnreadableDocument,
    UnsupportedDocument,
)
from retrieval.file_types import Attachment, FileStore
from retrieval.ingest.intake import Intake
from retrieval.store.sqlite_store import document_id_for
from retrieval.types import Chunk, Document, Embedder, Vectors

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 30.0
"""For what another process attached, and for vector stores that expired."""
_RETRY_S = 5.0
"""After the store could not be written."""
_PAUSE_STEP_S = 0.005


Follow = Callable[[], Awaitable[None]]


class Throttle:
    """Holds an ingest up while turns wait for the engine, from the thread that embeds."""

    def __init__(self, engine_is_free: Callable[[], bool], longest_s: float) -> None:
        self._engine_is_free = engine_is_free
        self._longest_s = longest_s
        self.closed = threading.Event()
        self.paused_s = 0.0

    def __call__(self) -> None:
        """Returns when no turn waits for its first token, or after the longest pause: an ingest always goes on."""
        began = time.monotonic()
        while not self._engine_is_free() and time.monotonic() - began < self._longest_s:
            if self.closed.wait(_PAUSE_STEP_S):
                break
        self.paused_s += time.monotonic() - began


class Ingestion:
    def __init__(
        self,
        files: FileStore,
        intake: Intake,
        *,
        chunk_tokens: int,
        overlap_tokens: int,
        throttle: Throttle,
        stop_preparing: Callable[[], None] = lambda: None,
    ) -> None:
        self._files = files
        self._intake = intake
        self._sizes = chunk_tokens, overlap_tokens
        self._throttle = throttle
        self._stop_preparing = stop_preparing
        self._writing = threading.Lock()
        self._at_work: asyncio.Future[None] | None = None
        self._woken = asyncio.Event()
        self._progress: dict[tuple[str, str], tuple[int, int]] = {}
        self._running: asyncio.Task[None] | None = None
        self._follow: Follow | None = None
        self.completed = 0
        self.failed = 0

    @property
    def running(self) -> int:
        """Files that are being ingested."""
        return len(self._progress)

    @property
    def paused_s(self) -> float:
        """How long turns have held the ingest up."""
        return self._throttle.paused_s

    def wake(self) -> None:
        """Something is pending."""
        self._woken.set()

    def progress(self, store_id: str, file_id: str) -> tuple[int, int] | None:
        """How many of how many chunks are embedded, while the file is being ingested."""
        return self._progress.get((store_id, file_id))

    def start(self, follow: Follow | None = None) -> None:
        """`follow` brings the indexes up to date after each document, so that the next turn need not."""
        self._follow = follow
        self._running = asyncio.create_task(self._run(), name="ingestion")

    def embed_with(self, embedder: Embedder) -> None:
        """Before the store is claimed for this model, which a reindex changed it to; what is under way begins anew."""
        with self._writing:
            replaced, self._intake = self._intake.embedder, replace(self._intake, embedder=embedder)
        _close(replaced)

    async def close(self) -> None:
        """A document that is under way is begun anew at the next start."""
        self._throttle.closed.set()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,))
        await asyncio.to_thread(self._stop)
        if self._at_work is not None:
            await asyncio.wait((self._at_work,))

    def _stop(self) -> None:
        _close(self._intake.embedder)
        self._stop_preparing()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                await asyncio.to_thread(self._files.delete_expired, time.time())
                while pending := await asyncio.to_thread(self._files.pending, 1):
                    await self._ingest(pending[0])
                wait_s = _LOOK_AGAIN_S
            # OSError: no process could be started, for want of memory or descriptors.
            except (StoreFull, StoreUnusable, EmbedderMismatch, OSError) as error:
                log.warning("ingest waits: %s", error)
                wait_s = _RETRY_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def _ingest(self, attachment: Attachment) -> None:
        place = attachment.store_id, attachment.file_id
        self._progress[place] = 0, 0
        self._at_work = asyncio.ensure_future(asyncio.to_thread(self._take, attachment, place))
        try:
            # A thread cannot be cancelled; `close` waits for it.
            await asyncio.shield(self._at_work)
        finally:
            del self._progress[place]
        if self._follow is not None:
            await self._follow()

    def _take(self, attachment: Attachment, place: tuple[str, str]) -> None:
        def tell(n_done: int, n_chunks: int) -> None:
            if place in self._progress:
                self._progress[place] = n_done, n_chunks

        intake = self._intake
        try:
            document, chunks, vectors = self._document(attachment, intake, tell)
            with self._writing:
                if self._is_overtaken(intake):
                    return
                done = self._files.finish(attachment, document, chunks, vectors)
        except NotHere:
            return  # detached or deleted meanwhile
        except (StoreFull, StoreUnusable, EmbedderMismatch):
            raise
        except RetrievalError as error:
            if self._is_overtaken(intake):
                return
            done = self._files.settle(attachment, error_code=_code(error), error=str(error))
            self.failed += done
            return
        except (ValueError, RuntimeError) as error:
            log.exception("%s cannot be ingested", attachment.filename)
            message = f"{attachment.filename}: it could not be ingested ({type(error).__name__}); see the log"
            self.failed += self._files.settle(attachment, error_code="server_error", error=message)
            return
        self.completed += done

    def _is_overtaken(self, intake: Intake) -> bool:
        """By the server's end, or by another embedding model: what was done so far is for nothing."""
        return self._throttle.closed.is_set() or self._intake is not intake

    def _document(
        self, attachment: Attachment, intake: Intake, tell: Callable[[int, int], None]
    ) -> tuple[Document, tuple[Chunk, ...], Vectors]:
        data = self._files.file_data(attachment.tenant, attachment.file_id)
        chunk_tokens = attachment.chunk_tokens or self._sizes[0]
        overlap_tokens = self._sizes[1] if attachment.overlap_tokens is None else attachment.overlap_tokens
        overlap_tokens = min(overlap_tokens, chunk_tokens // 2)
        taken = intake.take(
            data, attachment.filename, chunk_tokens, overlap_tokens, attachment.store_id, tell
        )
        document = Document(
            document_id=document_id_for(attachment.file_id, attachment.store_id),
            source=attachment.file_id,
            filename=attachment.filename,
            title=taken.title,
            content_sha256=intake.content_sha256(data, chunk_tokens, overlap_tokens),
            size_bytes=len(data),
            n_chunks=len(taken.chunks),
            ingested_at=time.time(),
            store_id=attachment.store_id,
            file_id=attachment.file_id,
            attributes=attachment.attributes,
        )
        return document, taken.chunks, taken.vectors


def _close(embedder: Embedder) -> None:
    if isinstance(embedder, EmbeddingProcess):
        embedder.close()


def _code(error: RetrievalError) -> str:
    """OpenAI's three: https://platform.openai.com/docs/api-reference/vector-stores-files/file-object"""
    match error:
        case UnsupportedDocument():
            return "unsupported_file"
        case UnreadableDocument() | DocumentTooLarge() | ParsingStopped():
            return "invalid_file"
        case _:
            return "server_error"
