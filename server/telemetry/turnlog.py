"""The last turns with their phases, in a SQLite database of its own, written off the path of a turn.

No question and no answer is kept: figures and the ids of the passages only.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from pathlib import Path
from typing import Any, Literal

import msgspec

from server.telemetry.timing import Phase

log = logging.getLogger(__name__)

Outcome = Literal["finished", "disconnected", "failed", "refused"]
Compaction = Literal["full", "cold", "typing", "worth"]
"""The prompt did not fit any more; its beginning was not in the cache anyway; the user was still typing; it pays off."""

_QUEUE_LENGTH = 10_000
_LOOK_EVERY_S = 0.25


class TurnRecord(msgspec.Struct, frozen=True, kw_only=True):
    turn_id: str
    tenant: str
    created: int
    """Unix seconds."""
    model: str
    turn: int
    stream: bool
    outcome: Outcome
    finish_reason: str | None
    error_code: str | None
    phases_ms: dict[Phase, float]
    ttft_ms: float | None
    total_ms: float
    prompt_tokens: int
    cached_tokens: int
    plain_prompt_tokens: int | None = None
    plain_computed_tokens: int | None = None
    """What the usual layout would have had the engine compute; None where prompts are rebuilt on each turn."""
    compaction: Compaction | None = None
    """Why older parts left the prompt, if they did."""
    prewarmed: bool = False
    """Something was prefilled while the question was typed."""
    completion_tokens: int
    passages: tuple[str, ...]


class TurnLog:
    """`append` never blocks: records beyond the bound of its queue are dropped and counted.

    Nor does it wake the writer, which looks four times a second: a thread that is woken for every turn takes
    the interpreter from the event loop each time.
    """

    def __init__(self, path: Path, turns_kept: int) -> None:
        self._path = path
        self._turns_kept = turns_kept
        self._records: deque[TurnRecord] = deque()
        self._wake = threading.Event()
        self._written = threading.Condition()
        self._rounds = 0
        self._closing = False
        self.dropped = 0
        with _connect(path) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS turns (seq INTEGER PRIMARY KEY AUTOINCREMENT,"
                " turn_id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, record BLOB NOT NULL)"
            )
        connection.close()
        self._reader = _connect(path)
        self._reader_lock = threading.Lock()
        self._writer = threading.Thread(target=self._write, name="turn-log", daemon=True)
        self._writer.start()

    def append(self, record: TurnRecord) -> None:
        if len(self._records) < _QUEUE_LENGTH:
            self._records.append(record)
        else:
            self.dropped += 1

    def latest(self, tenant: str, limit: int, before: str | None = None) -> list[TurnRecord]:
        """Newest first; `before` is the turn id that ended the previous page. Blocks: call from a thread."""
        query = "SELECT record FROM turns WHERE tenant = ?"
        parameters: list[Any] = [tenant]
        if before is not None:
            query += " AND seq < (SELECT seq FROM turns WHERE turn_id = ?)"
            parameters.append(before)
        return self._read(query + " ORDER BY seq DESC LIMIT ?", [*parameters, limit])

    def find(self, tenant: str, turn_id: str) -> TurnRecord | None:
        """Blocks: call from a thread."""
        found = self._read("SELECT record FROM turns WHERE tenant = ? AND turn_id = ?", [tenant, turn_id])
        return found[0] if found else None

    def _read(self, query: str, parameters: list[Any]) -> list[TurnRecord]:
        self.flush()
        with self._reader_lock:
            rows = self._reader.execute(query, parameters).fetchall()
        return [msgspec.json.decode(record, type=TurnRecord) for (record,) in rows]

    def flush(self) -> None:
        """Blocks until everything appended so far can be read."""
        with self._written:
            # The round that runs now may have begun before the last record came.
            enough = self._rounds + 2
            while self._rounds < enough and self._writer.is_alive():
                self._wake.set()
                self._written.wait(_LOOK_EVERY_S)

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        self._writer.join()
        with self._reader_lock:
            self._reader.close()

    def _write(self) -> None:
        connection = _connect(self._path)
        while True:
            last = self._closing
            self._insert(connection, [self._records.popleft() for _ in range(len(self._records))])
            with self._written:
                self._rounds += 1
                self._written.notify_all()
            if last:
                break
            self._wake.wait(_LOOK_EVERY_S)
            self._wake.clear()
        connection.close()

    def _insert(self, connection: sqlite3.Connection, records: list[TurnRecord]) -> None:
        if not records:
            return
        rows = [(record.turn_id, record.tenant, msgspec.json.encode(record)) for record in records]
        try:
            with connection:
                connection.executemany(
                    "INSERT OR REPLACE INTO turns (turn_id, tenant, record) VALUES (?, ?, ?)", rows
                )
                connection.execute(
                    "DELETE FROM turns WHERE seq <= (SELECT max(seq) FROM turns) - ?", (self._turns_kept,)
                )
        except sqlite3.Error:
            self.dropped += len(records)
            log.exception("%d turns could not be written to %s", len(records), self._path)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection
