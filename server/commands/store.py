"""`firstword backup` and `firstword check`: a copy of the documents, and whether they are what was stored."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from retrieval.store.backup import backup
from retrieval.store.integrity import check
from retrieval.store.sqlite_store import SqliteStore
from server.errors import ConfigError
from server.knowledge import store_path
from server.settings import Settings


def back_up(settings: Settings, target: Path, console: Console) -> None:
    """Raises `ConfigError` when there is nothing to copy, `RetrievalError` when it fails; no half copy is left."""
    with Progress(TextColumn("copying"), BarColumn(), DownloadColumn(), console=console) as progress:
        task = progress.add_task("", total=None)
        backup(
            _existing(settings),
            target,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    console.print(
        f"{target} holds the documents, the uploaded files and the vectors. To restore it, stop the server and put it in "
        f"place of {store_path(settings)}, without its -wal and -shm files.",
        highlight=False,
    )


def check_store(settings: Settings, console: Console) -> int:
    """Returns the exit code: 0 when all is well."""
    with console.status("checking"):
        store = SqliteStore(_existing(settings))
        try:
            findings = check(store.connections)
        finally:
            store.close()
    for finding in findings:
        console.print(f"[red]wrong[/red] {finding}", highlight=False)
    if findings:
        console.print("  → restore a backup (`firstword backup` makes them), or ingest into a new store")
    else:
        console.print("the store is whole")
    return int(bool(findings))


def _existing(settings: Settings) -> Path:
    path = store_path(settings)
    if not path.exists():
        raise ConfigError(
            f"{path}: there is no store yet", next_step="start the server or run `firstword ingest` first"
        )
    return path
