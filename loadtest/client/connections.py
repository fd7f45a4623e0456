"""The connections to one server: opened when needed, kept for the next request, the latest used first."""

from __future__ import annotations

import ssl
from collections import Counter, deque
from collections.abc import Sequence

from loadtest.client.address import Address
from loadtest.client.connection import Connection
from loadtest.client.plain import HAS_STAMPS, PlainConnection
from loadtest.client.tls import TlsConnection


class Connections:
    """`lags_us`: how many reads came so many microseconds after their bytes; empty where nobody can tell."""

    def __init__(self, address: Address, ips: Sequence[str], *, keep: bool = True) -> None:
        self.lags_us: Counter[int] = Counter()
        self._address = address
        self._ips = deque(ips)
        self._tls = ssl.create_default_context() if address.is_tls else None
        self._keep = keep
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()

    @property
    def stamped_by_kernel(self) -> bool:
        return HAS_STAMPS and self._tls is None

    def idle(self) -> Connection | None:
        """One that is open and waits, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
            self._all.discard(connection)
        return None

    async def open(self) -> Connection:
        """A new one. Raises `OSError` when no address of the server takes it."""
        failed: OSError | None = None
        for _ in range(len(self._ips)):
            try:
                connection = await self._open(self._ips[0])
            except OSError as error:
                failed = failed or error
                self._ips.rotate(-1)
                continue
            self._all.add(connection)
            return connection
        raise failed or OSError(f"{self._address.host} has no address")

    def give_back(self, connection: Connection) -> None:
        if self._keep and connection.reusable:
            self._idle.append(connection)
        else:
            connection.abort()
            self._all.discard(connection)

    def close(self) -> None:
        for connection in self._all:
            connection.abort()
        self._all.clear()
        self._idle.clear()

    async def _open(self, ip: str) -> Connection:
        if self._tls is None:
            return await PlainConnection.open(ip, self._address.port, self.lags_us)
        return await TlsConnection.open(ip, self._address.port, self._address.host, self._tls)
