"""Pages of a table whose rows have a growing `seq`: newest or oldest first, from an id on."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from retrieval.errors import NotHere
from retrieval.file_types import Page


@dataclass(frozen=True, slots=True)
class Listing:
    """`kind` names an entry in errors, `id_column` holds the ids that pages are asked for by."""

    table: str
    columns: str
    id_column: str
    kind: str

    def page(
        self,
        db: sqlite3.Connection,
        page: Page,
        within: tuple[str, tuple[object, ...]],
        only: tuple[str, tuple[object, ...]] = ("1", ()),
    ) -> tuple[list[Any], bool]:
        """Rows, and whether there are more in the direction that was asked for.

        `within` and `only` are conditions with their values; the first value of `within` is the owner of the
        list. An entry that `only` leaves out is a good place to go on from all the same, and so is one that
        was deleted: either may have changed since it was listed. Raises `NotHere` for other ids.
        """
        conditions = [within[0], only[0]]
        values = [*within[1], *only[1]]
        behind, ahead = ("<", ">") if page.newest_first else (">", "<")
        for id_, side in ((page.after, behind), (page.before, ahead)):
            if id_:
                conditions.append(f"seq {side} ?")
                values.append(self._seq(db, id_, within))
        backward = bool(page.before) and not page.after
        order = "DESC" if page.newest_first != backward else "ASC"
        rows = db.execute(
            f"SELECT {self.columns} FROM {self.table} WHERE {' AND '.join(conditions)} "  # noqa: S608
            f"ORDER BY seq {order} LIMIT ?",
            (*values, page.limit + 1),
        ).fetchall()
        more = len(rows) > page.limit
        del rows[page.limit :]
        return (rows[::-1] if backward else rows), more

    def _seq(self, db: sqlite3.Connection, id_: str, within: tuple[str, tuple[object, ...]]) -> int:
        row = db.execute(
            f"SELECT seq FROM {self.table} WHERE {self.id_column} = ? AND {within[0]}",  # noqa: S608
            (id_, *within[1]),
        ).fetchone()
        if row is None:
            row = db.execute(
                "SELECT seq FROM departed WHERE owner = ? AND id = ? AND kind = ? ORDER BY place DESC LIMIT 1",
                (within[1][0], id_, self.table),
            ).fetchone()
        if row is None:
            raise NotHere(self.kind, id_)
        return int(row[0])
