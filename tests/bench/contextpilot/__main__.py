"""`python -m bench.contextpilot CONVERSATIONS`: tokens computed and found in the prefix cache, turn by turn.

CONVERSATIONS is a file of `make_conversations`. The figures are counted, not timed: they are the same on every
machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec
from rich.console import Console

from bench.contextpilot.account import BLOCK_TOKENS, account
from bench.contextpilot.contestant import PYTHON, Way, ask
from bench.contextpilot.conversation import Conversation, read_conversations
from bench.contextpilot.firstword import VARIANTS, Alone, replay
from bench.contextpilot.layout import LAYOUTS, requests_of
from bench.contextpilot.report import Results, Row, sheets
from bench.contextpilot.request import Served, Serving, by_rounds, in_tokens
from bench.process import BENCH_DIR
from server.context.template import ChatTemplate
from server.settings import PROJECT_ROOT

MODEL = PROJECT_ROOT / "var" / "models" / "SmolLM2-135M-Instruct"
ALONE: tuple[Alone, ...] = ("one by one", "online")
SERVINGS: tuple[Serving, ...] = (*ALONE, "batch")
_WIDTH = 180
WAYS: tuple[Way, ...] = ("reorder", "deduplicate")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.contextpilot", description=__doc__)
    parser.add_argument("conversations", type=Path)
    parser.add_argument(
        "--model", default=str(MODEL), help="whose tokenizer counts (default: the starter model)"
    )
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="JSON of requests in tokens, one conversation after another: "
        "[[conversation, turn, prompt, reply]...] with token ids; may be repeated",
    )
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    if not PYTHON.exists():
        parser.error("ContextPilot is not installed: `make bench-contextpilot` does it")
    conversations = read_conversations(arguments.conversations)
    results = _measure(console, conversations, ChatTemplate(arguments.model))
    for named in arguments.beside:
        name, _, path = named.partition("=")
        results.rows.extend(_both_servings(name, _read_served(Path(path))))
    _report(console, results)


def _measure(console: Console, conversations: list[Conversation], template: ChatTemplate) -> Results:
    rows: list[Row] = []
    version = ""
    for name, layout in LAYOUTS.items():
        console.print(f"[dim]{name}[/dim]")
        rows += _both_servings(name, in_tokens(requests_of(layout, conversations), conversations, template))
    for name, variant in VARIANTS.items():
        console.print(f"[dim]{name}[/dim]")
        # Tenants that share nothing: in which order they are served is all one.
        own = account(replay(variant, "one by one", conversations, template, shared=False), shared=False)
        for alone in ALONE:
            served = replay(variant, alone, conversations, template, shared=True)
            rows.append(Row(name, alone, account(served, shared=True), own))
    for way in WAYS:
        for serving in SERVINGS:
            console.print(f"[dim]ContextPilot, {way}, {serving}[/dim]")
            answer = ask(way, serving, conversations)
            version = answer.version
            served = in_tokens(answer.requests, conversations, template)
            rows.append(_row(f"ContextPilot: {way}", serving, served, answer.spent_s * 1e3 / len(served)))
    conditions: dict[str, str | int] = {
        "contextpilot": version,
        "conversations": len(conversations),
        "turns": sum(len(conversation.turns) for conversation in conversations),
        "block_tokens": BLOCK_TOKENS,
    }
    return Results(conditions, rows)


def _both_servings(name: str, served: list[Served]) -> list[Row]:
    """Of a layout that no other conversation's requests change."""
    return [_row(name, "one by one", served), _row(name, "online", by_rounds(served))]


def _row(name: str, serving: Serving, served: list[Served], contextpilot_ms: float | None = None) -> Row:
    return Row(name, serving, account(served, shared=True), account(served, shared=False), contextpilot_ms)


def _read_served(path: Path) -> list[Served]:
    found = msgspec.json.decode(path.read_bytes(), type=list[tuple[int, int, list[int], list[int]]])
    return [Served(*item) for item in found]


def _report(console: Console, results: Results) -> None:
    found = sheets(results.rows)
    for sheet in found:
        console.print(sheet.rich())
    conditions = ", ".join(f"{name} {value}" for name, value in results.conditions.items())
    spent = ", ".join(
        f"{row.layout.removeprefix('ContextPilot: ')} {row.serving} {row.contextpilot_ms:.1f} ms"
        for row in results.rows
        if row.contextpilot_ms is not None
    )
    told = f"{conditions}. In ContextPilot for each request: {spent}. {_compacted(results)}"
    console.print(f"[dim]{told}[/dim]", highlight=False)
    written = BENCH_DIR / "contextpilot.json"
    written.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    tables = "\n".join(sheet.markdown() for sheet in found)
    written.with_suffix(".md").write_text(f"{tables}\n{told}\n", encoding="utf-8")
    console.print(f"written: {written.relative_to(PROJECT_ROOT)}, {written.stem}.md")


def _compacted(results: Results) -> str:
    of = {
        f"{row.layout}, {row.serving}": row.shared.first.n_compacted + row.shared.later.n_compacted
        for row in results.rows
    }
    return (
        f"Turns that shed older parts: {', '.join(f'{name} {n}' for name, n in of.items() if n) or 'none'}."
    )


if __name__ == "__main__":
    main()
