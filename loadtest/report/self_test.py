"""The tool's own error, as a table."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtest.report.cells import milliseconds
from loadtest.selftest import TOLERATED_MS, Checked

_COLUMNS = (
    "streams", "events/s", "turns", "TTFT error p50", "p99", "max", "TPOT error p99", "late p99", "read lag p99",
    "CPU", "µs/event", "stolen", "verdict",
)  # fmt: skip

_MORE_EVENTS = 4
"""Of the target's answers, beside one for each token: role, finish, usage and `[DONE]`."""


def print_self_test(checked: list[Checked], console: Console) -> None:
    table = Table(
        title="The tool's own error against the target's log, ms",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
    )
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "verdict" else "right")
    for one in checked:
        table.add_row(*_row(one))
    console.print(table)
    console.print(
        Text(
            "TTFT error: the client's TTFT, from when the turn was due, less the target's, from when the request's last byte reached "
            f"the machine until the socket had taken the first token. Exact: p99 within {TOLERATED_MS:g} ms. TPOT error: its size.",
            style="dim",
        )
    )


def _row(one: Checked) -> list[str | Text]:
    client, summary = one.stage.client, one.stage.summary
    events_per_s = (summary.output_tokens_per_s or 0.0) + _MORE_EVENTS * (summary.turns_per_s or 0.0)
    late, lag = client.late_ms, client.read_lag_ms
    style = {"exact": "green", "client says: overloaded": "yellow"}.get(one.verdict, "bold red")
    return [
        str(one.level.streams),
        f"{events_per_s:,.0f}",
        f"{summary.turns:,}",
        *(f"{value:.2f}" for value in one.error_ms),
        f"{one.itl_error_ms[1]:.3f}",
        "–" if late is None else milliseconds(late.p99),
        "–" if lag is None else milliseconds(lag.p99),
        "busy" if client.busy_poll else f"{client.cpu_share:.0%}",
        "–" if client.cpu_us_per_event is None else f"{client.cpu_us_per_event:.1f}",
        "–" if client.stolen_share is None else f"{client.stolen_share:.0%}",
        Text(one.verdict, style=style),
    ]
