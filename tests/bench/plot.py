"""`gateway.json` as a picture. Runs in an environment of its own: it needs matplotlib and nothing of the bench."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import FuncFormatter

_LABELS = {
    "direct": "the target itself",
    "firstword": "Firstword",
    "naive": "naive gateway",
    "litellm": "LiteLLM",
}
_COLOURS = {"direct": "#9aa5b1", "firstword": "#0b7285", "naive": "#e8a33d", "litellm": "#c2503f"}
_INK, _FAINT = "#243b53", "#d9e2ec"
_CPU_LEVELS = ("8 × 50/s", "32 × 50/s")
_FIRST_TOKEN_LEVEL = "first token, 32 streams"

Row = dict[str, Any]


def main() -> None:
    figures, *images = map(Path, sys.argv[1:])
    results = json.loads(figures.read_text(encoding="utf-8"))
    _style()
    canvas, (cpu, first_token, sweep) = plt.subplots(1, 3, figsize=(12.6, 3.9), width_ratios=(1.05, 1, 1.05))
    plot_cpu(cpu, results["rows"])
    plot_first_token(first_token, results["rows"])
    plot_sweep(sweep, results["sweep"], results["rows"])
    canvas.text(0.008, 0.015, _caption(results["conditions"]), fontsize=7.5, color="#627d98")
    canvas.tight_layout(rect=(0, 0.045, 1, 1), w_pad=2.2)
    for image in images:
        image.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(image, dpi=144, metadata={"Date": None} if image.suffix == ".svg" else None)


def plot_cpu(axes: Axes, rows: list[Row]) -> None:
    """A group of bars for each contestant, one bar a level."""
    axes.set_title("CPU per streamed token, µs")
    found = {
        (row["level"], row["contestant"]): row["cpu_us_per_token"]
        for row in rows
        if row["level"] in _CPU_LEVELS
    }
    names = [name for name in reversed(_LABELS) if (_CPU_LEVELS[0], name) in found]
    height = 0.36
    for place, level in enumerate(_CPU_LEVELS):
        for position, name in enumerate(names):
            if (value := found.get((level, name))) is None:
                continue
            y = position + (0.5 - place) * height
            axes.barh(
                y, value, height * 0.92, color=_tint(_COLOURS[name], 0.45) if place == 0 else _COLOURS[name]
            )
            axes.text(value * 1.08, y, f"{value:,.0f}", va="center", fontsize=8)
            if name == "firstword":
                axes.text(1.12, y, level, va="center", fontsize=7.5, color=_INK if place == 0 else "white")
    axes.set_yticks(range(len(names)), [_LABELS[name] for name in names])
    axes.set_xscale("log")
    # The top end leaves room for the longest bar's figure.
    axes.set_xlim(1, max(filter(None, found.values()), default=1) * 3)
    _leave_only(axes, "x")


def plot_first_token(axes: Axes, rows: list[Row]) -> None:
    """From the median to the 99th percentile."""
    axes.set_title("Time to first token at 32 streams, ms")
    at_level = {row["contestant"]: row for row in rows if row["level"] == _FIRST_TOKEN_LEVEL}
    names = [name for name in reversed(_LABELS) if name in at_level]
    for position, name in enumerate(names):
        p50, p99 = at_level[name]["ttft_p50_ms"], at_level[name]["ttft_p99_ms"]
        if p50 is None or p99 is None:
            continue
        axes.plot((p50, p99), (position, position), color=_tint(_COLOURS[name], 0.45), linewidth=5)
        axes.plot(p50, position, "o", color=_COLOURS[name], markersize=9)
        axes.plot(p99, position, "|", color=_COLOURS[name], markersize=15, markeredgewidth=3)
        axes.text(p50 / 1.5, position, f"p50 {_short(p50)}", ha="right", va="center", fontsize=8)
        axes.text(p99 * 1.35, position, f"p99 {_short(p99)}", ha="left", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), [_LABELS[name] for name in names])
    axes.set_ylim(-0.5, len(names) - 0.5)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 8, high * 8)
    _leave_only(axes, "x")


def plot_sweep(axes: Axes, points: list[dict[str, Any]], rows: list[Row]) -> None:
    """Firstword's streams at 100 tokens/s each, more and more of them; and what the naive gateway gave at most."""
    axes.set_title("ITL p99 of one process, by tokens/s")
    axes.axhline(2, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(0.14, 2.06, "twice the source's interval", transform=axes.get_yaxis_transform(), fontsize=8)
    axes.plot(
        [point["tokens_per_s"] / 1_000 for point in points],
        [point["itl_p99"] for point in points],
        "o-",
        color=_COLOURS["firstword"],
        markersize=5,
        label=_LABELS["firstword"],
    )
    for name in ("naive", "litellm"):
        most = max((row["tokens_per_s"] or 0 for row in rows if row["contestant"] == name), default=0)
        if most:
            axes.axvline(most / 1_000, color=_COLOURS[name], linewidth=2, label=f"{_LABELS[name]}, at most")
    axes.set_xlabel("tokens/s, thousands")
    axes.set_ylabel("ITL p99, in intervals")
    axes.set_xlim(0, max([point["tokens_per_s"] / 1_000 for point in points] + [1]) * 1.08)
    axes.set_ylim(0, min(6, max([point["itl_p99"] for point in points] + [2]) * 1.15))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0.1, 1))
    _leave_only(axes, "both")


def _tint(colour: str, share: float) -> tuple[float, ...]:
    """The colour on white, opaque: grid lines must not show through."""
    return tuple(1 - share * (1 - part) for part in to_rgb(colour))


def _short(ms: float) -> str:
    return f"{ms:,.1f}" if ms < 100 else f"{ms:,.0f}"


def _caption(conditions: dict[str, Any]) -> str:
    versions = conditions["versions"]
    return (
        f"{conditions['cores']} cores ({conditions['cpu']}), Python {conditions['python']}, "
        f"Firstword {versions['firstword']} at {conditions['commit']}, LiteLLM {versions['litellm']}, "
        f"{conditions['date']}; median of {conditions['repeats']}, side by side in one run"
    )


def _style() -> None:
    plt.rcParams.update(
        {
            "font.family": "DejaVu Sans",
            "font.size": 9,
            "text.color": _INK,
            "axes.edgecolor": _INK,
            "axes.labelcolor": _INK,
            "axes.titlesize": 10.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "xtick.color": _INK,
            "ytick.color": _INK,
            "svg.hashsalt": "firstword",
        }
    )


def _leave_only(axes: Axes, grid: str) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=_FAINT, linewidth=0.8)
    axes.minorticks_off()
    if axes.get_xscale() == "log":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


if __name__ == "__main__":
    main()
