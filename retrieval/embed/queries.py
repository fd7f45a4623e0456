"""Vectors of queries, for many turns at once: one thread computes, the turns wait without blocking their loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import RetrievalError
from retrieval.types import Embedder, Vectors

Vector = NDArray[np.float32]
"""`(dim,)`."""

_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    text: str
    loop: asyncio.AbstractEventLoop
    vector: asyncio.Future[Vector]

    def settle(self, outcome: Vector | Exception) -> None:
        """From the owner thread. A loop that is closed has nobody waiting."""
        try:
            self.loop.call_soon_threadsafe(self._settle, outcome)
        except RuntimeError:
            return

    def _settle(self, outcome: Vector | Exception) -> None:
        if self.vector.done():
            return
        if isinstance(outcome, Exception):
            self.vector.set_exception(outcome)
        else:
            self.vector.set_result(outcome)


class QueryEmbedder:
    """Queries that wait together are computed together, up to `batch_tokens` with their padding.

    A larger batch pays on a GPU. `OnnxEmbedder` computes texts one by one, and with the default no query waits for
    another's answer there. The vectors of the last `cache_entries` texts are kept. A caller that is cancelled takes
    its text out of the line. The line holds one entry per waiting caller: whoever admits turns bounds it.

    Whatever the embedder raised reaches every caller of that batch; after `close()` callers get `RetrievalError`.
    """

    def __init__(self, embedder: Embedder, batch_tokens: int = 1, cache_entries: int = 2048) -> None:
        self._embedder = embedder
        self._batch_tokens = batch_tokens
        self._cache_entries = cache_entries
        self._cache: OrderedDict[str, Vector] = OrderedDict()
        # Held for single operations on the cache and the closing, never while something is computed.
        self._lock = threading.Lock()
        self._closed = False
        # A queue of the thread's own and `call_soon_threadsafe`: an executor's futures cost twice the hop.
        self._line: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._owner = threading.Thread(target=self._serve, name="query-embedder", daemon=True)
        self._owner.start()

    @property
    def identity(self) -> str:
        return self._embedder.identity

    @property
    def dim(self) -> int:
        return self._embedder.dim

    async def embed(self, text: str) -> Vectors:
        """`(1, dim)`, the caller's own."""
        return await self.embed_all([text])

    async def embed_all(self, texts: Sequence[str]) -> Vectors:
        """`(len(texts), dim)`, the caller's own."""
        found = [self._cached(text) for text in texts]
        loop = asyncio.get_running_loop()
        missing = {
            text: loop.create_future() for text, vector in zip(texts, found, strict=True) if vector is None
        }
        try:
            for text, future in missing.items():
                self._enqueue(_Waiting(text, loop, future))
            computed = dict(zip(missing, await asyncio.gather(*missing.values()), strict=True))
        finally:
            for future in missing.values():
                future.cancel()
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        for row, (text, vector) in enumerate(zip(texts, found, strict=True)):
            vectors[row] = computed[text] if vector is None else vector
        return vectors

    def close(self) -> None:
        """Returns when the thread has ended: after the batch that it is at."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._line.put(None)
        self._owner.join()

    def _enqueue(self, waiting: _Waiting) -> None:
        with self._lock:
            if self._closed:
                raise RetrievalError("the query embedder is closed: the server is shutting down; try another")
            self._line.put(waiting)

    def _cached(self, text: str) -> Vector | None:
        with self._lock:
            vector = self._cache.get(text)
            if vector is not None:
                self._cache.move_to_end(text)
            return vector

    def _keep(self, text: str, vector: Vector) -> None:
        with self._lock:
            self._cache[text] = vector
            self._cache.move_to_end(text)
            while len(self._cache) > self._cache_entries:
                self._cache.popitem(last=False)

    def _serve(self) -> None:
        closing = False
        while not closing:
            waiting, closing = self._wait()
            for batch in _batches(waiting, self._batch_tokens):
                self._embed(batch, closing)

    def _wait(self) -> tuple[list[_Waiting], bool]:
        """All that wait, at least one; and whether there will be no more."""
        waiting = []
        entry = self._line.get()
        while entry is not None:
            waiting.append(entry)
            try:
                entry = self._line.get_nowait()
            except queue.Empty:
                return waiting, False
        return waiting, True

    def _embed(self, batch: list[_Waiting], closing: bool) -> None:
        batch = [waiting for waiting in batch if not waiting.vector.done()]
        outcomes: dict[str, Vector | Exception] = {}
        texts = []
        for text in {waiting.text for waiting in batch}:
            # It may have been computed for another caller since this one looked.
            if (vector := self._cached(text)) is not None:
                outcomes[text] = vector
            elif closing:
                outcomes[text] = RetrievalError("the query embedder was closed; try again")
            else:
                texts.append(text)
        try:
            if texts:
                outcomes.update(zip(texts, self._embedder.embed(texts), strict=True))
        except Exception as error:  # noqa: BLE001 - handed on to whoever waits
            outcomes.update(dict.fromkeys(texts, error))
        for text in texts:
            if not isinstance(outcome := outcomes[text], Exception):
                self._keep(text, outcome)
        for waiting in batch:
            waiting.settle(outcomes[waiting.text])


def _batches(waiting: list[_Waiting], batch_tokens: int) -> Iterator[list[_Waiting]]:
    """Texts of similar length together, so that little of a batch is padding."""
    batch: list[_Waiting] = []
    for entry in sorted(waiting, key=lambda entry: len(entry.text)):
        n_tokens = len(entry.text) // _CHARACTERS_PER_TOKEN + 2
        if batch and n_tokens * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(entry)
    if batch:
        yield batch
