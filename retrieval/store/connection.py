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
from threading import RLock

from retrieval.errors import RetrievalError, StoreFull, StoreUnusable
from retrieval.store.changes import prune
from retrieval.store.schema import MIGRATIONS, migrate, user_version

_ROOM_BYTES = 1 << 20
_PAGE_BYTES = 8192
_WAL_KEPT_BYTES = 64 << 20


class Connections:
    """One connection for writing (`writer`) and as many for reading as there are readers at once.

    Any thread may use it: readers never wait, writers wait for one another.

    Raises `StoreUnusable` and `StoreFull` in place of SQLite's errors. `close()` closes idle connections at
    once and the others when their reader is done.
    """

    def __init__(self, path: Path, busy_timeout_ms: int) -> None:
        self.path = path
        self._busy_timeout_ms = busy_timeout_ms
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False
        self._writing = RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise typed(path, error) from error
        with self.errors():
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
                # A read transaction that stayed open would hold up the log's clearing for ever.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._idle.append(connection)
                if self._closed:
                    self._close_idle()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A reader that sees one state of the store in all its statements."""
        with self.reader() as connection:
            connection.execute("BEGIN")
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction: committed at the end of the block, rolled back on any error."""
        with self._writing, self.errors():
            if self._closed:
                raise sqlite3.ProgrammingError("the store is closed")
            self.writer.execute("BEGIN IMMEDIATE")
            try:
                yield self.writer
                prune(self.writer)
                self.writer.execute("COMMIT")
            except BaseException:
                # SQLite rolls back by itself after some errors (a full disk is one).
                if self.writer.in_transaction:
                    self.writer.execute("ROLLBACK")
                raise

    def close(self) -> None:
        with self._writing:
            self._closed = True
            self._close_idle()
            self.writer.close()

    @contextmanager
    def errors(self) -> Iterator[None]:
        # Only SQLite's: what else fails inside a caller's block is not the store's.
        try:
            yield
        except sqlite3.Error as error:
            raise typed(self.path, error) from error

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise sqlite3.ProgrammingError("the store is closed")
        return connect(self.path, self._busy_timeout_ms)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        found = user_version(connection)
        if found > len(MIGRATIONS):
            raise StoreUnusable(
                f"{self.path}: written by a newer version of Firstword (schema {found}, this one knows "
                f"{len(MIGRATIONS)}); upgrade Firstword or name another store"
            )
        n_tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if found == 0 and n_tables:
            raise StoreUnusable(f"{self.path}: another program's database; name another file for the store")
        if found == 0:
            # A vector of 384 numbers takes 1.5 KiB: pages of 4 KiB would be a quarter empty.
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
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


def connect(path: Path, busy_timeout_ms: int) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=busy_timeout_ms / 1000,
        isolation_level=None,  # transactions begin where the code says so
        check_same_thread=False,
        cached_statements=64,
    )
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def typed(path: Path, error: sqlite3.Error | OSError) -> RetrievalError:
    """The error that says what is wrong with the file at `path`, and what to do."""
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _full(path)
        return StoreUnusable(f"{path}: {error.strerror or error}; name a folder that can be written")
    code = getattr(error, "sqlite_errorcode", 0)
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return _full(path)
        case sqlite3.SQLITE_IOERR if shutil.disk_usage(path.parent).free < _ROOM_BYTES:
            # A full disk also shows as a failure to grow the file that WAL readers share.
            return _full(path)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            reason = "locked by another process; try again when that one has finished"
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            reason = f"damaged or not a store ({error}); restore a backup, or move it away and ingest again"
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            reason = f"{error}; name a file in a folder that can be written"
        case _:
            reason = f"{error}; check the disk, or move the file away and ingest again"
    return StoreUnusable(f"{path}: {reason}")


def _full(path: Path) -> StoreFull:
    return StoreFull(f"{path}: the disk is full, and nothing was half-written; free space and ingest again")
