"""A snapshot is loaded as it was written or not at all, and what cannot be written leaves the old one."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.errors import SnapshotDamaged
from retrieval.index import snapshot as index_snapshot
from retrieval.index.faiss_index import FaissIndex
from retrieval.index.kind import IndexChoice
from retrieval.types import Rows

pytestmark = pytest.mark.anyio
DIM = 16
CHOICE = IndexChoice("pq", candidates=1_000, scanned_below=0, merge_above=64)
N_FLIPS = 1_000 if os.environ.get("INDEX_SIZE") == "full" else 100
NOTHING = Rows(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, DIM), np.float32), ())


def rows(first: int, n: int) -> Rows:
    vectors = np.random.default_rng(first).normal(size=(n, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Rows(np.arange(first, first + n), np.arange(n) // 10, vectors, ())


@pytest.fixture
async def index() -> AsyncIterator[FaissIndex]:
    """With a structure, rows that are scanned beside it, and tombstones in both."""
    index = FaissIndex(DIM, CHOICE)
    await index.replace([rows(0, 300)])
    await index.settled()
    await index.change([3, 4, 299], rows(1_000, 20))
    await index.change([1_001], NOTHING)
    assert index.kind == "pq"
    yield index
    index.close()


@pytest.fixture
async def other() -> AsyncIterator[FaissIndex]:
    other = FaissIndex(DIM, CHOICE)
    yield other
    other.close()


async def test_what_was_saved_is_loaded(index: FaissIndex, other: FaissIndex, tmp_path: Path):
    path = tmp_path / "snapshot"
    await index.save(path, "store-1", 17)
    assert await other.load(path, "store-1") == 17
    assert len(other) == len(index) == 316
    assert other.kind == "pq"  # loaded, not built again
    queries = rows(5_000, 20).vectors
    assert await other.search(queries, 10) == await index.search(queries, 10)
    assert np.isnan(await other.scores(queries[:1], [3, 4, 299, 1_001])).all()
    # Replaying what the snapshot holds already changes nothing.
    await other.change([3, 4, 299, 1_001], NOTHING)
    await other.change(
        [],
        Rows(*(part[5:9] for part in (rows(0, 300).keys, rows(0, 300).documents, rows(0, 300).vectors)), ()),
    )
    assert len(other) == 316
    assert await other.search(queries, 10) == await index.search(queries, 10)


async def test_no_vector_of_a_deleted_chunk_is_written(index: FaissIndex, tmp_path: Path):
    path = tmp_path / "snapshot"
    await index.save(path, "store-1", 17)
    written = path.read_bytes()
    for first, n, row, deleted in ((0, 300, 3, True), (0, 300, 5, False), (1_000, 20, 1, True)):
        assert (rows(first, n).vectors[row].tobytes() in written) is not deleted


async def test_an_empty_index_is_saved_too(other: FaissIndex, tmp_path: Path):
    await other.save(tmp_path / "snapshot", "store-1", 3)
    await other.replace([rows(0, 10)])
    assert await other.load(tmp_path / "snapshot", "store-1") == 3
    assert len(other) == 0


async def test_a_snapshot_of_something_else_is_none(index: FaissIndex, tmp_path: Path):
    path = tmp_path / "snapshot"
    assert await index.load(path, "store-1") is None
    await index.save(path, "store-1", 17)
    assert await index.load(path, "store-2") is None
    for dim, choice in ((8, CHOICE), (DIM, IndexChoice("ivf")), (DIM, IndexChoice("auto", flat_below=9))):
        another = FaissIndex(dim, choice)
        assert await another.load(path, "store-1") is None
        another.close()
    assert len(index) == 316


async def test_every_flipped_bit_is_found(index: FaissIndex, other: FaissIndex, tmp_path: Path):
    path = tmp_path / "snapshot"
    await index.save(path, "store-1", 17)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    in_header = rng.integers(0, 8 * 4_096, size=N_FLIPS // 4)
    anywhere = rng.integers(0, 8 * len(whole), size=N_FLIPS - len(in_header))
    for bit in (0, 8 * len(whole) - 1, *in_header.tolist(), *anywhere.tolist()):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(SnapshotDamaged, match="built anew"):
            await other.load(path, "store-1")
    assert len(other) == 0


@pytest.mark.parametrize("length", [0, 1, 4_095, 4_096, 5_000, -1, +1])
async def test_a_file_of_another_length_is_damaged(
    index: FaissIndex, other: FaissIndex, tmp_path: Path, length: int
):
    path = tmp_path / "snapshot"
    await index.save(path, "store-1", 17)
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" if length == 1 else whole[:length])
    with pytest.raises(SnapshotDamaged):
        await other.load(path, "store-1")


@pytest.mark.parametrize("call", ["fsync file", "fsync folder", "replace", "write 0", "write 1", "write 5"])
async def test_a_failed_write_leaves_a_whole_snapshot(
    index: FaissIndex, other: FaissIndex, tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "snapshot"
    await index.save(path, "store-1", 17)
    await index.change([10], NOTHING)
    with monkeypatch.context() as patched:
        _break(patched, call)
        with pytest.raises(OSError, match="No space"):
            await index.save(path, "store-1", 18)
    assert [file.name for file in tmp_path.iterdir()] == ["snapshot"]
    # Only the folder's fsync comes after the rename.
    assert await other.load(path, "store-1") == (18 if call == "fsync folder" else 17)
    await index.save(path, "store-1", 19)
    assert await other.load(path, "store-1") == 19


async def test_strays_of_killed_writers_are_tolerated_and_removed(index: FaissIndex, tmp_path: Path):
    path = tmp_path / "snapshot"
    old, young, foreign = (
        tmp_path / name for name in ("snapshot.0a.tmp", "snapshot.0b.tmp", "another.0a.tmp")
    )
    for stray in (old, young, foreign):
        stray.write_bytes(b"half")
    os.utime(old, (0, 0))
    os.utime(foreign, (0, 0))
    await index.save(path, "store-1", 17)
    assert await index.load(path, "store-1") == 17
    assert not old.exists()
    assert young.exists()
    assert foreign.exists()


async def test_searches_and_changes_go_on_while_a_snapshot_is_written(
    index: FaissIndex, other: FaissIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is written is the moment of the call, whatever comes after it."""
    import asyncio
    import threading

    going = threading.Event()
    write = index_snapshot._write

    def slowly(file: Any, contents: Any) -> None:
        assert going.wait(10)
        write(file, contents)

    monkeypatch.setattr(index_snapshot, "_write", slowly)
    saving = asyncio.create_task(index.save(tmp_path / "snapshot", "store-1", 17))
    await asyncio.sleep(0.01)
    query = rows(0, 300).vectors[20:21]
    expected = await index.search(query, 5)
    await index.change([20], rows(2_000, 5_000))  # more than the table has room for
    assert (await index.search(query, 1))[0][0][0] != 20
    going.set()
    await saving
    assert await other.load(tmp_path / "snapshot", "store-1") == 17
    assert len(other) == 316
    assert await other.search(query, 5) == expected


def _break(patched: pytest.MonkeyPatch, call: str) -> None:
    """Let one kind of call say that the disk is full."""
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_: object) -> None:
        raise full

    if call == "replace":
        patched.setattr(os, "replace", fail)
    elif call.startswith("fsync"):
        fsync, n_before = os.fsync, [1 if call == "fsync folder" else 0]

        def fsync_or_fail(descriptor: int) -> None:
            n_before[0] -= 1
            if n_before[0] < 0:
                raise full
            fsync(descriptor)

        patched.setattr(os, "fsync", fsync_or_fail)
    else:
        patched.setattr(index_snapshot, "_write", _writing_until(int(call.split()[1]), full))


def _writing_until(n_writes: int, error: OSError) -> Any:
    write = index_snapshot._write

    class Full:
        def __init__(self, file: Any) -> None:
            self._file, self._left = file, n_writes

        def write(self, data: Any) -> int:
            self._left -= 1
            if self._left < 0:
                # A short write comes before the error.
                self._file.write(data[: len(data) // 2])
                raise error
            return int(self._file.write(data))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    return lambda file, contents: write(Full(file), contents)
