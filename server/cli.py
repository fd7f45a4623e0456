"""The command `firstword`. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loadtest.cli import app as bench_app
from loadtest.cli import self_test
from server.commands.target import target
from server.evaluation.cli import app as eval_app

if TYPE_CHECKING:
    from server.settings import Settings

app = typer.Typer(
    help="A streaming chat server that answers from your documents. Begin with `firstword serve`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="The starter models.", no_args_is_help=True)
config_app = typer.Typer(help="The configuration.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(config_app, name="config")
app.add_typer(bench_app, name="bench")
app.add_typer(eval_app, name="eval")
bench_app.command("target")(target)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="CONFIG", help="TOML file; default: configs/default.toml"),
]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    config: ConfigOption = None,
) -> None:
    """Start the server; it prepares models and sample knowledge when they are missing."""
    settings = _settings(config, {"http.host": host, "http.port": port})
    from rich.console import Console

    from server.commands.serve import configure_logging
    from server.commands.serve import serve as run

    configure_logging(settings.telemetry.log_level)
    run(settings, Console(stderr=True))


@app.command()
def ingest(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Files and folders: PDF, Office, EPUB, HTML, Markdown, text, tables, source code."
        ),
    ],
    prune: Annotated[
        bool, typer.Option(help="Forget documents of these folders whose files are gone.")
    ] = False,
    watch: Annotated[
        bool, typer.Option(help="Go on, and follow every change; files that go away are forgotten.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Take documents in; files that have not changed since are skipped. A running server sees them at once."""
    settings = _settings(config)
    from server.commands.ingest import ingest_with_progress

    raise typer.Exit(ingest_with_progress(settings, paths, prune=prune, watch=watch))


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="The file to write; an earlier backup there is replaced.")],
    config: ConfigOption = None,
) -> None:
    """Copy documents, uploaded files and vectors into one file, while the server runs, and check the copy."""
    settings = _settings(config)
    from rich.console import Console

    from server.commands.store import back_up

    back_up(settings, target, Console(stderr=True))


@app.command()
def check(config: ConfigOption = None) -> None:
    """Read the whole store: is everything there, and what was stored?"""
    settings = _settings(config)
    from rich.console import Console

    from server.commands.store import check_store

    raise typer.Exit(check_store(settings, Console(stderr=True)))


@app.command()
def reindex(
    embedder: Annotated[
        str, typer.Argument(help="Path of the new sentence-transformers model; default: retrieval.embedder.")
    ] = "",
    abandon: Annotated[bool, typer.Option(help="Give up a reindex that was begun.")] = False,
    config: ConfigOption = None,
) -> None:
    """Embed every document anew with another model. A running server goes on with the old one, then takes the new."""
    settings = _settings(config)
    from rich.console import Console

    from server.commands.reindex import reindex_store

    reindex_store(
        settings, embedder or settings.retrieval.embedder, abandon=abandon, console=Console(stderr=True)
    )


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    url: Annotated[str, typer.Option(help="The server's address.")] = "http://127.0.0.1:8000",
) -> None:
    """Ask a running server; the answer streams here, with its sources and where the time went."""
    from server.commands.ask import ask_server

    raise typer.Exit(ask_server(question, url.rstrip("/"), os.environ.get("FIRSTWORD_API_KEY")))


@bench_app.command("self-test")
def bench_self_test(
    seconds: Annotated[float, typer.Option(min=1, help="How long each level is measured.")] = 10.0,
    busy_poll: Annotated[
        bool, typer.Option(help="Let the measuring process never sleep, as with `bench run --busy-poll`.")
    ] = True,
) -> None:
    """Hold the load tester against a simulated target that knows when it sent each token: its own error, as a table."""
    self_test([sys.executable, "-m", "server.cli", "bench", "target"], seconds, busy_poll)


@models_app.command("prepare")
def prepare_models(config: ConfigOption = None) -> None:
    """Make the starter models ready; what is ready already is left as it is."""
    settings = _settings(config)
    import subprocess

    command = [sys.executable, "-m", "server.starter", str(settings.models_path)]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@models_app.command("verify")
def verify_models(config: ConfigOption = None) -> None:
    """Read the starter models and compare every file with its digest."""
    settings = _settings(config)
    from server.starter import verify

    wrong = verify(settings.models_path)
    for path in wrong:
        typer.echo(f"missing or damaged: {path}", err=True)
    if wrong:
        typer.echo("  → delete that model's folder and run `firstword models prepare`", err=True)
    raise typer.Exit(bool(wrong))


@config_app.command("show")
def show_config(config: ConfigOption = None) -> None:
    """Every key with its value, where to set it, its bounds and its meaning. Secrets are masked."""
    settings = _settings(config)
    from server.commands.config import show_settings

    show_settings(settings)


def _settings(config: Path | None, overrides: dict[str, Any] | None = None) -> Settings:
    from server.settings import load_settings

    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    return load_settings(config, given)


def main() -> None:
    """Errors that have a next step are printed as two lines; anything else is a bug and keeps its traceback."""
    from retrieval.errors import RetrievalError
    from server.errors import SetupError

    # The progress bars of the libraries; what takes long has one of ours. Read when tqdm is imported.
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        app()
    except SetupError as error:
        _print_error(error.message, error.next_step)
        sys.exit(error.exit_code)
    except RetrievalError as error:
        _print_error(str(error), None)
        sys.exit(5)
    except KeyboardInterrupt:
        sys.exit(130)


def _print_error(message: str, next_step: str | None) -> None:
    typer.secho("error ", fg="red", bold=True, nl=False, err=True)
    typer.echo(message, err=True)
    if next_step:
        typer.echo(f"  → {next_step}", err=True)


if __name__ == "__main__":
    main()
