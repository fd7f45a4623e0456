"""What a person reads at the end of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtest.figures.document import Interval
from loadtest.report.cells import milliseconds, share
from server.evaluation.figures import BASE, PARTS, Estimate, Part, Summary
from server.evaluation.report import Report

_ROWS = {
    "ttft_mean_ms": "TTFT mean, ms",
    "ttft_p50_ms": "TTFT p50, ms",
    "ttft_p95_ms": "TTFT p95, ms",
    "prefill_mean_ms": "prefill, ms",
    "prompt_tokens": "prompt, tokens",
    "computed_tokens": "computed, tokens",
    "ahead_tokens": "ahead, tokens",
    "cached_share": "from the cache",
    "tpot_ms": "TPOT, ms",
    "f1": "token F1",
    "containment": "containment",
    "source_precision": "sources relevant",
    "source_recall": "relevant found",
    "names_relevant": "relevant named",
}
_FIRST_OF_ANSWERS = "f1"
_SHARES = {"cached_share", "f1", "containment", "source_precision", "source_recall", "names_relevant"}
_COUNTS = {"prompt_tokens", "computed_tokens", "ahead_tokens"}
_MOST_FAILURES = 8


def print_report(report: Report, console: Console) -> None:
    for part in PARTS:
        rows = [summary for summary in report.summaries if summary.part == part]
        if rows and part != "all turns":
            console.print(_part_table(part, rows))
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


def _part_table(part: Part, rows: list[Summary]) -> Table:
    """The usual layout's values with their intervals; the others' with how they compare with it."""
    title = f"{part}: {rows[0].turns} turns of {rows[0].conversations} conversations in every mode"
    table = _table(title, "", *(row.mode for row in rows))
    for name, head in _ROWS.items():
        if name == _FIRST_OF_ANSWERS:
            table.add_section()
        estimates = [row.measures.get(name) for row in rows]
        known = [estimate.n for estimate in estimates if estimate is not None]
        if not known or (name == "ahead_tokens" and not any(found and found.value for found in estimates)):
            continue
        label = Text(head)
        if min(known) < rows[0].turns:
            label.append(f"\nof {min(known)} turns", "dim")
        table.add_row(label, *(_cell(name, estimate) for estimate in estimates))
    return table


def _turn_table(report: Report) -> Table:
    modes = [mode for mode in report.order.modes if any(row.mode == mode for row in report.by_turn)]
    table = _table("TTFT p50, ms, by turn", "turn", "n", *modes)
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
    if estimate.difference is None:
        lines += _range(estimate.ci, lambda found: value(name, found))
    elif name in _SHARES:
        lines.append(f"{_points(estimate.difference)} pts")
        lines += _range(estimate.difference_ci, _points)
    elif estimate.ratio is not None:
        lines.append(f"×{estimate.ratio:.2f}")
        lines += _range(estimate.ratio_ci, lambda found: f"{found:.2f}")
    return Text.assemble(lines[0], ("".join(f"\n{line}" for line in lines[1:]), "dim"), justify="right")


def _points(share: float) -> str:
    return f"{share * 100:+.1f}"


def _range(ci: Interval | None, shown: Callable[[float], str]) -> list[str]:
    return [] if ci is None else [f"{shown(ci.low)}…{shown(ci.high)}"]


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
    if report.prewarms:
        counts = ", ".join(f"{n} {what}" for what, n in report.prewarms.items())
        yield f"Calls to prewarm: {counts}."
    if not report.summaries:
        yield "No turn was finished, so there is no figure."
    elif all(summary.conversations < 10 for summary in report.summaries):
        yield "Fewer than ten conversations: no intervals."
    else:
        yield f"Below a value its 95 % interval, or how it compares with {BASE} and that with its interval."
        yield "Intervals: bootstrap over whole conversations, the same ones in every mode."
    yield "Token F1 and containment compare words with a reference; they do not know what is true."


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for at, head in enumerate(heads):
        left = at == 0 or head == "error"
        table.add_column(head, justify="left" if left else "right", no_wrap=at == 0, overflow="fold")
    return table
