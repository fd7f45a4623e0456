"""Ledgers in a Redis that several gateways share, with this gateway's own memory behind it.

Divergences from how Redis is usually asked:
- Nothing waits beyond `timeout_ms`, connecting included, and only a connection that ended while idle is opened again:
  a turn that starts cold is better than one that waits.
- Of the server's own words nothing is logged: they may quote a command, and with it what was said.
- A value carries a checksum of its key and itself, so that what something else wrote there is not believed.
"""

from __future__ import annotations

import logging
import math
import sys
import time
import zlib
from asyncio import timeout
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from server.context.memory_store import MemoryStore
from server.context.redis_client import open_client

log = logging.getLogger(__name__)

_REST_S = 3.0
_CLOSE_S = 1.0
_RENEWALS_PER_TTL = 8
_RENEWALS_PER_GET = 64
"""Each costs some ten microseconds on the way to the first token; what is left over has its turn at the next one."""
_RENEWED_KEYS = 65_536
_CHECKSUM_BYTES = 4


class RedisStore:
    """Whatever goes wrong over there, `fallback` answers; it is written through, so it knows this gateway's turns.

    A server that fails, or does not answer two times in succession, is left alone for `rest_s`, and then for as long
    as a `put` fails: puts come after a turn, so that no turn waits to find out.
    """

    def __init__(
        self,
        url: str,
        timeout_ms: float,
        ttl_s: float,
        namespace: str,
        fallback: MemoryStore,
        *,
        rest_s: float = _REST_S,
    ) -> None:
        """Connects to nothing yet. `namespace` stands for what the entries depend on, as a snapshot's fingerprint does.

        Raises `ConfigError` for a URL that cannot be used, and when the package is missing.
        """
        self._client, self._where = open_client(url, timeout_ms / 1000)
        self._timeout_s = timeout_ms / 1000
        self._ttl_ms = max(1, round(ttl_s * 1000))
        # What `entry.pack` makes depends on the byte order.
        self._prefix = f"{namespace}:{sys.byteorder}:".encode()
        self._fallback = fallback
        self._renewed = _Renewed(ttl_s / _RENEWALS_PER_TTL)
        self._rest_s = rest_s
        self._left_alone_until = 0.0
        self._failed_at = 0.0
        self._unanswered_at: float | None = None
        self.up = True
        self.errors = 0
        """Requests over there that failed, and values that were not ours."""
        self.hits = 0
        """Messages that were asked for and known, here or there."""
        self.misses = 0

    @property
    def n_entries(self) -> int:
        """In the fallback, as are the next two."""
        return self._fallback.n_entries

    @property
    def n_bytes(self) -> int:
        return self._fallback.n_bytes

    @property
    def evictions(self) -> int:
        return self._fallback.evictions

    async def get(self, keys: Sequence[bytes]) -> list[bytes]:
        """The longer of what is known there and here: what was put while the server was down is only here."""
        found = await self._fallback.get(keys)
        if keys and self.up:
            shared = await self._get_shared(keys)
            if len(shared) >= len(found) and shared != found:
                found = shared
                await self._fallback.put(dict(zip(keys, shared, strict=False)))
        self.hits += len(found)
        self.misses += len(keys) - len(found)
        return found

    async def put(self, values: Mapping[bytes, bytes], after: Sequence[bytes] = ()) -> None:
        """Waits no longer than the timeout. What the server did not take is found by this gateway alone."""
        await self._fallback.put(values, after)
        if not values or not self._may_put():
            return
        named = {self._prefix + key: value for key, value in values.items()}
        async with self._bounded():
            pipeline = self._client.pipeline(transaction=False)
            for name, value in named.items():
                pipeline.set(name, _seal(name, value), px=self._ttl_ms)
            for reply in _refuse_errors(await pipeline.execute(raise_on_error=False)):
                if reply is not True:
                    raise _NotRedis
            self._renewed.add(named)

    async def close(self) -> None:
        """From here on only the fallback is asked."""
        self.up = False
        self._left_alone_until = math.inf
        try:
            async with timeout(_CLOSE_S):
                await self._client.aclose()
        except Exception as error:  # noqa: BLE001 - as in `_bounded`; nothing is lost with the connection
            log.debug("closing the shared ledger: %s", type(error).__name__)

    async def _get_shared(self, keys: Sequence[bytes]) -> list[bytes]:
        names = [self._prefix + key for key in keys]
        found: list[bytes] = []
        async with self._bounded():
            pipeline = self._client.pipeline(transaction=False)
            pipeline.mget(names)
            # Before it is known which of them are there: that saves a second round trip.
            due = self._renewed.missing(names)[:_RENEWALS_PER_GET]
            for name in due:
                pipeline.pexpire(name, self._ttl_ms)
            replies = _refuse_errors(await pipeline.execute(raise_on_error=False))
            if not isinstance(replies[0], list) or len(replies[0]) != len(names):
                raise _NotRedis
            for name, sealed in zip(names, replies[0], strict=True):
                if sealed is None:
                    break
                value = _unseal(name, sealed)
                if value is None:
                    self.errors += 1
                    break
                found.append(value)
            self._renewed.add(name for name, was_there in zip(due, replies[1:], strict=True) if was_there)
        return found

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        """What is done in it ends in time, and its failure is noted and goes no further."""
        begun_at = time.monotonic()
        try:
            async with timeout(self._timeout_s):
                yield
        except Exception as error:  # noqa: BLE001 - a client library that reads rubbish may raise anything
            self._failed(error, begun_at)
        else:
            self._answered(begun_at)

    def _may_put(self) -> bool:
        """While the server is down, one `put` in `rest_s` tries it."""
        now = time.monotonic()
        if not self.up:
            if now < self._left_alone_until:
                return False
            self._left_alone_until = now + self._rest_s
        return True

    def _answered(self, begun_at: float) -> None:
        """What was asked before the failure may still be answered, and says nothing of now."""
        if begun_at < self._failed_at:
            return
        self._unanswered_at = None
        if not self.up and self._left_alone_until < math.inf:
            self.up = True
            log.info("the shared ledger at %s is used again", self._where)

    def _failed(self, error: Exception, begun_at: float) -> None:
        """Requests that ran at the same time are one silence: a pause of this process looks like that too."""
        self.errors += 1
        now = time.monotonic()
        silent = _is_timeout(error)
        if silent and (self._unanswered_at is None or begun_at < self._unanswered_at):
            self._unanswered_at = self._unanswered_at or now
            return
        self._failed_at = now
        self._left_alone_until = max(self._left_alone_until, now + self._rest_s)
        if self.up:
            self.up = False
            log.warning(
                "the shared ledger at %s is not used (%s): conversations are kept in this gateway's memory; "
                "check that server and context.ledger_url",
                self._where,
                f"no answer within {self._timeout_s * 1000:g} ms" if silent else _reason(error),
            )


