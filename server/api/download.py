"""A stored file on its way to a client, at the pace at which the client reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from urllib.parse import quote

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

_PIECE_BYTES = 65_536
_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
}
"""Whatever the file is, no browser runs it as a page of ours."""


class Download(StreamingResponse):
    """The bytes as they came, to be saved and not shown. Holds its place until the last piece is sent."""

    def __init__(self, data: bytes, filename: str, place: ExitStack) -> None:
        self._place = place
        headers = {
            "content-length": str(len(data)),
            "content-disposition": f"attachment; filename*=UTF-8''{quote(filename, safe='')}",
            **_HEADERS,
        }
        super().__init__(_pieces(data), headers=headers, media_type="application/octet-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    """In one piece, all of it would wait in the server's buffer for a client that does not read."""
    for at in range(0, len(data), _PIECE_BYTES):
        yield data[at : at + _PIECE_BYTES]
