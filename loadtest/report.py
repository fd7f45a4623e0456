"""What a person reads: progress while a bench runs, tables and notes when it is over."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from loadtest.measure import TurnResult
from loadtest.run import Plan
from loadtest.summary import Distribution, Report, Summary

_STATISTICS = ("n", "mean", "p50", "p90", "p99", "max")


class LiveProgress:
    """A progress bar on standard error that counts turns, failures and the last TTFT. Use as a context manager."""

    def __init__(self, plan: Plan) -> None:
        self._bar = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("turns"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[state]}"),
            console=Console(stderr=True),
            refresh_per_second=2,  # drawing takes the interpreter from the streams that are being measured
        )
        self._warmup = self._bar.add_task(
            "warm-up", total=plan.warmup_turns, state="", visible=bool(plan.warmup)
        )
        self._measured = self._bar.add_task("measured", total=plan.measured_turns, state="", start=False)
        self._failed = {self._warmup: 0, self._measured: 0}

    def __enter__(self) -> LiveProgress:
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()

    def on_turn(self, turn: TurnResult) -> None:
        task = self._warmup if turn.warmup else self._measured
        self._failed[task] += turn.outcome != "ok"
        last = "" if turn.ttft_ms is None else f"last TTFT {turn.ttft_ms:,.0f} ms"
        failed = f"  {self._failed[task]} failed" if self._failed[task] else ""
        if not turn.warmup:
            self._bar.start_task(task)
        self._bar.update(task, advance=1, state=last + failed)


def print_report(report: Report, console: Console) -> None:
    config, summary = report.config, report.summary
    console.print(
        Text(
            f"{config.model or 'no model yet'} at {config.url}: {summary.turns} turns of {config.conversations} conversations, "
            f"{config.concurrency} at a time, in {summary.duration_s:.1f} s"
        )
    )
    if summary.ok:
        console.print(_ttft_table(summary))
        console.print(_other_table(summary))
        if summary.output_tokens_per_s is not None:
            console.print(
                f"{summary.output_tokens_per_s:,.1f} output tokens/s over all streams ({summary.output_tokens:,} tokens)"
            )
    if summary.errors:
        console.print(_error_table(summary))
    for note in _notes(report):
        console.print(Text(f"· {note}", style="dim"))


def _ttft_table(summary: Summary) -> Table:
    table = _latency_table("Time to first token, ms", "turn", "cached")
    for index in summary.ttft_by_turn:
        table.add_row(str(index.turn), *_cells(index.ttft_ms), _share(index.cached_share))
    table.add_section()
    table.add_row("all", *_cells(summary.ttft_ms), _share(summary.cached_share), style="bold")
    return table


def _other_table(summary: Summary) -> Table:
    table = _latency_table("Other latencies, ms", "")
    table.add_row("first byte", *_cells(summary.ttfb_ms))
    table.add_row("inter-token (ITL)", *_cells(summary.itl_ms))
    table.add_row("end to end", *_cells(summary.e2e_ms))
    if summary.server_ttft_ms is not None:
        table.add_row("TTFT by the server", *_cells(summary.server_ttft_ms))
        table.add_row("TTFT client − server", *_cells(summary.client_minus_server_ttft_ms))
    return table


def _error_table(summary: Summary) -> Table:
    table = Table(title="Failed turns", title_justify="left")
    for name in ("kind", "status", "turns", "for example"):
        table.add_column(name, justify="right" if name == "turns" else "left", overflow="fold")
    for error in summary.errors:
        # Text, because what a server says may look like markup.
        table.add_row(error.outcome, str(error.status or "–"), str(error.count), Text(error.example))
    return table


def _latency_table(title: str, first: str, *more: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for name in (*_STATISTICS, *more):
        table.add_column(name, justify="right")
    return table


def _cells(values: Distribution | None) -> list[str]:
    if values is None:
        return ["0", *["–"] * (len(_STATISTICS) - 1)]
    return [f"{values.n:,}", *(_milliseconds(getattr(values, name)) for name in _STATISTICS[1:])]


def _milliseconds(value: float) -> str:
    """Three digits or more: 0.42, 4.21, 42.1, 421, 4,210."""
    size = abs(value)
    return f"{value:,.{2 if size < 10 else 1 if size < 100 else 0}f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _notes(report: Report) -> Iterator[str]:
    """What one must know to read the tables rightly."""
    summary, config = report.summary, report.config
    if report.interrupted:
        yield "Interrupted: turns that were under way are not counted."
    if config.warmup_conversations:
        failed = f" ({summary.warmup_failed} of them failed)" if summary.warmup_failed else ""
        yield f"{summary.warmup_turns} warm-up turns{failed} are in no figure."
    else:
        yield "No warm-up: the first turns paid for whatever the server does once (--warmup N)."
    if summary.failed:
        yield f"{summary.failed} failed turns are in no latency; they stand under their kind."
    if summary.not_sent:
        yield f"{summary.not_sent} turns were never sent: a turn before them failed, or the run was interrupted."
    if summary.without_token:
        yield f"{summary.without_token} turns ended without a single token and have no TTFT."
    if summary.turns_counting_deltas:
        yield f"{summary.turns_counting_deltas} turns sent no usage: their tokens are counted by deltas."
    if config.conversations < config.concurrency:
        yield f"Only {config.conversations} conversations: never {config.concurrency} at a time."
    if summary.ttft_ms is not None and summary.ttft_ms.n < 100:
        yield "With fewer than 100 turns, p99 says little more than max."
    yield "Closed loop. A turn's clock starts when it is due. Percentiles are exact, linear between ranks."
