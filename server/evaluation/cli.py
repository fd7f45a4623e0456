"""`firstword eval`. Imports nothing heavy until an evaluation is run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from server.evaluation.figures import Mode

app = typer.Typer(
    help="Measure what prompts cost, what is found and what answers are worth, on real conversations.",
    no_args_is_help=True,
)

_MODES = "system,user,append,append+order,type-ahead"


@app.command()
def cache(
    data: Annotated[Path, typer.Argument(help="Folder with passages.jsonl and conversations.jsonl.")],
    modes: Annotated[str, typer.Option(help="Which modes, by comma.")] = _MODES,
    conversations: Annotated[int | None, typer.Option(min=1, help="So many of them; default: all.")] = None,
    min_turns: Annotated[int, typer.Option(min=1, help="Only conversations of so many turns or more.")] = 2,
    max_turns: Annotated[
        int | None, typer.Option(min=1, help="Only conversations of at most so many turns.")
    ] = None,
    turns: Annotated[int | None, typer.Option(min=1, help="Hold only the first turns of each.")] = None,
    top_k: Annotated[int, typer.Option(min=1, max=64, help="Passages a turn.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 128,
    replies: Annotated[
        Literal["own", "reference"],
        typer.Option(help="Whose replies go into the history: the engine's own, or the data's."),
    ] = "own",
    words_per_minute: Annotated[
        float, typer.Option(min=1, help="How fast the user types, for type-ahead.")
    ] = 40.0,
    think_s: Annotated[
        float, typer.Option(min=0, help="How long the user thinks before typing, for type-ahead.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Draws the conversations.")] = 0,
    output: Annotated[Path, typer.Option(help="The JSON document; the page stands beside it.")] = Path(
        "eval-cache.json"
    ),
    page: Annotated[bool, typer.Option("--page/--no-page", help="Write the HTML page.")] = True,
    config: Annotated[
        Path | None,
        typer.Option("--config", envvar="CONFIG", help="TOML file; default: configs/default.toml"),
    ] = None,
) -> None:
    """Replay real conversations in every layout of the prompt: TTFT by turn, share from the cache, quality of answers."""
    from server.settings import load_settings

    settings = load_settings(config)
    from rich.console import Console

    from server.evaluation.report import Order
    from server.evaluation.run import evaluate_cache

    order = Order(
        modes=_modes(modes),
        conversations=conversations,
        min_turns=min_turns,
        max_turns=max_turns,
        turns=turns,
        top_k=top_k,
        max_tokens=max_tokens,
        replies=replies,
        words_per_minute=words_per_minute,
        think_s=think_s,
        seed=seed,
    )
    console = Console(stderr=True)
    raise typer.Exit(evaluate_cache(settings, data, order, output, page=page, console=console))


@app.command()
def retrieval(
    data: Annotated[Path, typer.Argument(help="Folder with passages.jsonl and conversations.jsonl.")],
    modes: Annotated[str, typer.Option(help="dense, lexical, hybrid, by comma.")] = "dense,lexical,hybrid",
    query_forms: Annotated[
        str, typer.Option(help="What of the conversation is searched for, by comma.")
    ] = "last,last_two,weighted",
    whole: Annotated[
        bool, typer.Option(help="Each passage of the data is one chunk; else it is cut as a document is.")
    ] = False,
    output: Annotated[Path, typer.Option(help="The JSON document.")] = Path("eval-retrieval.json"),
    config: Annotated[
        Path | None,
        typer.Option("--config", envvar="CONFIG", help="TOML file; default: configs/default.toml"),
    ] = None,
) -> None:
    """Search for the last turn of real conversations: recall@k, nDCG@k, MRR and latency, as configured and in variants."""
    from server.settings import load_settings

    settings = load_settings(config)
    from rich.console import Console

    from server.evaluation.search import RetrievalOrder, evaluate_retrieval

    order = RetrievalOrder(_names(modes), _names(query_forms), whole)
    raise typer.Exit(evaluate_retrieval(settings, data, order, output, Console(stderr=True)))


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())


def _modes(names: str) -> tuple[Mode, ...]:
    from server.errors import ConfigError
    from server.evaluation.figures import MODES

    wanted = {name.strip() for name in names.split(",")}
    if unknown := sorted(wanted - set(MODES)):
        raise ConfigError(
            f"--modes: there is no mode {unknown[0]!r}", next_step=f"choose among {', '.join(MODES)}"
        )
    return tuple(mode for mode in MODES if mode in wanted)
