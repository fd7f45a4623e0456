"""A shared ledger that cannot work is told at the start, and never with its password."""

from __future__ import annotations

import sys

import pytest

from server.context.memory_store import MemoryStore
from server.context.redis_store import RedisStore
from server.errors import ConfigError


def opened(url: str) -> RedisStore:
    return RedisStore(url, 50.0, 3_600.0, "test", MemoryStore(1 << 20))


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost:6380/2",
        "redis://user:s3cr3t%23%2F@10.0.0.1:6379/0",
        "rediss://:s3cr3t@cache.example:6380?ssl_cert_reqs=none",
        "redis://[::1]:6379",
        "unix:///run/redis.sock?db=3",
    ],
)
def test_good_urls(url: str) -> None:
    assert opened(url).up


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost:6379",
        "memcached://:s3cr3t@localhost",
        "redis://",
        "redis:///0",
        "unix://",
        "redis://:s3cr3t@localhost:port",
        "redis://:s3cr3t@localhost:70000",
        "redis://:s3cr3t/more@localhost:6379",
        "redis://:s3cr3t#more@localhost:6379",
        "redis://:12#s3cr3t@localhost:6379",
        "redis://:s3cr3t@localhost/first",
        "redis://:s3cr3t@localhost?db=first",
        "redis://:s3cr3t@localhost?decode_responses=true",
        "redis://:s3cr3t@localhost?max_connections=100000",
        "redis://:s3cr3t@localhost?ssl_s3cr3t=1",
        "rediss://:s3cr3t@localhost?ssl_cert_reqs=s3cr3t",
        "rediss://:s3cr3t@localhost?ssl_s3cr3t=1",
        "redis://:s3cr3t@[::1",
    ],
)
def test_bad_urls_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"context\.ledger_url") as refused:
        opened(url)
    assert refused.value.next_step
    assert "s3cr3t" not in refused.value.message + refused.value.next_step
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "redis" or name.startswith("redis.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match="package") as refused:
        opened("redis://localhost")
    assert "`redis`" in refused.value.next_step
