"""The next base of an index, built in the background."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from retrieval.index.kind import IndexChoice, Kind, Structure, build
from retrieval.index.rows import Positions, RowTable

_NICENESS = 10
# Product quantisation needs more rows than it has centroids.
LEAST_ROWS = 64

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Merge:
    """One build, from the first `n` rows of a table as they were when it began.

    Without `compact` the positions stay, and the structure alone is new: the vectors are not copied. With it the
    dead rows are left out, which copies the living ones.
    """

    table: RowTable
    n: int
    alive: NDArray[np.bool_]
    structure: Structure | None
    kind: Kind
    compact: bool
    buried: list[Positions] = field(default_factory=list)
    """By the owner, while this runs: rows below `n` that must be gone from the result too."""
    new_table: RowTable | None = None
    new_structure: Structure | None = None
    failed: bool = False
    _thread: threading.Thread | None = None

    def start(self, choice: IndexChoice, done: Callable[[Merge], None]) -> None:
        """`done` is called on the builder's thread. Once started it is not stopped."""

        def work() -> None:
            _stand_back(choice.build_threads)
            try:
                self._build(choice)
            except (RuntimeError, MemoryError):
                log.exception("the %s index could not be built; searches go on without it", self.kind)
                self.failed = True
            done(self)

        self._thread = threading.Thread(target=work, name="firstword-index-merge", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _build(self, choice: IndexChoice) -> None:
        if self.compact:
            self.new_table = self.table.without_dead(self.n, self.alive)
        table, n = (self.new_table, self.new_table.n) if self.new_table else (self.table, self.n)
        # Selectors of the rest begin at whole bytes.
        vectors = table.vectors[: n - n % 8]
        if self.kind == "flat" or len(vectors) < LEAST_ROWS:
            return
        if not self.compact and self.structure is not None and self.structure.kind == self.kind:
            self.new_structure = self.structure.extended(vectors)
        if self.new_structure is None:
            self.new_structure = build(choice, self.kind, vectors)

    def caught_up(self) -> RowTable:
        """The table to go on with; what happened since the beginning is done again. On the owner's thread."""
        old, new = self.table, self.new_table
        if new is None:
            return old
        for positions in self.buried:
            gone = new.find(old.keys[positions])
            new.bury(gone[gone >= 0])
        since = self.n + np.flatnonzero(old.alive[self.n : old.n])
        new.append(old.keys[since], old.documents[since], old.vectors[since])
        return new


def _stand_back(n_threads: int) -> None:
    """A build takes what the turns leave: niceness is the thread's own on Linux."""
    import faiss

    faiss.omp_set_num_threads(n_threads)
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
