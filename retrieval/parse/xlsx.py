"""Excel workbooks: a section for each visible sheet, a line for each row, values as they were last computed."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, time
from typing import Any

from retrieval.errors import DocumentTooLarge
from retrieval.parse.archive import open_archive, require_no_entities
from retrieval.parse.limits import ParseLimits
from retrieval.parse.outline import Outline
from retrieval.parse.rows import add_table

_MIDNIGHT = time()


def read_xlsx(data: bytes, outline: Outline, limits: ParseLimits) -> str:
    """Fill the outline; the return is empty."""
    with open_archive(data, limits) as archive:
        require_no_entities(archive)
    from openpyxl import load_workbook

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and extensions, which no reader of the text sees
        with closing(load_workbook(io.BytesIO(data), read_only=True, data_only=True)) as workbook:
            sheets = [sheet for sheet in workbook.worksheets if sheet.sheet_state == "visible"]
            if len(sheets) > limits.max_pages:
                raise DocumentTooLarge(
                    f"{len(sheets)} sheets, above the limit of {limits.max_pages}; split it or raise the limit"
                )
            for sheet in sheets:
                # What a sheet says of its own size may be wrong, and pads each row.
                sheet.reset_dimensions()
                outline.heading(1, sheet.title)
                add_table(outline, _rows(sheet))
    return ""


def _rows(sheet: Any) -> Iterator[list[str]]:
    for row in sheet.iter_rows(values_only=True):
        yield [_text(value) for value in row]


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case float():
            return f"{value:.12g}"  # as the sheet shows it: 0.1 + 0.2 is 0.3
        case datetime():
            return value.date().isoformat() if value.time() == _MIDNIGHT else value.isoformat(" ", "minutes")
        case date():
            return value.isoformat()
        case _:
            return str(value)
