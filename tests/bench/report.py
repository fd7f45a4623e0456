"""The figures as tables: on the terminal, and as Markdown for `docs/performance.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.frames import Rendering
from bench.gateway import SWEEP_LIMIT
from bench.process import BENCH_DIR
from bench.summary import Row, SweepPoint

_STREAM_COLUMNS = (
    "gateway",
    "CPU µs per token",
    "to Firstword",
    "ITL p50",
    "ITL p99",
    "tokens/s",
    "keeps up",
    "complete",
)
_FIRST_TOKEN_COLUMNS = ("gateway", "TTFT p50 ms", "TTFT p99 ms", "added p50 ms", "added p99 ms", "complete")
_SWEEP_COLUMNS = ("streams", "tokens/s", "ITL p99", "CPU µs per token", f"p99 ≤ {SWEEP_LIMIT:g} intervals")
_FRAME_COLUMNS = ("rendering of one frame", "ns", "to Firstword")

_WIDTH = 110
_SHOWN = {
    "direct": "direct: the target itself",
    "firstword": "Firstword",
    "naive": "naive",
    "litellm": "LiteLLM",
}

Lines = list[tuple[str, ...]]


class Sheet:
    """One table, wherever it is shown."""

    def __init__(self, title: str, columns: Sequence[str], lines: Lines) -> None:
        self.title, self.columns, self.lines = title, columns, lines

    def rich(self) -> Table:
        table = Table(title=self.title, title_justify="left", title_style="bold")
        for column in self.columns:
            table.add_column(column, justify="left" if column == self.columns[0] else "right")
        for line in self.lines:
            table.add_row(*line)
        return table

    def markdown(self) -> str:
        head = f"| {' | '.join(self.columns)} |\n|{' --- |' * len(self.columns)}\n"
        return f"**{self.title}**\n\n{head}" + "".join(f"| {' | '.join(line)} |\n" for line in self.lines)


def sheets(rows: Sequence[Row], sweep: Sequence[SweepPoint], renderings: Sequence[Rendering]) -> list[Sheet]:
    found = []
    for level, group in groupby(rows, lambda row: row.level):
        at_level = list(group)
        if level.startswith("first token"):
            found.append(Sheet(level, _FIRST_TOKEN_COLUMNS, [_first_token_line(row) for row in at_level]))
        else:
            found.append(
                Sheet(_demand(at_level[0]), _STREAM_COLUMNS, [_stream_line(row) for row in at_level])
            )
    if sweep:
        best = max((point.tokens_per_s for point in sweep if point.holds), default=None)
        title = f"one Firstword process sustains {number(best)} tokens/s"
        found.append(Sheet(title, _SWEEP_COLUMNS, [_sweep_line(point) for point in sweep]))
    if renderings:
        ours = renderings[0].ns
        lines: Lines = [(item.name, f"{item.ns:.0f}", f"{item.ns / ours:.1f}×") for item in renderings]
        found.append(Sheet("rendering", _FRAME_COLUMNS, lines))
    return found


def open_console() -> Console:
    """Wide enough for the tables where the output is no terminal."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH)


def show(console: Console, found: Iterable[Sheet], conditions: dict[str, Any]) -> None:
    for sheet in found:
        console.print(sheet.rich())
    for name, value in conditions.items():
        console.print(f"[dim]{name}: {value}[/dim]", highlight=False)


def markdown(found: Iterable[Sheet], conditions: dict[str, Any]) -> str:
    facts = "".join(f"- {name}: {value}\n" for name, value in conditions.items())
    return "\n".join([*(sheet.markdown() for sheet in found), facts])


def keep(name: str, found: Iterable[Sheet], conditions: dict[str, Any]) -> None:
    """As Markdown, in the folder of what was measured."""
    BENCH_DIR.mkdir(parents=True, exist_ok=True)
    (BENCH_DIR / f"{name}.md").write_text(markdown(found, conditions), encoding="utf-8")


def number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _demand(row: Row) -> str:
    return f"{row.level} = {row.streams * row.rate_per_s:,.0f} tokens/s asked for"


def _stream_line(row: Row) -> tuple[str, ...]:
    ratio = "–" if row.cpu_ratio is None else f"{row.cpu_ratio:.1f}×"
    return (
        _SHOWN[row.contestant],
        number(row.cpu_us_per_token, 1),
        ratio,
        number(row.itl_p50, 2),
        number(row.itl_p99, 2),
        number(row.tokens_per_s),
        "yes" if row.kept_up else "no",
        f"{row.complete}/{row.turns}",
    )


def _first_token_line(row: Row) -> tuple[str, ...]:
    times = (row.ttft_p50_ms, row.ttft_p99_ms, row.added_p50_ms, row.added_p99_ms)
    return (_SHOWN[row.contestant], *(number(value, 2) for value in times), f"{row.complete}/{row.turns}")


def _sweep_line(point: SweepPoint) -> tuple[str, ...]:
    return (
        str(point.streams),
        number(point.tokens_per_s),
        number(point.itl_p99, 2),
        number(point.cpu_us_per_token, 1),
        "yes" if point.holds else "no",
    )
