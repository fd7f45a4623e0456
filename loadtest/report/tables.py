"""What a person reads when a bench is over."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from loadtest.figures.document import Distribution, Interval, Report, Stage, Summary, Sweep, Verdict
from loadtest.report.cells import STATISTICS, cells, milliseconds, share

_UNKNOWN_PATH = " (this server offers no type-ahead)"
_DIFFERS = 1.05
"""From here on TTFT by the moment of sending is another story."""


def print_report(report: Report, console: Console) -> None:
    config = report.config
    console.print(Text(f"{config.model or 'no model'} at {config.url}, workload {config.workload}"))
    for stage in report.stages:
        _print_stage(stage, console)
    if len(report.stages) > 1:
        console.print(_stages_table(report))
    if report.sweep is not None:
        console.print(Text(_sweep_line(report.sweep), style="bold"))
    for note in _notes(report):
        console.print(Text(f"· {note}", style="dim"))


def _print_stage(stage: Stage, console: Console) -> None:
    summary = stage.summary
    console.print()
    console.print(Text(f"{stage.name}: {summary.turns} turns in {summary.duration_s:.1f} s", style="bold"))
    for warning in stage.client.warnings:
        console.print(
            Panel(Text(warning, style="bold"), border_style="red", title="look out", title_align="left")
        )
    if summary.ok:
        console.print(_ttft_table(summary))
        if said := _intervals(summary.ttft_ms):
            console.print(Text(f"  95 % sure: {said}", style="dim"), highlight=False)
        console.print(_other_table(stage))
        console.print(Text(_throughput(summary)), highlight=False)
    if summary.errors:
        console.print(_error_table(summary))
    for verdict in stage.verdicts:
        style, word = ("green", "met") if verdict.met else ("red", "MISSED")
        console.print(
            Text.assemble(
                "SLO ",
                verdict.bound,
                ": ",
                (word, style),
                f" ({_verdict_value(verdict)})",
            )
        )


def _ttft_table(summary: Summary) -> Table:
    table = _latency_table("Time to first token, ms", "turn", "cached")
    if len(summary.ttft_by_turn) > 1:
        for index in summary.ttft_by_turn:
            table.add_row(str(index.turn), *cells(index.ttft_ms), share(index.cached_share))
        table.add_section()
    ttft = summary.ttft_ms
    table.add_row("all", *cells(ttft), share(summary.cached_share), style="bold")
    sent = summary.sent_ttft_ms
    if ttft is not None and sent is not None and ttft.p50 > _DIFFERS * sent.p50:
        table.add_row("from sending", *cells(sent), "", style="dim")
    return table


def _other_table(stage: Stage) -> Table:
    summary, client = stage.summary, stage.client
    table = _latency_table("Other latencies, ms", "")
    table.add_row("first byte", *cells(summary.ttfb_ms))
    table.add_row("inter-token (ITL)", *cells(summary.itl_ms))
    table.add_row("per output token (TPOT)", *cells(summary.tpot_ms))
    table.add_row("end to end", *cells(summary.e2e_ms))
    if summary.server_ttft_ms is not None:
        table.add_row("TTFT by the server", *cells(summary.server_ttft_ms))
        table.add_row("TTFT client − server", *cells(summary.client_minus_server_ttft_ms))
    table.add_section()
    if client.held_ms is not None:
        table.add_row("waited for a slot", *cells(client.held_ms), style="dim")
    table.add_row("client's lateness", *cells(client.late_ms), style="dim")
    lag = client.loop_lag_ms if client.read_lag_ms is None else client.read_lag_ms
    name = "client's loop lag" if client.read_lag_ms is None else "bytes waited to be read"
    table.add_row(name, *cells(lag), style="dim")
    return table


def _error_table(summary: Summary) -> Table:
    table = Table(title="Failed turns", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("kind", "status", "turns", "for example"):
        table.add_column(name, justify="right" if name == "turns" else "left", overflow="fold")
    for error in summary.errors:
        # Text, because what a server says may look like markup.
        table.add_row(error.outcome, str(error.status or "–"), str(error.count), Text(error.example))
    return table


def _stages_table(report: Report) -> Table:
    table = Table(
        title="Stages, latencies in ms",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
    )
    names = (
        "stage",
        "turns",
        "TTFT p50",
        "TTFT p99",
        "ITL p99",
        "turns/s",
        "tokens/s",
        "errors",
        "refused",
        "SLO",
    )
    for name in names:
        table.add_column(name, justify="left" if name in ("stage", "SLO") else "right", no_wrap=True)
    for stage in report.stages:
        summary = stage.summary
        met = all(verdict.met for verdict in stage.verdicts)
        verdict = Text("–") if not stage.verdicts else Text("met", "green") if met else Text("missed", "red")
        table.add_row(
            stage.name,
            f"{summary.turns:,}",
            *(_statistic(summary.ttft_ms, name) for name in ("p50", "p99")),
            _statistic(summary.itl_ms, "p99"),
            _rate(summary.turns_per_s),
            _rate(summary.output_tokens_per_s),
            share(summary.error_rate),
            share(summary.refusal_rate),
            verdict,
        )
    return table


def _sweep_line(sweep: Sweep) -> str:
    if sweep.best_rate_per_s is None:
        return f"No rate that was tried met {sweep.slo}."
    beyond = (
        "" if sweep.first_missed_per_s is None else f"; {sweep.first_missed_per_s:.3g} per second missed it"
    )
    return f"{sweep.best_rate_per_s:.3g} conversations per second met {sweep.slo}{beyond}."


def _latency_table(title: str, first: str, *more: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(first)
    for name in (*STATISTICS, *more):
        table.add_column(name, justify="right")
    return table


def _intervals(values: Distribution | None) -> str:
    if values is None or values.p50_ci is None or values.p99_ci is None:
        return ""
    return f"p50 {_interval(values.p50_ci)}, p99 {_interval(values.p99_ci)}"


def _interval(interval: Interval) -> str:
    return f"{milliseconds(interval.low)} … {milliseconds(interval.high)}"


def _statistic(values: Distribution | None, name: str) -> str:
    return "–" if values is None else milliseconds(getattr(values, name))


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"


def _verdict_value(verdict: Verdict) -> str:
    if verdict.value is None:
        return "nothing was measured"
    unit = verdict.bound[len(verdict.bound.rstrip("abcdefghijklmnopqrstuvwxyzµ%/")) :]
    return f"{milliseconds(verdict.value)} {unit}".strip()


def _throughput(summary: Summary) -> str:
    said = f"{_rate(summary.turns_per_s)} turns/s, {_rate(summary.output_tokens_per_s)} output tokens/s"
    if summary.goodput_per_s is not None:
        said += f", goodput {_rate(summary.goodput_per_s)} turns/s ({share(summary.good_share)} of the turns)"
    return said


def _notes(report: Report) -> Iterator[str]:
    """What one must know to read the tables rightly."""
    summaries = [stage.summary for stage in report.stages]

    def total(name: str) -> int:
        return sum(getattr(summary, name) for summary in summaries)

    if report.interrupted:
        yield f"Interrupted: {total('unfinished')} turns that were under way are in no figure."
    if total("warmup_turns"):
        failed = f" ({total('warmup_failed')} of them failed)" if total("warmup_failed") else ""
        yield f"{total('warmup_turns')} warm-up turns{failed} are in no figure."
    else:
        yield "No warm-up: the first turns paid for whatever the server does once (--warmup N)."
    if total("failed"):
        yield f"{total('failed')} failed turns are in no latency; they stand under their kind."
    if total("not_sent"):
        yield f"{total('not_sent')} turns were never sent: a turn before them failed, or the time was over."
    if total("without_token"):
        yield f"{total('without_token')} turns ended without a single token and have no TTFT."
    if total("turns_counting_deltas"):
        yield f"{total('turns_counting_deltas')} turns sent no usage: their tokens are counted by deltas."
    for stage in report.stages:
        if stage.prewarms:
            counts = ", ".join(f"{n} × {status}" for status, n in stage.prewarms.items())
            yield f"{stage.name}: type-ahead requests by status: {counts}{_UNKNOWN_PATH if '404' in stage.prewarms else ''}."
    if any(summary.ttft_ms is not None and summary.ttft_ms.n < 100 for summary in summaries):
        yield "With fewer than 100 turns, p99 says little more than max."
    loops = {stage.loop for stage in report.stages}
    if "closed" in loops:
        yield "Closed loop: a server that slows down is asked less often. What users feel at a rate of arrivals: --rate."
    yield "A turn's clock starts when it is due. 95 %: bootstrap over whole conversations."
