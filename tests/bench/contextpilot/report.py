"""What was counted, as tables."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.table import Table

from bench.contextpilot.account import Account, Tokens
from bench.contextpilot.request import Serving

_COLUMNS = (
    "prompt",
    "served",
    "prompt tokens",
    "from cache",
    "computed",
    "ahead",
    "cached share",
    "first turn: prompt tokens",
    "computed",
    "ahead",
    "cached share",
)
_N_NAMES = 2


class Row(msgspec.Struct, frozen=True):
    layout: str
    serving: Serving
    shared: Account
    """One cache for all conversations."""
    own: Account
    """Each conversation with a cache of its own."""
    contextpilot_ms: float | None = None
    """Spent in ContextPilot for a request, on average."""


class Results(msgspec.Struct, frozen=True):
    conditions: dict[str, str | int]
    rows: list[Row]


class Sheet(msgspec.Struct, frozen=True):
    title: str
    lines: list[tuple[str, ...]]

    def rich(self) -> Table:
        table = Table(title=self.title, title_justify="left", title_style="bold")
        for column, heading in enumerate(_COLUMNS):
            table.add_column(heading, justify="left" if column < _N_NAMES else "right")
        for line in self.lines:
            table.add_row(*line)
        return table

    def markdown(self) -> str:
        rows = [_COLUMNS, ("---",) * len(_COLUMNS), *self.lines]
        return f"**{self.title}**\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def sheets(rows: Sequence[Row]) -> list[Sheet]:
    return [
        Sheet(
            "Tokens a turn from the second turn on; one prefix cache for all",
            [_line(row, row.shared) for row in rows],
        ),
        Sheet("The same; a prefix cache for each conversation", [_line(row, row.own) for row in rows]),
    ]


def _line(row: Row, told: Account) -> tuple[str, ...]:
    return (
        row.layout,
        row.serving,
        _a_turn(told.later, told.later.prompt),
        _a_turn(told.later, told.later.cached),
        _a_turn(told.later, told.later.computed),
        _a_turn(told.later, told.later.ahead),
        f"{told.later.cached_share:.1%}",
        _a_turn(told.first, told.first.prompt),
        _a_turn(told.first, told.first.computed),
        _a_turn(told.first, told.first.ahead),
        f"{told.first.cached_share:.1%}",
    )


def _a_turn(told: Tokens, tokens: int) -> str:
    return f"{tokens / told.n_turns:,.0f}" if told.n_turns else "–"
