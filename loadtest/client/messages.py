"""What the measuring processes and the one that started them say to each other, as length-prefixed MessagePack."""

from __future__ import annotations

import struct

import msgspec

from loadtest.figures.turn_result import TurnResult
from loadtest.plan import Share

_LENGTH = struct.Struct(">I")


class Start(msgspec.Struct, frozen=True, tag=True):
    share: Share


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The stage begins at this moment, `perf_counter` seconds, which all processes of a machine share."""

    at: float


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Open turns are given up."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Warm-up is over."""


class Turns(msgspec.Struct, frozen=True, tag=True):
    results: list[TurnResult]
    under_way: int


class Over(msgspec.Struct, frozen=True, tag=True):
    """The last message: what the process has to say of itself."""

    cpu_s: float
    wall_s: float
    events: int
    """Server-sent events that were read."""
    unsent: int
    loop_lag_us: list[int]
    stamped_by_kernel: bool
    read_lag_us: dict[int, int]
    """How many reads came so many microseconds after their bytes."""
    prewarms: dict[int, int]
    """Type-ahead requests by status; 0: no answer."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The process cannot go on."""

    reason: str


Order = Start | Begin | Stop
News = Ready | Turns | Over | Failed

_encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(Order).decode
decode_news = msgspec.msgpack.Decoder(News).decode


def pack(message: Order | News) -> bytes:
    body = _encode(message)
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Whole messages from bytes that come in pieces."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        received = self._received
        received += data
        messages = []
        while len(received) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(received)[0]
            if len(received) < end:
                break
            messages.append(bytes(received[_LENGTH.size : end]))
            del received[:end]
        return messages
