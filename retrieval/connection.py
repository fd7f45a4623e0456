"""SQLite connections to one store file: opened alike, pooled for readers, their errors made ours."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retrieval.errors import RetrievalError, StoreFull, StoreUnusable
from retrieval.schema import MIGRATIONS, migrate, user_version

_ROOM_BYTES = 1 << 20


class Connections:
    """One connection for writing (`writer`) and as many for reading as there are readers at once.

    Raises `StoreUnusable` and `StoreFull` in place of SQLite's errors. `close()` closes idle connections at
    once and the others when their reader is done.
    """

    def __init__(self, path: Path, busy_timeout_ms: int) -> None:
        self._path = path
        self._busy_timeout_ms = busy_timeout_ms
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False
        with self.errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.writer = self._open()
            try:
                self._prepare(self.writer)
            except BaseException:
                self.writer.close()
                raise

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        with self.errors():
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._open()
                connection.execute("PRAGMA query_only = ON")
            try:
                yield connection
            finally:
                self._idle.append(connection)
                if self._closed:
                    self._close_idle()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction: committed at the end of the block, rolled back on any error. The caller
        holds a lock, for there is one writer."""
        with self.errors():
            if self._closed:
                raise sqlite3.ProgrammingError("the store is closed")
            self.writer.execute("BEGIN IMMEDIATE")
            try:
                yield self.writer
                self.writer.execute("COMMIT")
            except BaseException:
                # SQLite rolls back by itself after some errors (a full disk is one).
                if self.writer.in_transaction:
                    self.writer.execute("ROLLBACK")
                raise

    def close(self) -> None:
        self._closed = True
        self._close_idle()
        self.writer.close()

    @contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._typed(error) from error

    def _typed(self, error: sqlite3.Error | OSError) -> RetrievalError:
        path = self._path
        if isinstance(error, OSError):
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return self._full()
            return StoreUnusable(f"{path}: {error.strerror or error}; name a folder that can be written")
        code = getattr(error, "sqlite_errorcode", 0)
        match code & 0xFF:
            case sqlite3.SQLITE_FULL:
                return self._full()
            case sqlite3.SQLITE_IOERR if shutil.disk_usage(path.parent).free < _ROOM_BYTES:
                # A full disk also shows as a failure to grow the file that WAL readers share.
                return self._full()
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                reason = "locked by another process; try again when that one has finished"
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                reason = (
                    f"damaged or not a store ({error}); restore a backup, or move it away and ingest again"
                )
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                reason = f"{error}; name a file in a folder that can be written"
            case _:
                reason = f"{error}; check the disk, or move the file away and ingest again"
        return StoreUnusable(f"{path}: {reason}")

    def _full(self) -> StoreFull:
        return StoreFull(
            f"{self._path}: the disk is full, and nothing was half-written; free space and ingest again"
        )

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise sqlite3.ProgrammingError("the store is closed")
        connection = sqlite3.connect(
            self._path,
            timeout=self._busy_timeout_ms / 1000,
            isolation_level=None,  # transactions begin where the code says so
            check_same_thread=False,
            cached_statements=64,
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        found = user_version(connection)
        if found > len(MIGRATIONS):
            raise StoreUnusable(
                f"{self._path}: written by a newer version of Firstword (schema {found}, this one knows "
                f"{len(MIGRATIONS)}); upgrade Firstword or name another store"
            )
        n_tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if found == 0 and n_tables:
            raise StoreUnusable(f"{self._path}: another program's database; name another file for the store")
        self._enter_wal(connection)
        migrate(connection)

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        # Changing the mode does not wait for a lock as other statements do, so that processes which create
        # the same store at once have to take turns here.
        give_up = time.monotonic() + self._busy_timeout_ms / 1000
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)
            else:
                return

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()
