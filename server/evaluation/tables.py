"""What a person reads at the end of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtest.figures.document import Interval
from loadtest.report.cells import milliseconds, share
from server.evaluation.figures import BASE, PARTS, Estimate, Part, Summary
from server.evaluation.report import Report

_COST = {
    "ttft_mean_ms": "TTFT mean",
    "ttft_p50_ms": "TTFT p50",
    "ttft_p95_ms": "TTFT p95",
    "prompt_tokens": "prompt tokens",
    "computed_tokens": "computed",
    "cached_share": "cached",
    "tpot_ms": "TPOT",
}
_QUALITY = {
    "f1": "token F1",
    "containment": "containment",
    "source_precision": "sources relevant",
    "source_recall": "relevant found",
    "names_relevant": "names one",
}
_SHARES = {"cached_share", "f1", "containment", "source_precision", "source_recall", "names_relevant"}
_COUNTS = {"prompt_tokens", "computed_tokens"}
_MOST_FAILURES = 8


def print_report(report: Report, console: Console) -> None:
    for part in PARTS:
        rows = [summary for summary in report.summaries if summary.part == part]
        if rows and not (part == "all turns" and len({row.part for row in report.summaries}) == 2):
            console.print(_cost_table(part, rows))
    for part in PARTS:
        rows = [summary for summary in report.summaries if summary.part == part]
        if rows:
            console.print(_quality_table(part, rows))
    if report.by_turn:
        console.print(_turn_table(report))
    if report.failures:
        console.print(_failure_table(report))
    for note in _notes(report):
        console.print(Text(f"· {note}", style="dim"))


def value(name: str, found: float) -> str:
    if name in _SHARES:
        return share(found)
    return f"{found:,.0f}" if name in _COUNTS else milliseconds(found)


def _cost_table(part: Part, rows: list[Summary]) -> Table:
    """Each value with its 95 % interval; below it, the ratio to the usual layout with its own."""
    table = _table(
        f"{part}: cost, times in ms; below, as a ratio to {BASE}", "mode", "turns", *_COST.values()
    )
    for row in rows:
        estimates = [row.measures.get(name) for name in _COST]
        table.add_row(
            row.mode,
            str(row.turns),
            *(_cell(name, estimate) for name, estimate in zip(_COST, estimates, strict=True)),
        )
    return table


def _quality_table(part: Part, rows: list[Summary]) -> Table:
    table = _table(
        f"{part}: answers; below, the difference to {BASE}", "mode", "turns", *_QUALITY.values(), "of turns"
    )
    for row in rows:
        estimates = {name: row.measures.get(name) for name in _QUALITY}
        known = estimates["source_recall"]
        table.add_row(
            row.mode,
            str(row.turns),
            *(_cell(name, estimate) for name, estimate in estimates.items()),
            "0" if known is None else str(known.n),
        )
    return table


def _turn_table(report: Report) -> Table:
    modes = [mode for mode in report.order.modes if any(row.mode == mode for row in report.by_turn)]
    table = _table("TTFT p50 by turn, ms; below, the share from the cache", "turn", "n", *modes)
    for number in sorted({row.turn for row in report.by_turn}):
        rows = {row.mode: row for row in report.by_turn if row.turn == number}
        cells = []
        for mode in modes:
            measures = rows[mode].measures
            ttft, cached = measures["ttft_p50_ms"], measures["cached_share"]
            cells.append(
                Text.assemble(milliseconds(ttft.value), "\n", (share(cached.value), "dim"), justify="right")
            )
        table.add_row(str(number), str(next(iter(rows.values())).n), *cells)
    return table


def _cell(name: str, estimate: Estimate | None) -> Text:
    if estimate is None:
        return Text("–", justify="right")
    lines = [value(name, estimate.value)]
    if estimate.ci is not None:
        lines.append(f"{value(name, estimate.ci.low)} … {value(name, estimate.ci.high)}")
    if name in _SHARES:
        if estimate.difference is not None:
            lines.append(f"{estimate.difference * 100:+.1f} points{_points(estimate.difference_ci)}")
    elif estimate.ratio is not None:
        lines.append(f"×{estimate.ratio:.2f}{_times(estimate.ratio_ci)}")
    return Text.assemble(lines[0], ("".join(f"\n{line}" for line in lines[1:]), "dim"), justify="right")


def _points(ci: Interval | None) -> str:
    return "" if ci is None else f" ({ci.low * 100:+.1f} … {ci.high * 100:+.1f})"


def _times(ci: Interval | None) -> str:
    return "" if ci is None else f" ({ci.low:.2f} … {ci.high:.2f})"


def _failure_table(report: Report) -> Table:
    table = _table("Conversations that failed", "mode", "turn", "conversation", "error")
    for failure in report.failures[:_MOST_FAILURES]:
        table.add_row(failure.mode, str(failure.turn), failure.conversation, Text(failure.error))
    if (more := len(report.failures) - _MOST_FAILURES) > 0:
        table.add_row("", "", "", f"and {more} more")
    return table


def _notes(report: Report) -> Iterator[str]:
    conditions = report.conditions
    yield f"{conditions.model}, {conditions.engine}, on {conditions.device or conditions.machine}."
    if report.interrupted:
        yield "Interrupted: what was done by then is in the figures."
    if report.failures:
        yield f"{len(report.failures)} conversations broke off in one mode; their turns before that count."
    if report.left_out:
        yield f"{report.left_out} turns are in no figure: another mode has not finished the same turn."
    if report.prewarms.keys() - {"started"}:
        counts = ", ".join(f"{n} {what}" for what, n in report.prewarms.items())
        yield f"Not every call to prewarm was taken: {counts}."
    if not report.summaries:
        yield "No turn was finished, so there is no figure."
    elif all(summary.conversations < 10 for summary in report.summaries):
        yield "Fewer than ten conversations: no intervals."
    else:
        yield "Intervals: 95 %, bootstrap over whole conversations, the same ones in every mode."
    yield "Token F1 and containment compare words with a reference; they do not know what is true."


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for at, head in enumerate(heads):
        table.add_column(head, justify="left" if at == 0 or head == "error" else "right", overflow="fold")
    return table
