"""Two runs side by side, as tables."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from loadtest.figures.compare import Comparison, Line, StageComparison
from loadtest.report.cells import milliseconds, share


def print_comparison(comparison: Comparison, names: tuple[str, str], console: Console) -> None:
    console.print(Text(f"A is {names[0]}, B is {names[1]}; ratios are B to A."))
    for warning in comparison.warnings:
        console.print(
            Panel(Text(warning, style="bold"), border_style="red", title="look out", title_align="left")
        )
    for stage in comparison.stages:
        console.print(_table(stage))
    for difference in comparison.differences:
        console.print(Text(f"· differs: {difference}", style="dim"))
    console.print(
        Text(
            "· 95 %: bootstrap over whole conversations. An interval that holds 1 tells nothing apart.",
            style="dim",
        )
    )


def _table(stage: StageComparison) -> Table:
    table = Table(title=stage.name, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in ("", "A", "B", "B/A", "95 %", "B is"):
        table.add_column(name, justify="left" if name in ("", "B is") else "right", no_wrap=True)
    for line in stage.lines:
        if line.a is None and line.b is None:
            continue
        ratio = "–" if line.ratio is None else f"{line.ratio:.3f}"
        ci = "–" if line.ratio_ci is None else f"{line.ratio_ci.low:.3f} … {line.ratio_ci.high:.3f}"
        table.add_row(line.name, _value(line, line.a), _value(line, line.b), ratio, ci, _verdict(line))
    return table


def _value(line: Line, value: float | None) -> str:
    if value is None:
        return "–"
    if line.unit == "share":
        return share(value)
    return f"{milliseconds(value)} ms" if line.unit == "ms" else f"{value:,.1f}"


def _verdict(line: Line) -> Text:
    if line.unit != "ms" or line.verdict == "unsure":
        return Text("–", style="dim")
    if line.verdict == "not told apart":
        return Text("the same?", style="dim")
    return Text("faster", style="green") if line.verdict == "lower" else Text("slower", style="red")
