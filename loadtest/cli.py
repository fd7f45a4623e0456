"""`firstword bench`: the command line of the load tester. Imports nothing heavy until a bench is run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from loadtest.run import Plan, Run

EXIT_OK = 0
EXIT_TURNS_FAILED = 1
EXIT_UNUSABLE = 2
EXIT_INTERRUPTED = 130

API_KEY_VARIABLES = ("FIRSTWORD_API_KEY", "OPENAI_API_KEY")


def bench(
    workload: Annotated[
        Path,
        typer.Argument(
            metavar="WORKLOAD",
            help="Questions (.txt, one per line) or conversations (.jsonl).",
            show_default=False,
        ),
    ],
    url: Annotated[
        str, typer.Option(help="The server, up to where /chat/completions follows.")
    ] = "http://127.0.0.1:8000/v1",
    model: Annotated[
        str | None, typer.Option(help="The model to ask for; else the first that the server lists.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Conversations held at a time.")] = 1,
    conversations: Annotated[
        int | None, typer.Option(min=1, help="Measure only so many conversations of the workload.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest reply to ask for; else the server's own limit.")
    ] = None,
    warmup: Annotated[
        int, typer.Option(min=0, help="Hold the first so many conversations without measuring them.")
    ] = 0,
    timeout: Annotated[
        float, typer.Option(min=0.001, max=86_400, help="Seconds a whole turn may take.")
    ] = 300.0,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Also write every turn and the summary to this file.")
    ] = None,
) -> None:
    """Measure the time to first token of any OpenAI-compatible server, turn by turn.

    Holds the workload's conversations, --concurrency at a time; each turn waits for the reply before it. An API key is
    read from FIRSTWORD_API_KEY or OPENAI_API_KEY. Exits with 0 if every turn ended well, 1 if some failed (the table
    says how), 2 if nothing could be measured.
    """
    from loadtest.client import check_url
    from loadtest.errors import BenchError
    from loadtest.run import Plan, Run
    from loadtest.workload import read_workload

    try:
        target_url = check_url(url)
        held = read_workload(workload)
    except BenchError as error:
        _give_up(str(error))
    if json_path is not None and not (json_path.parent.is_dir() and not json_path.is_dir()):
        _give_up(f"--json {json_path}: no file can be written there. Name a file in a folder that exists.")
    if warmup >= len(held):
        _give_up(
            f"--warmup {warmup} leaves nothing to measure of {workload}, which holds {len(held)}. Lower it to {len(held) - 1}."
        )
    end = None if conversations is None else warmup + conversations
    plan = Plan(
        url=target_url,
        model=model,
        api_key=_api_key(),
        workload=str(workload),
        warmup=held[:warmup],
        measured=held[warmup:end],
        concurrency=concurrency,
        max_tokens=max_tokens,
        timeout_s=timeout,
    )
    run = Run(plan)
    interrupted = _execute(run, plan)
    _report(run, json_path)
    if interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    failed = any(turn.outcome != "ok" for turn in run.turns if not turn.warmup)
    raise typer.Exit(EXIT_TURNS_FAILED if failed else EXIT_OK)


def _execute(run: Run, plan: Plan) -> bool:
    """Run it under a progress bar. True if the user interrupted it; the turns so far are kept."""
    import uvloop

    from loadtest.errors import BenchError
    from loadtest.report import LiveProgress
    from loadtest.run import execute

    try:
        with LiveProgress(plan) as progress:
            uvloop.run(execute(run, progress.on_turn))
    except BenchError as error:
        _give_up(str(error))
    except KeyboardInterrupt:
        return True
    return False


def _report(run: Run, json_path: Path | None) -> None:
    from rich.console import Console

    from loadtest.report import print_report
    from loadtest.summary import report_of, write_json

    report = report_of(run)
    print_report(report, Console())
    if json_path is None:
        return
    try:
        write_json(report, json_path)
    except OSError as error:
        _give_up(f"--json {json_path}: {error.strerror or error}. Free the disk or name another file.")
    typer.echo(f"Every turn is in {json_path}.")


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
