"""The process that parses and cuts documents: `python -m retrieval.ingest.worker`, with a socket as its stdin.

It answers the requests of one `prepare_process.Process`, one at a time, until that one closes its end. Before
the first document it gives up what a parser has no use for: a say in scheduling, files to write, core dumps,
more memory than its limit and, where the kernel lets it, the network.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, TypeVar

import msgspec

from retrieval.errors import DocumentTooLarge, RetrievalError, UnreadableDocument
from retrieval.ingest.chunk import chunk
from retrieval.ingest.process import LENGTH_BYTES, MAX_ANSWER_BYTES, Answer, Request, Setup
from retrieval.parse.document import parse
from retrieval.parse.limits import ParseLimits

_NICE = 15
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SOCKET = 0  # stdin

_Message = TypeVar("_Message")


class _Tokens:
    """Counts as the chat model's tokenizer does for text that is data: control tokens in it are spelt out."""

    def __init__(self, tokenizer_file: str) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(tokenizer_file)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True

    def count_tokens(self, text: str) -> int:
        # Without offsets, which take a third of the time.
        return len(self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0])

    def token_offsets(self, text: str) -> Sequence[tuple[int, int]]:
        offsets: Sequence[tuple[int, int]] = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return offsets


def main() -> None:
    with socket.socket(fileno=_SOCKET) as server:
        setup = _received(server, Setup)
        if setup is None:
            return
        _stay_below(setup.parent_pid)
        try:
            tokens = _Tokens(setup.tokenizer_file)
        except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
            _send(server, Answer(error="ParsingStopped", message=f"{setup.tokenizer_file}: {error}"))
            return
        _give_up(setup.limits)
        _send(server, Answer())
        while request := _received(server, Request):
            data = _bytes(server, request.n_bytes)
            if data is None:
                return
            _allow_seconds(setup.limits.max_seconds)
            answer = _answer(data, request, tokens, setup.limits)
            _send(server, answer)
            if answer.leaves:
                return


def _answer(data: bytes, request: Request, tokens: _Tokens, limits: ParseLimits) -> Answer:
    """An answer after which memory is short says that it is the last."""
    try:
        parsed = parse(data, PurePath(request.filename), limits)
        try:
            chunks = chunk(parsed, tokens, request.chunk_tokens, request.overlap_tokens, limits.max_chunks)
        except DocumentTooLarge as error:
            raise DocumentTooLarge(f"{request.filename}: {error}") from error
        except ValueError as error:
            raise UnreadableDocument(f"{request.filename}: {error}") from error
    except RetrievalError as error:
        return Answer(error=type(error).__name__, message=str(error), leaves=_memory_is_short(limits))
    except MemoryError:
        return Answer(
            error="ParsingStopped",
            message=f"{request.filename}: reading it was stopped (it took more memory than "
            f"{limits.max_memory_bytes} bytes); split it, or raise the memory limit of documents",
            leaves=True,
        )
    return Answer(parsed.title, tuple(chunks), leaves=_memory_is_short(limits))


def _stay_below(parent_pid: int) -> None:
    """Below the server in scheduling and when memory runs out, and gone when it is."""
    os.nice(_NICE)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # Refused in many containers, and then parsers merely have no reason to call out.
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
            libc.unshare(_CLONE_NEWNET)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        if os.getppid() != parent_pid:
            os._exit(1)


def _give_up(limits: ParseLimits) -> None:
    _bound(resource.RLIMIT_CORE, 0)
    _bound(resource.RLIMIT_FSIZE, 0)
    if sys.platform == "linux":  # elsewhere the kernel refuses this one; the time limit holds there, too
        _bound(resource.RLIMIT_AS, limits.max_memory_bytes)


def _allow_seconds(seconds: float) -> None:
    """Of processor time from now on, before the kernel ends this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _bound(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + seconds) + 2, soft=True)


def _bound(limit: int, value: int, *, soft: bool = False) -> None:
    """Never above what the server itself is bound to."""
    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, hard if soft else value))


def _memory_is_short(limits: ParseLimits) -> bool:
    """What a large document took is not given back, and the next one needs room."""
    return _peak_bytes() > limits.max_memory_bytes // 2


def _peak_bytes() -> int:
    """The most memory that this process has had; 0 where the system does not tell.

    Not `ru_maxrss`: on Linux that begins with what the process had that started this one, a server of gigabytes.
    """
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _received(server: socket.socket, kind: type[_Message]) -> _Message | None:
    """None when the server closed its end."""
    length = _bytes(server, LENGTH_BYTES)
    message = _bytes(server, int.from_bytes(length, "big")) if length else None
    return msgspec.json.decode(message, type=kind) if message else None


def _bytes(server: socket.socket, n_bytes: int) -> bytes | None:
    received = bytearray(n_bytes)
    view, n_received = memoryview(received), 0
    while n_received < n_bytes:
        n_some = server.recv_into(view[n_received:])
        if not n_some:
            return None
        n_received += n_some
    return bytes(received)


def _send(server: socket.socket, answer: Answer) -> None:
    message = msgspec.json.encode(answer)
    if len(message) > MAX_ANSWER_BYTES:
        message = msgspec.json.encode(
            Answer(error="DocumentTooLarge", message="its chunks take too much room; split it", leaves=True)
        )
    server.sendall(len(message).to_bytes(LENGTH_BYTES, "big") + message)


if __name__ == "__main__":
    main()
