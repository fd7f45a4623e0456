"""Documents to chunks in processes of their own, so that a hostile file costs itself and nothing else.

A worker is bounded in memory, processor time, files and core dumps (`prepare_worker`), and in wall-clock time by
the thread that talks to it. One that crashes, hangs or says too much is killed with its process group; its
document is refused, and the next one gets a new worker. What goes over the socket pair, both ways: the length as
4 bytes, then JSON; a request is followed by the document's bytes.
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath

from retrieval.errors import ParsingStopped
from retrieval.ingest.chunk import require_sizes
from retrieval.ingest.process import Process
from retrieval.parse.document import too_large
from retrieval.parse.kinds import MIME_TYPES, SUFFIXES, require_supported, supported
from retrieval.parse.limits import DEFAULT_LIMITS, ParseLimits
from retrieval.types import Prepared

__all__ = ["MIME_TYPES", "SUFFIXES", "ParseLimits", "Prepared", "Preparer", "supported"]


@dataclass(slots=True, eq=False)
class _Worker:
    """What one thread of the pool has; the process comes with its first document."""

    process: Process | None = None


class Preparer:
    """Parses and cuts documents. Any number of threads may use it; `n_workers` documents are worked on at once.

    Each process is started by, and belongs to, a thread of the pool that lives as long: Linux ends a process
    with the thread that made it.
    """

    def __init__(
        self, tokenizer_file: Path, limits: ParseLimits = DEFAULT_LIMITS, n_workers: int = 1
    ) -> None:
        self._tokenizer_file = tokenizer_file
        self._limits = limits
        self._pool = ThreadPoolExecutor(n_workers, "parse", initializer=self._begin)
        self._mine = threading.local()
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._closed = False

    def prepare(self, data: bytes, filename: str, chunk_tokens: int, overlap_tokens: int) -> Prepared:
        """The chunks of a document, in reading order. Blocks, for its turn too.

        Raises `UnsupportedDocument`, `UnreadableDocument`, `DocumentTooLarge`, `ParsingStopped`; `ValueError` for
        chunk sizes that cannot work; `RuntimeError` when no worker can be started at all.
        """
        require_sizes(chunk_tokens, overlap_tokens)
        require_supported(PurePath(filename))
        if len(data) > self._limits.max_bytes:
            raise too_large(PurePath(filename), len(data), self._limits.max_bytes)
        try:
            answer: Future[Prepared] = self._pool.submit(
                self._prepare, data, filename, chunk_tokens, overlap_tokens
            )
            return answer.result()
        except CancelledError:
            raise _stopped_with_server(filename) from None
        except RuntimeError:
            if self._closed:
                raise _stopped_with_server(filename) from None
            raise

    def worker_pids(self) -> list[int]:
        """Of the processes that are there now."""
        with self._lock:
            return [worker.process.pid for worker in self._workers if worker.process]

    def close(self) -> None:
        """Ends the workers at once; documents that they are at are refused. May be called again."""
        with self._lock:
            self._closed = True
            for worker in self._workers:
                if worker.process:
                    worker.process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            self._discard(worker)

    def _begin(self) -> None:
        self._mine.worker = _Worker()
        with self._lock:
            self._workers.append(self._mine.worker)

    def _prepare(self, data: bytes, filename: str, chunk_tokens: int, overlap_tokens: int) -> Prepared:
        worker: _Worker = self._mine.worker
        process = self._running(worker, filename)
        try:
            return process.prepare(data, filename, chunk_tokens, overlap_tokens)
        finally:
            if not process.usable:
                self._discard(worker)

    def _running(self, worker: _Worker, filename: str) -> Process:
        with self._lock:
            if worker.process and worker.process.ended():
                worker.process.close()
                worker.process = None
            if self._closed:
                raise _stopped_with_server(filename)
            if worker.process is None:
                worker.process = Process(self._tokenizer_file, self._limits)
            process = worker.process
        try:
            process.await_ready()
        except RuntimeError:
            self._discard(worker)
            if self._closed:
                raise _stopped_with_server(filename) from None
            raise
        return process

    def _discard(self, worker: _Worker) -> None:
        with self._lock:
            process, worker.process = worker.process, None
        if process:
            process.close()


def _stopped_with_server(filename: str) -> ParsingStopped:
    return ParsingStopped(f"{filename}: not read, for the server is stopping; add it again")
