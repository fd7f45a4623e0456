"""`firstword bench`: the command line of the load tester. Imports nothing heavy until a bench is run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from loadtest import options

if TYPE_CHECKING:
    from loadtest.figures.document import Report
    from loadtest.order import Order

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_UNUSABLE = 2
EXIT_INTERRUPTED = 130

API_KEY_VARIABLES = ("FIRSTWORD_API_KEY", "OPENAI_API_KEY")

app = typer.Typer(
    help="Measure the time to first token of any OpenAI-compatible server. Begin with `firstword bench run`.",
    no_args_is_help=True,
)


@app.command()
def run(
    workload: options.WorkloadFile = None,
    url: options.Url = "http://127.0.0.1:8000/v1",
    model: options.Model = None,
    max_tokens: options.MaxTokens = None,
    body: options.Body = None,
    timeout: options.Timeout = 300.0,
    fresh_connections: options.FreshConnections = False,
    kind: options.Kind = "auto",
    synthetic: options.Synthetic = None,
    conversations: options.Conversations = None,
    popularity: options.Popularity = None,
    think: options.Think = None,
    type_ahead: options.TypeAheadWpm = None,
    seed: options.Seed = 0,
    concurrency: options.Concurrency = None,
    rate: options.Rate = None,
    find_rate: options.FindRate = False,
    arrivals: options.ArrivalsOption = "poisson",
    burstiness: options.Burstiness = 1.0,
    speed: options.Speed = 1.0,
    max_concurrency: options.MaxConcurrency = None,
    duration: options.Duration = None,
    warmup: options.Warmup = 0,
    warmup_seconds: options.WarmupSeconds = 0.0,
    processes: options.Processes = None,
    busy_poll: options.BusyPoll = False,
    slo: options.SloOption = None,
    goodput: options.Goodput = None,
    json_path: options.JsonFile = None,
    csv_path: options.CsvFile = None,
    html_path: options.HtmlFile = None,
) -> None:
    """Hold the workload's conversations with a server and measure every turn of them.

    Each turn waits for the reply before it. A turn's clock starts when it is due, whatever the client is doing then.

    An API key is read from FIRSTWORD_API_KEY or OPENAI_API_KEY.

    Exits with 0 if all is well, 1 if a bound of --slo was missed or, without --slo, a turn failed, 2 if nothing could be measured.
    """
    from loadtest.order import Order

    _check_files({"--json": json_path, "--csv": csv_path, "--html": html_path})
    order = Order(
        workload=workload,
        kind=kind,
        synthetic=synthetic,
        url=url,
        model=model,
        max_tokens=max_tokens,
        body=body,
        timeout_s=timeout,
        fresh_connections=fresh_connections,
        conversations=conversations,
        popularity=popularity,
        think=think,
        type_ahead_wpm=type_ahead,
        seed=seed,
        concurrency=concurrency,
        rate=rate,
        find_rate=find_rate,
        arrivals=arrivals,
        burstiness=burstiness,
        speed=speed,
        max_concurrency=max_concurrency,
        duration_s=duration,
        warmup=warmup,
        warmup_s=warmup_seconds,
        busy_poll=busy_poll,
        slo=slo,
        goodput=goodput,
    )
    report = _measure(order, processes)
    _write(report, json_path, csv_path, html_path)
    raise typer.Exit(_exit_code(report))


@app.command()
def report(
    document: Annotated[Path, typer.Argument(metavar="REPORT.json", help="What --json wrote.")],
    csv_path: options.CsvFile = None,
    html_path: options.HtmlFile = None,
) -> None:
    """Print a report that --json wrote, or make it a page (--html) or a table (--csv)."""
    from rich.console import Console

    from loadtest.errors import BenchError
    from loadtest.report.json_file import read_json
    from loadtest.report.tables import print_report

    _check_files({"--csv": csv_path, "--html": html_path})
    try:
        found = read_json(document)
    except BenchError as error:
        _give_up(str(error))
    if csv_path is None and html_path is None:
        print_report(found, Console())
    _write(found, None, csv_path, html_path)


@app.command()
def compare(
    baseline: Annotated[Path, typer.Argument(metavar="A.json", help="What --json wrote: the baseline.")],
    other: Annotated[Path, typer.Argument(metavar="B.json", help="What to hold against it.")],
) -> None:
    """Two runs side by side: B's figures as ratios to A's, with 95 % confidence."""
    from rich.console import Console

    from loadtest.errors import BenchError
    from loadtest.figures.compare import compare_reports
    from loadtest.report.comparison import print_comparison
    from loadtest.report.json_file import read_json

    try:
        comparison = compare_reports(read_json(baseline), read_json(other))
    except BenchError as error:
        _give_up(str(error))
    print_comparison(comparison, (baseline.name, other.name), Console())


def self_test(target_command: Sequence[str], seconds: float, busy_poll: bool) -> None:
    """Print how wrong this tool is, at 1 to 500 streams, against the target that `target_command` starts."""
    import asyncio

    from rich.console import Console

    from loadtest.errors import BenchError
    from loadtest.fleet import give_way
    from loadtest.report.self_test import print_self_test
    from loadtest.selftest import check

    console = Console()
    give_way()
    try:
        with console.status("checking against the simulated target"):
            checked = asyncio.run(
                check(
                    target_command,
                    seconds=seconds,
                    busy_poll=busy_poll,
                    on_level=lambda one: console.print(f"{one.level.streams} streams: {one.verdict}"),
                )
            )
    except BenchError as error:
        _give_up(str(error))
    print_self_test(checked, console)
    raise typer.Exit(EXIT_OK if all(one.is_honest for one in checked) else EXIT_FAILED)


def _measure(order: Order, processes: int | None) -> Report:
    """Run it under a live view. Ctrl-C ends it early, and what was measured is kept; the second time it ends at once."""
    import asyncio

    from rich.console import Console

    from loadtest.conduct import conduct
    from loadtest.errors import BenchError
    from loadtest.fleet import give_way
    from loadtest.order import take
    from loadtest.report.live import LiveView
    from loadtest.report.tables import print_report

    try:
        stages = take(order)
        for remark in stages.workload.remarks:
            typer.echo(remark, err=True)
        give_way()
        with LiveView() as view:
            report = asyncio.run(conduct(stages, _api_key(), processes, view, command=_command()))
    except BenchError as error:
        _give_up(str(error))
    print_report(report, Console())
    return report


def _write(report: Report, json_path: Path | None, csv_path: Path | None, html_path: Path | None) -> None:
    from loadtest.report.csv_file import write_csv
    from loadtest.report.html import write_html
    from loadtest.report.json_file import write_json

    outputs = (
        (json_path, "--json", write_json),
        (csv_path, "--csv", write_csv),
        (html_path, "--html", write_html),
    )
    for path, option, write in outputs:
        if path is None:
            continue
        try:
            write(report, path)
        except OSError as error:
            _give_up(f"{option} {path}: {error.strerror or error}. Free the disk or name another file.")
        typer.echo(f"Written: {path}")


def _exit_code(report: Report) -> int:
    """The last stage of a search misses on purpose; there the rate that was found counts."""
    if report.interrupted:
        return EXIT_INTERRUPTED
    if report.sweep is not None:
        return EXIT_OK if report.sweep.best_rate_per_s is not None else EXIT_FAILED
    if report.config.slo is not None:
        verdicts = [verdict.met for stage in report.stages for verdict in stage.verdicts]
        return EXIT_OK if all(verdicts) else EXIT_FAILED
    return EXIT_FAILED if any(stage.summary.failed for stage in report.stages) else EXIT_OK


def _check_files(paths: dict[str, Path | None]) -> None:
    """Before an hour is spent on what cannot be kept."""
    for option, path in paths.items():
        if path is not None and not (path.parent.is_dir() and not path.is_dir()):
            _give_up(f"{option} {path}: no file can be written there. Name a file in a folder that exists.")


def _command() -> str:
    import shlex

    return shlex.join(["firstword", *sys.argv[1:]])


def _api_key() -> str | None:
    """The first that is set. A key that no header can carry is refused without repeating it."""
    for variable in API_KEY_VARIABLES:
        key = os.environ.get(variable, "").strip()
        if not key:
            continue
        if not (key.isascii() and key.isprintable()):
            _give_up(f"{variable} holds characters that no API key can have. Set it to the key alone.")
        return key
    return None


def _give_up(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(EXIT_UNUSABLE)
