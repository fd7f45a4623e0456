"""Rows of tables to lines of text, in the forms that the chunker keeps whole.

A narrow table is a line of column names and a line of values for each row, cells parted by ` | `; the chunker
repeats the first line in each chunk. The rows of a wide one name their values themselves and leave empty cells
out: `name: value | name: value`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from retrieval.parse.outline import Outline

WIDE_FROM_COLUMNS = 9
CELL_BREAK = " | "

_LONGEST_FIELD = 2**31 - 1
_DELIMITERS = ",;\t|"


def add_table(outline: Outline, rows: Iterable[Sequence[str]]) -> None:
    """The first row of two cells or more names the columns; what stands above it is a title."""
    names: list[str] = []
    n_lines = 0
    for row in rows:
        cells = [" ".join(cell.split()) for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        if not names:
            if sum(map(bool, cells)) < 2:
                outline.block(" ".join(filter(None, cells)))
                continue
            names = cells
            if len(names) >= WIDE_FROM_COLUMNS:
                continue
        if cells:
            line = CELL_BREAK.join(cells)
            if len(names) >= WIDE_FROM_COLUMNS:
                line = record(zip_longest(names, cells[: len(names)], fillvalue=""))
                line = CELL_BREAK.join(filter(None, [line, *cells[len(names) :]]))
            outline.block(line, tight=n_lines > 0)
            n_lines += 1
    if names and not n_lines:
        outline.block(CELL_BREAK.join(names))


def record(fields: Iterable[tuple[str, str]]) -> str:
    """One line that names its values."""
    return CELL_BREAK.join(f"{name}: {value}" if name else value for name, value in fields if value)


def read_csv(text: str, outline: Outline, *, tabs: bool) -> None:
    csv.field_size_limit(_LONGEST_FIELD)
    delimiter = "\t" if tabs else _delimiter(text)
    add_table(outline, csv.reader(io.StringIO(text), delimiter=delimiter))


def _delimiter(text: str) -> str:
    """The sign that parts the most cells in the first line that says anything."""
    first = next((line for line in text.split("\n", 20) if line.strip()), "")[:10_000]
    return max(_DELIMITERS, key=first.count)
