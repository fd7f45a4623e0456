"""The target's own account of every request: what a load tester's report is held against.

One JSON object a line, written when the request is over. Times are seconds of `time.perf_counter()`, which on Linux
is CLOCK_MONOTONIC and so the same clock in every process of the machine.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import msgspec

from server.errors import ConfigError

Outcome = Literal[
    "ok",
    "refused",  # 429, as asked for
    "failed",  # 500, as asked for
    "cut",  # the stream ended in the middle, as asked for
    "invalid",  # a request that the target does not take: 400
    "client_gone",  # the client closed its connection before its answer was complete
    "stopped",  # the target was stopped
    "prewarmed",  # typed ahead: nothing was answered
]

_FLUSH_S = 0.25


class Record(msgspec.Struct, kw_only=True, gc=False):
    """One request to generate, or to prewarm. A field is null when the request never got there."""

    request_id: str
    """The client's `x-request-id` when it is printable ASCII of 128 characters at most; else one of ours."""
    path: str
    connection: int
    """Which connection it came on, from 1."""
    arrived_at: float
    """When its last byte came to the machine, as the kernel tells it (Linux; elsewhere `received_at`).

    A busy target reads late: what a client waits begins here.
    """
    received_at: float
    """When its last byte was read."""
    engine_first_token_at: float | None = None
    """When the engine made the first token."""
    first_token_at: float | None = None
    """When the socket had taken the first token's bytes; null for answers that do not stream."""
    last_token_at: float | None = None
    """When the socket had taken the last token's bytes."""
    ended_at: float | None = None
    """When the socket had taken everything, or there was no more use in it."""
    status: int = 200
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the simulated prefix cache held."""
    tokens: int = 0
    """Tokens of the answer that were sent."""
    frames: int = 0
    """Frames that they were sent in: fewer than tokens when the reader lagged."""
    outcome: Outcome = "ok"


class Log:
    """Keeps records for a moment, then writes them together: never between a token and its socket."""

    def __init__(self, path: Path | None, loop: asyncio.AbstractEventLoop) -> None:
        """Raises `ConfigError` when the file cannot be written. An old one is overwritten."""
        self._path = path
        self._loop = loop
        self._error: OSError | None = None
        self._records: list[Record] = []
        self._encoder = msgspec.json.Encoder()
        self._flushing: asyncio.TimerHandle | None = None
        try:
            self._file = None if path is None else path.open("wb", buffering=0)
        except OSError as error:
            raise ConfigError(
                f"--log {path} cannot be written: {error.strerror}",
                next_step="name a file in a folder of yours",
            ) from None

    def add(self, record: Record) -> None:
        if self._file is None:
            return
        self._records.append(record)
        if self._flushing is None:
            self._flushing = self._loop.call_later(_FLUSH_S, self._flush)

    def close(self) -> None:
        """Raises `ConfigError` when the log is not whole."""
        self._flush()
        if self._file is not None:
            self._file.close()
        if self._error is not None:
            raise ConfigError(
                f"--log {self._path} is not complete: {self._error.strerror}",
                next_step="make room for it, and repeat what was measured",
            ) from self._error

    def _flush(self) -> None:
        records, self._records = self._records, []
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._file is None or not records:
            return
        try:
            left = self._encoder.encode_lines(records)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
            self._file.close()
            self._file = None
