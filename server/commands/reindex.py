"""`firstword reindex`: every chunk embedded anew with another model, beside the running server."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from retrieval.embed.spec import open_embedder
from retrieval.store.sqlite_store import SqliteStore
from retrieval.types import Embedder
from server.errors import ConfigError
from server.knowledge import embedder_spec, remember_embedder, store_path
from server.sections.section import STARTER
from server.settings import Settings

_BATCH = 64


def reindex_store(settings: Settings, model: str, *, abandon: bool, console: Console) -> None:
    """Goes on where an interrupted one ended. Raises `SetupError` or `RetrievalError`; the store serves as before then."""
    path = store_path(settings)
    if not path.exists():
        raise ConfigError(f"{path}: there is no store yet", next_step="run `firstword ingest` first")
    store = SqliteStore(path)
    try:
        if abandon:
            store.next_vectors.abandon()
            console.print("the reindex is given up; the store serves as before")
            return
        folder = "" if model == STARTER else str(Path(model).expanduser().resolve())
        with console.status("loading the new model"):
            own = settings.model_copy(
                update={"retrieval": settings.retrieval.model_copy(update={"embedder": STARTER})}
            )
            spec = embedder_spec(own, folder)
            embedder = open_embedder(spec)
        if not store.next_vectors.begin(embedder.identity, embedder.dim):
            console.print("the store holds vectors of this model already")
            return
        _embed(store, embedder, console)
        remember_embedder(settings, spec, embedder)
        while not store.next_vectors.finish(embedder.identity, embedder.dim):
            _embed(store, embedder, console)  # what was ingested meanwhile
    finally:
        store.close()
    console.print(
        f"reindexed. A running server takes the new vectors by itself; set [bold]retrieval.embedder[/bold] = "
        f'"{escape(model)}" before it is started again.',
        highlight=False,
        soft_wrap=True,
    )


def _embed(store: SqliteStore, embedder: Embedder, console: Console) -> None:
    columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=store.next_vectors.missing())
        above = -1
        while True:
            keys, texts = store.next_vectors.next_missing(_BATCH, above)
            if not keys:
                return
            store.next_vectors.put(embedder.identity, keys, embedder.embed(texts))
            above = keys[-1]
            progress.advance(task, len(keys))