class _Renewed:
    """Keys whose time to live was renewed in the running period; forgetting one costs a renewal too many."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._ends_at = time.monotonic() + period_s
        self._names: set[bytes] = set()

    def missing(self, names: Sequence[bytes]) -> list[bytes]:
        now = time.monotonic()
        if now >= self._ends_at or len(self._names) > _RENEWED_KEYS:
            self._ends_at = now + self._period_s
            self._names.clear()
        return [name for name in names if name not in self._names]

    def add(self, names: Iterable[bytes]) -> None:
        self._names.update(names)


class _NotRedis(Exception):
    """The answer is none that Redis gives."""


def _refuse_errors(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _checksum(name: bytes, value: bytes) -> bytes:
    return zlib.crc32(value, zlib.crc32(name)).to_bytes(_CHECKSUM_BYTES, "big")


def _seal(name: bytes, value: bytes) -> bytes:
    return _checksum(name, value) + value


def _unseal(name: bytes, sealed: object) -> bytes | None:
    if not isinstance(sealed, bytes):
        return None
    value = sealed[_CHECKSUM_BYTES:]
    return value if sealed[:_CHECKSUM_BYTES] == _checksum(name, value) else None


def _is_timeout(error: Exception) -> bool:
    from redis.exceptions import TimeoutError as RedisTimeoutError

    return isinstance(error, TimeoutError | RedisTimeoutError)


def _reason(error: BaseException) -> str:
    """In words of this machine: the server's own may hold anything."""
    if isinstance(error, _NotRedis):
        return "it does not speak as Redis does"
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
