"""What a selection allows, as bits over an index's positions."""

from __future__ import annotations

from functools import partial
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from retrieval.index.rows import Bits, Positions, RowTable
from retrieval.types import Selection


class Allowed:
    """The living rows of a table that a selection selects (all, where it is None).

    Follows its table: `cover` takes in rows that were appended, `take_away` rows that were buried. It must not hold
    the selection itself, by whose end it is forgotten.
    """

    def __init__(self) -> None:
        import faiss

        self._faiss = faiss
        self.n = 0
        """How many rows are allowed."""
        self._n_covered = 0
        self._allowed = np.empty(0, dtype=np.bool_)
        self._bits: Bits = np.empty(0, dtype=np.uint8)
        self._positions: Positions | None = None
        self._selectors: dict[int, Any] = {}

    def cover(self, table: RowTable, selection: Selection | None) -> None:
        first, last = self._n_covered, table.n
        if first == last:
            return
        if last > len(self._allowed):
            room = np.zeros(8 * ((len(table.keys) + 7) // 8), dtype=np.bool_)
            room[:first] = self._allowed[:first]
            self._allowed = room
            self._bits = np.packbits(room, bitorder="little")
            self._selectors = {}
        new = table.alive[first:last] & selected(table.documents[first:last], selection)
        self._allowed[first:last] = new
        n_new = int(np.count_nonzero(new))
        self.n += n_new
        # Selectors read these very bytes.
        self._bits[first // 8 : (last + 7) // 8] = np.packbits(
            self._allowed[first // 8 * 8 : (last + 7) // 8 * 8], bitorder="little"
        )
        self._n_covered = last
        self._positions = None

    def take_away(self, positions: Positions) -> None:
        covered = positions[positions < self._n_covered]
        gone = covered[self._allowed[covered]]
        if len(gone) == 0:
            return
        self._allowed[gone] = False
        self.n -= len(gone)
        np.bitwise_and.at(self._bits, gone >> 3, ~(np.uint8(1) << (gone & 7).astype(np.uint8)))
        self._positions = None

    def allows(self, positions: Positions) -> NDArray[np.bool_]:
        """For each position; False for -1."""
        allowed = self._allowed[positions]
        allowed[positions < 0] = False
        return allowed

    def positions(self) -> Positions:
        if self._positions is None:
            self._positions = np.flatnonzero(self._allowed[: self._n_covered])
        return self._positions

    def count(self, first: int, last: int) -> int:
        """How many of the positions `[first, last)` are allowed."""
        return int(np.count_nonzero(self._allowed[first:last]))

    def selector(self, first: int) -> Any:
        """Over positions counted from `first`, a multiple of 8. It follows the rows by itself."""
        if first not in self._selectors:
            self._selectors = {at: held for at, held in self._selectors.items() if at == 0}
            self._selectors[first] = self._faiss.IDSelectorBitmap(self._bits[first // 8 :])
        return self._selectors[first]


class Selections:
    """What each selection allows in one table, for as long as the selection lives.

    Told by its array, of which one object stands for one set of documents.
    """

    def __init__(self, table: RowTable) -> None:
        self._table = table
        self._everything = Allowed()
        self._held: dict[int, tuple[ref[NDArray[np.bool_]], Allowed]] = {}

    def allowed(self, selection: Selection | None) -> Allowed:
        allowed = self._everything if selection is None else self._of(selection)
        allowed.cover(self._table, selection)
        return allowed

    def _of(self, selection: Selection) -> Allowed:
        name = id(selection.documents)
        if name not in self._held:
            # Called before the array's memory, and with it the name, is given to another.
            forget = partial(self._forget, name)
            self._held[name] = (ref(selection.documents, forget), Allowed())
        return self._held[name][1]

    def _forget(self, name: int, _: object) -> None:
        self._held.pop(name, None)

    def take_away(self, positions: Positions) -> None:
        self._everything.take_away(positions)
        # A copy: selections may end in any thread.
        for _, allowed in list(self._held.values()):
            allowed.take_away(positions)

    def __len__(self) -> int:
        return len(self._held)


def selected(documents: NDArray[np.int64], selection: Selection | None) -> NDArray[np.bool_]:
    """For each row, by the number of its document."""
    if selection is None:
        return np.ones(len(documents), dtype=np.bool_)
    known = selection.documents
    if len(known) == 0:
        return np.zeros(len(documents), dtype=np.bool_)
    within: NDArray[np.bool_] = known[np.minimum(documents, len(known) - 1)]
    within &= documents < len(known)
    return within
