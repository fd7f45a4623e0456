"""A copy of a store, made while it is written to: one state of it, checked, and there as a whole or not at all."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from retrieval.errors import StoreUnusable
from retrieval.store.connection import connect, typed
from retrieval.store.integrity import require_readable_file
from retrieval.store.schema import MIGRATIONS, new_identity, user_version

_PAGES_AT_ONCE = 512

Tell = Callable[[int, int], None]
"""Told how many of how many bytes are copied."""


def backup(store_path: str | Path, target: str | Path, on_progress: Tell | None = None) -> None:
    """Copy the store to `target`, replacing an earlier backup there; any process may write meanwhile.

    The copy is a store of its own, with an identity of its own: snapshots of indexes of the old one are not
    taken for its. Raises `StoreUnusable` (no store there, damaged, the target in use), `StoreFull`; the target
    is then as it was before.
    """
    store_path, target = Path(store_path), Path(target)
    _require_apart(store_path, target)
    with _part_of(target) as part:
        with _typed(store_path), closing(_open_store(store_path)) as source:
            # A read transaction around the whole: pages written meanwhile do not make the copy start again.
            # https://sqlite.org/c3ref/backup_finish.html
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            with _typed(part):
                _copy(source, part, on_progress)
            source.execute("ROLLBACK")
        with _typed(part):
            _finish(part, store_path)
        with _typed(target):
            _synced(part)
            part.replace(target)
            _synced(target.parent.absolute())


def _copy(source: sqlite3.Connection, part: Path, on_progress: Tell | None) -> None:
    page_bytes = source.execute("PRAGMA page_size").fetchone()[0]

    def progress(_status: int, left: int, total: int) -> None:
        if on_progress:
            on_progress((total - left) * page_bytes, total * page_bytes)

    with closing(sqlite3.connect(part, isolation_level=None)) as copy:
        # What makes it durable is the one fsync at the end.
        copy.execute("PRAGMA synchronous = OFF")
        source.backup(copy, pages=_PAGES_AT_ONCE, progress=progress)


def _finish(part: Path, store_path: Path) -> None:
    with closing(sqlite3.connect(part, isolation_level=None)) as copy:
        # One file with nothing beside it; whoever opens it as a store turns the log on again.
        copy.execute("PRAGMA journal_mode = DELETE")
        copy.execute("PRAGMA synchronous = OFF")
        copy.execute("UPDATE meta SET value = ? WHERE name = 'identity'", (new_identity(),))
        require_readable_file(copy, store_path)


def _open_store(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise StoreUnusable(f"{path}: there is no store; name the one to copy")
    connection = connect(path, busy_timeout_ms=10_000)
    try:
        if not 0 < user_version(connection) <= len(MIGRATIONS):
            raise StoreUnusable(
                f"{path}: not a store of this version; copy it with the program that wrote it"
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _require_apart(store_path: Path, target: Path) -> None:
    if target.exists() and store_path.exists() and target.samefile(store_path):
        raise StoreUnusable(f"{target}: the store itself; name another file for the copy")
    if target.is_dir():
        raise StoreUnusable(f"{target}: a folder; name a file for the copy")
    for beside in _beside(target):
        if beside.exists():
            # SQLite would take the log for the new file's, and damage it.
            raise StoreUnusable(
                f"{target}: in use as a store, or not closed when its program ended ({beside.name} lies "
                "beside it); name another file"
            )


@contextmanager
def _part_of(target: Path) -> Iterator[Path]:
    """The file that becomes the target. Always of the same name, so that killed backups leave one at most."""
    part = target.with_name(f".{target.name}.part")
    with _typed(part):
        lock = os.open(part, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _locked(lock, part):
            raise StoreUnusable(
                f"{target}: another backup is being written there; wait for its end or name another file"
            )
        try:
            with _typed(part):
                os.truncate(lock, 0)
                for beside in _beside(part):
                    beside.unlink(missing_ok=True)
            yield part
        except BaseException:
            for left in (part, *_beside(part)):
                left.unlink(missing_ok=True)
            raise
    finally:
        os.close(lock)


def _locked(lock: int, part: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # What was opened may have become another backup's target before it could be locked.
        return os.fstat(lock).st_ino == part.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal")]


def _synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _typed(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise typed(path, error) from error
