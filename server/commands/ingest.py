"""`firstword ingest`: documents into the store, with progress."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from retrieval.ingest.files import IngestProgress, IngestReport
from retrieval.ingest.intake import Intake
from server.errors import ModelMissing
from server.knowledge import ingest_paths, make_embedder, make_preparer, open_store
from server.parts import chat_model, make_data_dir, uses_starter
from server.settings import Settings
from server.starter import starter_is_prepared

_COLUMNS = (
    TextColumn("[progress.description]{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeRemainingColumn(),
)


def ingest_with_progress(settings: Settings, paths: Sequence[Path], *, prune: bool, watch: bool) -> int:
    """Returns the exit code: 0 when every document is in, 1 when some are not (each is named).

    With `watch` it goes on until it is interrupted. Raises `SetupError` or `RetrievalError` when nothing can be
    ingested.
    """
    console = Console(stderr=True)
    with open_intake(settings, console) as intake:
        changes: Iterator[set[str]] = iter(())
        if watch:
            from server.commands.watch import changed_files

            changes = changed_files(paths)
            next(changes)
        code = _print_report(console, _ingest(settings, paths, intake, console, prune=prune or watch))
        if watch:
            console.print("watching for changes; end with Ctrl-C", style="dim")
            for changed in changes:
                report = _ingest(settings, paths, intake, console, prune=True, only=changed)
                if report.outcomes:
                    code = _print_report(console, report)
                if report.stopped:
                    break
    return code


@contextmanager
def open_intake(settings: Settings, console: Console) -> Iterator[Intake]:
    make_data_dir(settings)
    if uses_starter(settings) and not starter_is_prepared(settings.models_path):
        raise ModelMissing("the starter models are not prepared", next_step="run `firstword models prepare`")
    with console.status("loading the embedder"):
        from server.context.template import ChatTemplate

        preparer = make_preparer(settings, ChatTemplate(chat_model(settings)))
        embedder = make_embedder(settings)
        store = open_store(settings, embedder)
    try:
        yield Intake(preparer, embedder, store)
    finally:
        store.close()
        preparer.close()


def _ingest(
    settings: Settings,
    paths: Sequence[Path],
    intake: Intake,
    console: Console,
    *,
    prune: bool,
    only: Collection[str] | None = None,
) -> IngestReport:
    with Progress(*_COLUMNS, console=console, transient=only is not None) as progress:
        task = progress.add_task("ingesting", total=None)

        def on_progress(done: IngestProgress) -> None:
            progress.update(
                task, completed=done.n_done, total=done.n_files, description=escape(done.last.filename)
            )

        return ingest_paths(settings, paths, intake, on_progress=on_progress, prune=prune, only=only)


def _print_report(console: Console, report: IngestReport) -> int:
    for outcome in report.outcomes:
        if outcome.status == "failed":
            console.print(
                f"[red]not ingested[/red] {escape(outcome.reason or outcome.filename)}", highlight=False
            )
    console.print(
        f"{report.n_added} added, {report.n_updated} updated, {report.n_unchanged} unchanged, "
        f"{report.n_pruned} forgotten, {report.n_failed} failed; "
        f"{report.n_skipped} files of other kinds skipped; {report.n_chunks} chunks in {report.seconds:.1f} s",
        highlight=False,
    )
    if report.stopped:
        console.print(f"[red]stopped early[/red]: {escape(report.stopped)}", highlight=False)
    if not report.outcomes:
        console.print("there was nothing to ingest\n  → name files, or folders that hold documents")
    return int(bool(report.n_failed or report.stopped or not report.outcomes))
