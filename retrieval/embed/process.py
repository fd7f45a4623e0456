"""An embedder whose work is done in a process of its own, at the lowest priority: an ingest never takes the cores
from turns."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

import numpy as np

from retrieval.embed.frames import FAILED, MAX_BYTES, READY, TEXTS, VECTORS, Broken, receive, send
from retrieval.embed.spec import EmbedderSpec
from retrieval.errors import EmbedderMismatch, RetrievalError
from retrieval.types import Vectors

_ATTEMPTS = 2
_START_S = 900.0
_STOP_S = 5.0
log = logging.getLogger(__name__)


class EmbeddingFailed(RetrievalError):
    """The embedding process crashed twice over the same texts, or could not compute them."""


class EmbeddingProcess:
    """`identity` and `dim` are those of the embedder that answers the queries; what the process says of itself is
    held against them (`EmbedderMismatch`).

    The process is started by the first `embed`. Texts are sent `batch_texts` at a time, `pause` is called before each
    batch and may block for as long as turns are waiting. Any threads may call; they take turns batch by batch. A
    process that died, or needs more than `timeout_s` for a batch, is replaced and the batch tried once more, then
    `EmbeddingFailed`. `stop` ends the process until the next `embed`, `close` for good; an `embed` that is
    underway then raises.
    """

    def __init__(
        self,
        spec: EmbedderSpec,
        identity: str,
        dim: int,
        *,
        batch_texts: int = 4,
        pause: Callable[[], None] | None = None,
        timeout_s: float = 300.0,
    ) -> None:
        self._spec = spec
        self._identity = identity
        self._dim = dim
        self._batch_texts = batch_texts
        self._pause = pause
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None else process.pid

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self._dim), dtype=np.float32)
        by_length = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for first in range(0, len(texts), self._batch_texts):
            rows = by_length[first : first + self._batch_texts]
            if self._pause is not None:
                self._pause()
            with self._lock:
                vectors[rows] = self._batch([texts[row] for row in rows])
        return vectors

    def stop(self) -> None:
        with self._lock:
            self._end()

    def close(self) -> None:
        self._closed = True
        # Not after the batch: whoever holds the lock is woken by the closed pipe.
        if (process := self._process) is not None:
            process.kill()
        self.stop()

    def _batch(self, texts: Sequence[str]) -> Vectors:
        content = json.dumps(texts).encode()
        if len(content) > MAX_BYTES:
            raise EmbeddingFailed(
                f"{len(texts)} texts of {len(content)} bytes are too much for one batch; cut them smaller"
            )
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._ask(content, len(texts))
            except Broken as error:
                self._end()
                if self._closed:
                    break
                log.warning("the embedding process failed (%s), attempt %d of %d", error, attempt, _ATTEMPTS)
                reason = str(error)
        if self._closed:
            raise EmbeddingFailed("the embedding process was closed: the server is shutting down")
        raise EmbeddingFailed(
            f"the embedding process failed {_ATTEMPTS} times ({reason}); look for its message in the log"
        )

    def _ask(self, content: bytes, n_texts: int) -> Vectors:
        process = self._started()
        send(_descriptor(process.stdin), TEXTS, content)
        kind, answer = receive(_descriptor(process.stdout), self._timeout_s)
        if kind == FAILED:
            raise EmbeddingFailed(f"the texts cannot be embedded: {answer.decode(errors='replace')}")
        if kind != VECTORS or len(answer) != n_texts * self._dim * 4:
            raise Broken(f"a frame {kind!r} of {len(answer)} bytes where {n_texts} vectors were expected")
        return np.frombuffer(answer, dtype=np.float32).reshape(n_texts, self._dim)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise Broken("closed")
        if self._process is not None:
            return self._process
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        self._process = process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "retrieval.embed.worker",
                json.dumps(asdict(self._spec)),
                str(os.getpid()),
            ],
            env={**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for the server, which ends this process when it is done with it.
            start_new_session=True,
        )
        kind, answer = receive(_descriptor(process.stdout), _START_S)
        if kind != READY:
            self._end()
            raise EmbeddingFailed(f"the embedding process cannot start: {answer.decode(errors='replace')}")
        told = json.loads(answer)
        if (told["identity"], told["dim"]) != (self._identity, self._dim):
            self._end()
            raise EmbedderMismatch(
                f"the embedding process runs {told['identity']}, not {self._identity}; restart the server"
            )
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        # Ends its pipes, too; a killed process is gone at once unless the disk holds it.
        try:
            process.communicate(timeout=_STOP_S)
        except (subprocess.TimeoutExpired, OSError):
            log.warning("the embedding process %d does not end", process.pid)


def _descriptor(pipe: IO[bytes] | None) -> int:
    if pipe is None:
        raise Broken("there is no pipe")
    return pipe.fileno()
