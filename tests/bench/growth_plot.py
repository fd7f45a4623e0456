"""`growth.json` as a picture; run by `bench.growth` with matplotlib's own environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

Row = dict[str, Any]

_COLOURS = {"text": "#0b7285", "clustered": "#c2503f"}
_LABELS = {"text": "real text, mixed beyond 7,000", "clustered": "synthetic clusters"}
_INK, _FAINT = "#243b53", "#d9e2ec"


def main() -> None:
    figures, *images = map(Path, sys.argv[1:])
    results = json.loads(figures.read_text(encoding="utf-8"))
    plt.rcParams.update(
        {"font.family": "DejaVu Sans", "font.size": 9, "text.color": _INK, "svg.hashsalt": "firstword"}
    )
    canvas, panels = plt.subplots(1, 4, figsize=(13.2, 3.5))
    _lines(panels[0], results["rows"], {"p50_ms": "-", "p99_ms": ":"}, "Search, ms (p50; p99 dotted)")
    _lines(
        panels[1],
        results["rows"],
        {"recall_at_5": "-", "tenth_recall_at_5": ":"},
        "Recall@5 (dotted: in a tenth)",
    )
    _lines(panels[2], results["rows"], {"build_s": "-", "load_s": ":"}, "Build, s (dotted: load a snapshot)")
    _lines(
        panels[3], results["rows"], {"memory_mib": "-", "snapshot_mib": ":"}, "Memory, MiB (dotted: snapshot)"
    )
    panels[1].set_yscale("linear")
    panels[1].set_ylim(0.9, 1.003)
    panels[1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2f}"))
    panels[0].legend(frameon=False, fontsize=8)
    about = results["conditions"]
    canvas.text(
        0.008,
        0.015,
        f"{about['cores']} cores ({about['cpu']}), Python {about['python']}, Firstword at {about['commit']}, {about['date']}; "
        "384 dimensions, one query at a time through the index's queue",
        fontsize=7.5,
        color="#627d98",
    )
    canvas.tight_layout(rect=(0, 0.05, 1, 1), w_pad=2)
    for image in images:
        image.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(image, dpi=144, metadata={"Date": None} if image.suffix == ".svg" else None)


def _lines(axes: Axes, rows: list[Row], styles: dict[str, str], title: str) -> None:
    axes.set_title(title, fontsize=10, fontweight="bold", loc="left")
    for content, colour in _COLOURS.items():
        own = sorted((row for row in rows if row["content"] == content), key=lambda row: int(row["n"]))
        for name, style in styles.items():
            axes.plot(
                [row["n"] for row in own],
                [row[name] for row in own],
                style,
                marker="o",
                markersize=4,
                color=colour,
                label=_LABELS[content] if style == "-" else None,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("chunks")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(color=_FAINT, linewidth=0.8)
    axes.minorticks_off()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


if __name__ == "__main__":
    main()
