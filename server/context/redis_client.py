"""Whether a URL can be used is told at the start, not on some turn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from server.errors import ConfigError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_MAX_CONNECTIONS = 16
_OPTIONS = ("host", "port", "path", "db", "username", "password", "connection_class")


def open_client(url: str, timeout_s: float) -> tuple[Redis, str]:
    """A client, not connected yet, and its address as it may be told.

    Raises `ConfigError` for a URL that cannot be used, and when the package is missing.
    """
    try:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.connection import parse_url
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError
    except ImportError:
        raise ConfigError(
            "context.ledger_url is set, and the package that speaks with Redis is not installed",
            next_step="install Firstword with the extra `redis`, or leave context.ledger_url empty",
        ) from None
    try:
        _refuse_misread(url)
        options: dict[str, Any] = dict(parse_url(url))
        _refuse_options(options)
        pool = BlockingConnectionPool(
            max_connections=_MAX_CONNECTIONS,
            timeout=None,
            socket_timeout=None,  # the caller's clock is the only one
            socket_connect_timeout=timeout_s,
            protocol=2,  # every server speaks it, and it takes no round trip to agree on
            driver_info=None,
            retry=Retry(NoBackoff(), 1),  # for a connection that ended while it was idle
            **options,
        )
        pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, RedisError):
        # Their messages may quote the password.
        raise _bad_url("it is not a URL of a Redis server") from None
    where = options.get("path") or f"{options['host']}:{options.get('port', 6379)}"
    return Redis.from_pool(pool), str(where)


def _refuse_misread(url: str) -> None:
    """Where the client library would take something else than was meant, and say nothing."""
    parts = urlsplit(url)
    if parts.fragment or "#" in url:
        raise _bad_url("a `#` in it must be written `%23`")
    if parts.scheme == "unix":
        if not parts.path:
            raise _bad_url("it names no socket")
        return
    if not parts.hostname:
        raise _bad_url("it names no host")
    if not re.fullmatch(r"/?[0-9]*", parts.path):
        raise _bad_url("after the address only the number of a database may stand")


def _refuse_options(options: Mapping[str, object]) -> None:
    for name in options:
        if name not in _OPTIONS and not name.startswith("ssl_"):
            raise _bad_url("of options after `?` only `db` and those that begin with `ssl_` are known")


def _bad_url(what: str) -> ConfigError:
    return ConfigError(
        f"context.ledger_url cannot be used: {what}",
        next_step="write it as redis://user:password@host:6379/0, or rediss:// for TLS; "
        "percent-encode what is special in the password",
    )
