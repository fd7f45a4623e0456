"""The document as a file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from loadtest.errors import ReportError
from loadtest.figures.document import SCHEMA, Report, decode_report
from loadtest.report.partial_file import replacing


class _Schema(msgspec.Struct):
    schema: str


def write_json(report: Report, path: Path) -> None:
    """The whole document or, when the disk is full or forbids it (`OSError`), none of it."""
    with replacing(path) as file:
        file.write(msgspec.json.encode(report) + b"\n")


def read_json(path: Path) -> Report:
    """Raises `ReportError`."""
    try:
        data = path.read_bytes()
        found = msgspec.json.decode(data, type=_Schema).schema
        if found != SCHEMA:
            raise ReportError(
                f"{path} is a {found!r} document; this version reads {SCHEMA!r}. Measure again."
            )
        return decode_report(data)
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror or error}. Name a file that --json wrote.") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path} is no report ({error}). Name a file that --json wrote.") from error
