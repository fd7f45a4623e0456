"""Ledgers over a restart: all of them or none, whatever happened to the file."""

from __future__ import annotations

import logging
import os
import random
import resource
import stat
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.context.memory_store import MemoryStore

pytestmark = pytest.mark.anyio

FINGERPRINT = b"model and template"
BOUND = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledgers"


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore(BOUND)
    for n in range(4):
        keys = [f"{n}.{i}".encode() for i in range(3)]
        await store.put({key: key * 5 for key in keys})
    await store.get([b"2.0", b"2.1"])
    return store


@pytest.fixture
def snapshot(store: MemoryStore, path: Path) -> bytes:
    store.save(path, FINGERPRINT)
    return path.read_bytes()


def loaded(path: Path, max_bytes: int = BOUND, fingerprint: bytes = FINGERPRINT) -> MemoryStore:
    store = MemoryStore(max_bytes)
    store.load(path, fingerprint)
    return store


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records]


async def test_all_comes_back(store: MemoryStore, snapshot: bytes, path: Path) -> None:
    again = loaded(path)
    assert (again.n_entries, again.n_bytes) == (store.n_entries, store.n_bytes)
    assert (again.hits, again.misses, again.evictions) == (0, 0, 0)
    assert await again.get([b"3.0", b"3.1", b"3.2"]) == [b"3.0" * 5, b"3.1" * 5, b"3.2" * 5]


async def test_the_order_of_use_comes_back(snapshot: bytes, path: Path, tmp_path: Path) -> None:
    loaded(path).save(tmp_path / "again", FINGERPRINT)
    assert (tmp_path / "again").read_bytes() == snapshot


async def test_a_smaller_store_takes_what_was_used_last(
    store: MemoryStore, snapshot: bytes, path: Path
) -> None:
    smaller = loaded(path, store.n_bytes // 3)
    assert 0 < smaller.n_bytes <= store.n_bytes // 3
    assert smaller.n_entries == store.n_entries // 3
    assert len(await smaller.get([b"2.0", b"2.1", b"2.2"])) == 2, "used last, and its third message was not"
    assert len(await smaller.get([b"3.0", b"3.1", b"3.2"])) == 2


async def test_what_was_there_goes_only_for_something_better(snapshot: bytes, path: Path) -> None:
    store = MemoryStore(BOUND)
    await store.put({b"mine": b"kept"})
    path.write_bytes(snapshot[:-1])
    store.load(path, FINGERPRINT)
    assert await store.get([b"mine"]) == [b"kept"]


@given(
    entries=st.dictionaries(st.binary(max_size=20), st.binary(max_size=300)),
    fingerprint=st.binary(max_size=40),
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_bytes_come_back(path: Path, entries: dict[bytes, bytes], fingerprint: bytes) -> None:
    store = MemoryStore(BOUND)
    await store.put(entries)
    store.save(path, fingerprint)
    assert await loaded(path, fingerprint=fingerprint).get(list(entries)) == list(entries.values())


async def test_only_this_user_can_read_it(store: MemoryStore, path: Path) -> None:
    path.with_name(f".{path.name}.new").write_bytes(b"left by a server that was killed")
    path.with_name(f".{path.name}.new").chmod(0o666)
    path.write_bytes(b"old")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        store.save(path, FINGERPRINT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


async def test_of_another_fingerprint_nothing_is_read(
    snapshot: bytes, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert loaded(path, fingerprint=b"another model").n_entries == 0
    assert told(caplog) == ["INFO"], "that is no fault"


async def test_a_first_start_says_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert loaded(path).n_entries == 0
    assert told(caplog) == []


async def test_cut_short_anywhere_it_is_ignored(
    snapshot: bytes, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for n_bytes in range(len(snapshot)):
        path.write_bytes(snapshot[:n_bytes])
        caplog.clear()
        assert loaded(path).n_entries == 0
        assert told(caplog) == ["WARNING"]
    assert "remove that file" in caplog.text


async def test_with_any_bit_flipped_it_is_ignored(
    snapshot: bytes, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    chance = random.Random(5)
    for at in range(len(snapshot)):
        flipped = bytearray(snapshot)
        flipped[at] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        caplog.clear()
        assert loaded(path).n_entries == 0, f"byte {at}"
        assert len(told(caplog)) == 1


@given(
    at=st.integers(0, 2_000),
    removed=st.integers(0, 80),
    put_in=st.binary(max_size=80),
    tail=st.binary(max_size=40),
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_damaged_in_any_way_it_is_ignored(
    snapshot: bytes, path: Path, at: int, removed: int, put_in: bytes, tail: bytes
) -> None:
    damaged = snapshot[:at] + put_in + snapshot[at + removed :] + tail
    path.write_bytes(damaged)
    assert (loaded(path).n_entries == 0) is (damaged != snapshot)


@pytest.mark.parametrize("content", [b"", b"hello\n", b"firstword ledger 9 little\n", bytes(5_000)])
async def test_something_else_is_ignored(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(content)
    assert loaded(path).n_entries == 0
    assert told(caplog) == ["WARNING"]
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", ["folder", "pipe", "below a file"])
async def test_what_is_no_file_is_ignored(path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case _:
            path.write_bytes(b"")
            path = path / "ledgers"
    store = loaded(path)
    assert store.n_entries == 0
    assert told(caplog) == ["WARNING"]
    if kind != "pipe":  # a pipe is replaced by a file
        store.save(path, FINGERPRINT)
        assert told(caplog) == ["WARNING", "WARNING"]


async def test_no_length_in_it_is_believed(snapshot: bytes, path: Path) -> None:
    """One that says four gibibytes takes no four gibibytes."""
    at = snapshot.index(struct.pack("<II", 3, 15))
    path.write_bytes(snapshot[:at] + struct.pack("<I", 2**32 - 1) + snapshot[at + 4 :])
    tracemalloc.start()
    try:
        assert loaded(path).n_entries == 0
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


@contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """Files that grow beyond that cannot be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_leaves_the_old_snapshot(
    store: MemoryStore, snapshot: bytes, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await store.put({b"large": bytes(100_000)})
    with full_disk(50_000):
        store.save(path, FINGERPRINT)
    assert told(caplog) == ["WARNING"]
    assert "make room" in caplog.text
    assert path.read_bytes() == snapshot
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


async def test_no_folder_is_a_warning(
    store: MemoryStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.save(path / "missing" / "ledgers", FINGERPRINT)
    assert told(caplog) == ["WARNING"]
