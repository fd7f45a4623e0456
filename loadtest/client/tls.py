"""A connection with TLS, on a transport of the event loop. The moment of a read is when it was decrypted."""

from __future__ import annotations

import asyncio
import ssl
from time import perf_counter
from typing import cast

from loadtest.client.connection import Connection


class TlsConnection(Connection, asyncio.Protocol):
    def __init__(self) -> None:
        super().__init__()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, ip: str, port: int, host: str, context: ssl.SSLContext) -> TlsConnection:
        """Raises `OSError`, of which `ssl.SSLError` is one."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, ip, port, ssl=context, server_hostname=host)
        return connection

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received(perf_counter(), data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
