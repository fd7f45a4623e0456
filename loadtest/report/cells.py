"""Figures as the cells of a table."""

from __future__ import annotations

from loadtest.figures.document import Distribution

STATISTICS = ("n", "mean", "p50", "p90", "p99", "max")


def cells(values: Distribution | None) -> list[str]:
    """n, mean, p50, p90, p99, max; with the median's and p99's 95 % interval where there is one."""
    if values is None:
        return ["0", *["–"] * (len(STATISTICS) - 1)]
    return [f"{values.n:,}", *(milliseconds(getattr(values, name)) for name in STATISTICS[1:])]


def milliseconds(value: float) -> str:
    """Three digits or more: 0.42, 4.21, 42.1, 421, 4,210."""
    size = abs(value)
    return f"{value:,.{2 if size < 10 else 1 if size < 100 else 0}f}"


def share(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2%}" if 0 < value < 0.01 else f"{value:.0%}"
