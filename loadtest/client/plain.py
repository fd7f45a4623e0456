"""A connection without TLS, on a bare socket, whose reads are stamped by the kernel.

Linux tells with the bytes when they came (SO_TIMESTAMPNS, socket(7)): a client that is busy reads late, and yet knows when.
How late it read is counted. Elsewhere the moment of the read has to do. A transport of the event loop would tell neither,
and would send only at the end of a turn of the loop.

Several segments in one read have the stamp of the last: tokens that waited together come together.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections import Counter
from time import perf_counter, time

from loadtest.client.connection import Connection

# linux/socket.h; Python does not name it. The stamp that comes with the data has the same number.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size) if sys.platform == "linux" else 0
_READ_BYTES = 1 << 16

HAS_STAMPS = sys.platform == "linux"


class PlainConnection(Connection):
    """`lags_us` counts how many reads came so many microseconds after their bytes, to two digits."""

    def __init__(self, sock: socket.socket, lags_us: Counter[int]) -> None:
        super().__init__()
        self._sock = sock
        self._fd = sock.fileno()
        self._loop = asyncio.get_running_loop()
        self._lags_us = lags_us
        self._unsent = b""
        self._loop.add_reader(self._fd, self._on_readable)

    @classmethod
    async def open(cls, ip: str, port: int, lags_us: Counter[int]) -> PlainConnection:
        """Raises `OSError`."""
        sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if HAS_STAMPS:
                sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            await asyncio.get_running_loop().sock_connect(sock, (ip, port))
        except BaseException:
            sock.close()
            raise
        return cls(sock, lags_us)

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def _write(self, data: bytes) -> None:
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._ended(error)
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._loop.add_writer(self._fd, self._on_writable)

    def _close(self) -> None:
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        if self._unsent:
            self._loop.remove_writer(self._fd)
        self._fd = -1
        self._sock.close()

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._fd)
        unsent, self._unsent = self._unsent, b""
        self._write(unsent)

    def _on_readable(self) -> None:
        try:
            data, ancillary, _, _ = self._sock.recvmsg(_READ_BYTES, _ANCILLARY_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._ended(error)
            return
        at = perf_counter()
        if not data:
            self._ended(None)
            return
        if ancillary:
            lag_s = self._lag_s(ancillary[0][2])
            at -= lag_s
            self._lags_us[_two_digits(int(lag_s * 1e6))] += 1
        self._received(at, data)

    def _lag_s(self, stamp: bytes) -> float:
        """How long ago the bytes came. The stamp is of the wall clock, and only its distance from now is used."""
        seconds, nanoseconds = _TIMESPEC.unpack_from(stamp)
        lag_s = time() - seconds - nanoseconds * 1e-9
        # A wall clock that was just set says nothing.
        return lag_s if 0.0 <= lag_s < 60.0 else 0.0


def _two_digits(value: int) -> int:
    """So that a dictionary of them stays small."""
    if value < 100:
        return value
    step = 10
    while value >= step * 100:
        step *= 10
    return value // step * step
