"""Every turn as a row of a spreadsheet: warm-up and failed turns too.

RFC 4180, UTF-8, a header, `COLUMNS` in that order for good: new ones come at the end. An empty cell says null.
Durations in milliseconds end in `_ms`, in seconds in `_s`. Percentiles of the gaps are exact, linear between the two
closest ranks. Errors: `OSError` from the disk.

Text that a server or a workload chose may look like a formula to a spreadsheet, which then computes it. Such a cell
starts with an apostrophe here (OWASP, "CSV Injection").
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from loadtest.figures.document import Report, Stage
from loadtest.figures.turn_result import TurnResult
from loadtest.report.partial_file import replacing

COLUMNS = (
    "stage",
    "conversation_id",
    "holding",
    "turn",
    "request_id",
    "warmup",
    "outcome",
    "status",
    "detail",
    "due_s",
    "held_ms",
    "late_ms",
    "connect_ms",
    "ttfb_ms",
    "ttft_ms",
    "sent_ttft_ms",
    "e2e_ms",
    "tpot_ms",
    "itl_count",
    "itl_mean_ms",
    "itl_p50_ms",
    "itl_p99_ms",
    "itl_max_ms",
    "output_tokens",
    "output_tokens_from",
    "finish_reason",
    "prompt_tokens",
    "cached_tokens",
    "server_source",
    "server_ttft_ms",
)

_STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

Cell = str | int | float | None


def write_csv(report: Report, path: Path) -> None:
    """One row for each turn, stage after stage, in the order of the document."""
    with replacing(path) as file:
        # A lone surrogate can be in a name, and in no UTF-8.
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        rows = csv.writer(text)
        rows.writerow(COLUMNS)
        for stage in report.stages:
            rows.writerows(_row(stage, turn) for turn in stage.turns)
        text.flush()
        text.detach()


def _row(stage: Stage, turn: TurnResult) -> list[Cell]:
    server = turn.server
    return [
        _text(stage.name),
        _text(turn.conversation_id),
        turn.holding,
        turn.turn,
        _text(turn.request_id),
        "true" if turn.warmup else "false",
        turn.outcome,
        turn.status,
        _text(turn.detail),
        _number(turn.due_s),
        _number(turn.held_ms),
        _number(turn.late_ms),
        _number(turn.connect_ms),
        _number(turn.ttfb_ms),
        _number(turn.ttft_ms),
        _number(turn.sent_ttft_ms),
        _number(turn.e2e_ms),
        _number(turn.tpot_ms),
        *_gaps(turn.itl_us),
        turn.output_tokens,
        turn.output_tokens_from,
        _text(turn.finish_reason),
        turn.prompt_tokens,
        turn.cached_tokens,
        None if server is None else server.source,
        None if server is None else _number(server.ttft_ms),
    ]


def _gaps(itl_us: Sequence[int]) -> list[Cell]:
    """Count, mean, p50, p99 and maximum."""
    if not itl_us:
        return [0, None, None, None, None]
    p50_us, p99_us = np.percentile(itl_us, (50, 99))
    of_us = (sum(itl_us) / len(itl_us), float(p50_us), float(p99_us), max(itl_us))
    return [len(itl_us), *(_number(us / 1_000) for us in of_us)]


def _number(value: float | None) -> float | None:
    """Without the digits that a binary fraction drags along: a nanosecond is below every clock here."""
    return None if value is None else round(value, 6)


def _text(value: str | None) -> str | None:
    return f"'{value}" if value is not None and value.startswith(_STARTS_A_FORMULA) else value
