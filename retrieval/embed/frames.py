"""What the embedding process and its owner write to each other's pipe.

A frame is one byte of kind, four of length (big-endian) and that many of content:

    kind        content                              from
    READY       {"identity": ..., "dim": ...}        the process, once, when its model is loaded
    TEXTS       ["...", ...]                         the owner
    VECTORS     float32, (n, dim), C order           the process
    FAILED      what went wrong, UTF-8               the process
"""

from __future__ import annotations

import os
import select
import struct
import time

READY, TEXTS, VECTORS, FAILED = b"R", b"T", b"V", b"F"
MAX_BYTES = 32 << 20
_HEAD = struct.Struct(">cI")


class Broken(Exception):
    """The other side is gone, is too slow, or wrote something else than frames."""


def send(pipe: int, kind: bytes, content: bytes) -> None:
    """At most `MAX_BYTES` of content: the other side refuses more."""
    left = memoryview(_HEAD.pack(kind, len(content)) + content)
    try:
        while left:
            left = left[os.write(pipe, left) :]
    except OSError as error:
        raise Broken(str(error)) from error


def receive(pipe: int, timeout_s: float | None = None) -> tuple[bytes, bytes]:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    kind, length = _HEAD.unpack(_read(pipe, _HEAD.size, deadline))
    if length > MAX_BYTES:
        raise Broken(f"a frame of {length} bytes was announced")
    return kind, _read(pipe, length, deadline)


def _read(pipe: int, n_bytes: int, deadline: float | None) -> bytes:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    content = bytearray()
    while len(content) < n_bytes:
        left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        try:
            if not poll.poll(left_ms):
                raise Broken("no answer in time")
            block = os.read(pipe, n_bytes - len(content))
        except OSError as error:
            raise Broken(str(error)) from error
        if not block:
            raise Broken("the pipe was closed")
        content += block
    return bytes(content)
