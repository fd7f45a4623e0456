"""One worker process, as the thread that it works for sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from retrieval.errors import (
    DocumentTooLarge,
    ParsingStopped,
    RetrievalError,
    UnreadableDocument,
    UnsupportedDocument,
)
from retrieval.parse.limits import ParseLimits
from retrieval.types import Chunk, Prepared

MAX_ANSWER_BYTES = 512 * 1024 * 1024
LENGTH_BYTES = 4

_START_SECONDS = 120.0
_RECEIVED_BYTES = 1024 * 1024
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    # Threads would each reserve address space, and take processors from turns.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_ERRORS: dict[str, type[RetrievalError]] = {
    error.__name__: error
    for error in (UnreadableDocument, UnsupportedDocument, DocumentTooLarge, ParsingStopped)
}


class Setup(msgspec.Struct, frozen=True):
    """The first message to a worker."""

    parent_pid: int
    tokenizer_file: str
    limits: ParseLimits


class Request(msgspec.Struct, frozen=True):
    filename: str
    chunk_tokens: int
    overlap_tokens: int
    n_bytes: int


class Answer(msgspec.Struct, frozen=True):
    title: str = ""
    chunks: tuple[Chunk, ...] = ()
    error: str = ""
    """The name of its class; empty for success."""
    message: str = ""
    leaves: bool = False
    """The worker ends after this answer."""


class _Ended(Exception):
    """The worker closed its end, said something that is no message, or was too slow (`late`)."""

    def __init__(self, *, late: bool = False) -> None:
        super().__init__()
        self.late = late


class Process:
    """Not thread-safe, but for `kill`."""

    def __init__(self, tokenizer_file: Path, limits: ParseLimits) -> None:
        self._limits = limits
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-m", "retrieval.ingest.worker"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=Path(__file__).parents[2],  # where `retrieval` is found, however it was installed
                env=_ENVIRONMENT,
                start_new_session=True,  # ^C is the server's; and a group of its own can be killed as one
            )
        self._setup: Setup | None = Setup(os.getpid(), str(tokenizer_file.resolve()), limits)
        self.usable = True

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> bool:
        return self._process.poll() is not None

    def await_ready(self) -> None:
        """Raises `RuntimeError` when the worker cannot work at all, which is no document's fault."""
        if self._setup is None:
            return
        deadline = time.monotonic() + _START_SECONDS
        try:
            self._send(msgspec.json.encode(self._setup), deadline)
            answer = self._receive(deadline)
        except _Ended as ended:
            self.kill()
            raise RuntimeError(
                f"the process that reads documents did not start ({self._why(ended)}); "
                "check the memory limit of documents and the installation"
            ) from ended
        if answer.error:
            self.kill()
            raise RuntimeError(f"the process that reads documents did not start: {answer.message}")
        self._setup = None

    def prepare(self, data: bytes, filename: str, chunk_tokens: int, overlap_tokens: int) -> Prepared:
        """Raises the errors of a document; `ParsingStopped` leaves a process that is not `usable`."""
        deadline = time.monotonic() + self._limits.max_seconds
        request = Request(filename, chunk_tokens, overlap_tokens, len(data))
        try:
            self._send(msgspec.json.encode(request), deadline)
            self._send_bytes(data, deadline)
            answer = self._receive(deadline)
        except _Ended as ended:
            self.usable = False
            self.kill()
            raise ParsingStopped(
                f"{filename}: reading it was stopped ({self._why(ended)}); "
                "split or repair it, or raise the limits of documents"
            ) from ended
        self.usable = not answer.leaves
        if answer.error:
            raise _ERRORS[answer.error](answer.message)
        return Prepared(answer.title, answer.chunks)

    def kill(self) -> None:
        """The whole group; the process is still to be closed."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        self._process.wait()
        self._socket.close()

    def _send(self, message: bytes, deadline: float) -> None:
        self._send_bytes(len(message).to_bytes(LENGTH_BYTES, "big") + message, deadline)

    def _send_bytes(self, data: bytes, deadline: float) -> None:
        try:
            self._socket.settimeout(_left(deadline))
            self._socket.sendall(data)
        except TimeoutError:
            raise _Ended(late=True) from None
        except OSError:
            raise _Ended from None

    def _receive(self, deadline: float) -> Answer:
        n_bytes = int.from_bytes(self._receive_bytes(LENGTH_BYTES, deadline), "big")
        if n_bytes > MAX_ANSWER_BYTES:
            raise _Ended
        try:
            answer = msgspec.json.decode(self._receive_bytes(n_bytes, deadline), type=Answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise _Ended from None
        if answer.error and answer.error not in _ERRORS:
            raise _Ended
        return answer

    def _receive_bytes(self, n_bytes: int, deadline: float) -> bytes:
        received = bytearray()
        while len(received) < n_bytes:
            try:
                self._socket.settimeout(_left(deadline))
                some = self._socket.recv(min(n_bytes - len(received), _RECEIVED_BYTES))
            except TimeoutError:
                raise _Ended(late=True) from None
            except OSError:
                raise _Ended from None
            if not some:
                raise _Ended
            received += some
        return bytes(received)

    def _why(self, ended: _Ended) -> str:
        if ended.late:
            return f"it took longer than {self._limits.max_seconds:g} s"
        # It closed its end, so it is gone or about to be.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        status = self._process.returncode
        if status is None or status >= 0:
            return f"its process ended with status {status}"
        if status == -signal.SIGXCPU:
            return f"it took longer than {self._limits.max_seconds:g} s"
        return f"its process was ended by {signal.Signals(-status).name}"


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise _Ended(late=True)
    return left
