"""`python -m bench`: the gateways side by side, in under six minutes."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from bench.conditions import conditions, litellm_version
from bench.contestants import Name
from bench.frames import Rendering, time_renderings
from bench.gateway import Run, cores, run_levels
from bench.levels import EVERYONE
from bench.process import BENCH_DIR, end_in_order, raise_open_files
from bench.report import markdown, number, open_console, sheets, show
from bench.summary import Row, SweepPoint, rows_of, sweep_points
from server.settings import PROJECT_ROOT

_PLOT_PYTHON = BENCH_DIR / "plot" / "bin" / "python"
_RECORDED_PLOT = PROJECT_ROOT / "docs" / "images" / "gateway-bench.svg"
_QUIET_SHARE = 0.05


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """`gateway.json`."""

    conditions: dict[str, Any]
    rows: list[Row]
    sweep: list[SweepPoint]
    frames: list[Rendering]
    runs: list[Run]
    sweep_runs: list[Run]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="of every level (default: 3)")
    parser.add_argument("--smoke", action="store_true", help="one short repeat, to see that everything works")
    parser.add_argument("--without", action="append", default=[], choices=["naive", "litellm", "firstword"])
    parser.add_argument(
        "--record", action="store_true", help=f"also write {_RECORDED_PLOT.name} for the docs"
    )
    arguments = parser.parse_args()
    console = open_console()
    end_in_order()
    raise_open_files()
    names: list[Name] = [name for name in EVERYONE if name not in arguments.without]
    if "litellm" in names and litellm_version() is None:
        console.print("LiteLLM is not installed in var/bench/litellm (`make bench` does it): it is left out.")
        names.remove("litellm")
    results = _measure(console, names, 1 if arguments.smoke else arguments.repeats, arguments.smoke)
    found = sheets(results.rows, results.sweep, results.frames)
    show(console, found, results.conditions)
    if any(row.others_share > _QUIET_SHARE for row in results.rows):
        console.print("[yellow]Other programs ran on this machine: do not record these figures.[/yellow]")
    written = _write(results, markdown(found, results.conditions), record=arguments.record)
    console.print("written: " + ", ".join(str(path.relative_to(PROJECT_ROOT)) for path in written))


def _measure(console: Console, names: list[Name], repeats: int, smoke: bool) -> Results:
    before = conditions()
    frames = time_renderings()
    runs, sweep = run_levels(repeats, names, smoke, lambda run: _say(console, run))
    rows = rows_of(runs)
    return Results(
        conditions=before | {"repeats": repeats} | _course(rows),
        rows=rows,
        sweep=sweep_points(sweep),
        frames=frames,
        runs=runs,
        sweep_runs=sweep,
    )


def _write(results: Results, tables: str, *, record: bool) -> list[Path]:
    BENCH_DIR.mkdir(parents=True, exist_ok=True)
    figures = BENCH_DIR / "gateway.json"
    figures.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    figures.with_suffix(".md").write_text(tables, encoding="utf-8")
    written = [figures, figures.with_suffix(".md")]
    return written + plot(figures, record=record) if _PLOT_PYTHON.exists() else written


def plot(figures: Path, *, record: bool) -> list[Path]:
    """With matplotlib's own environment, so that the server's needs none."""
    images = [figures.with_suffix(".png"), _RECORDED_PLOT if record else figures.with_suffix(".svg")]
    script = Path(__file__).parent / "plot.py"
    subprocess.run([_PLOT_PYTHON, script, figures, *images], check=True)
    return images


def _course(rows: list[Row]) -> dict[str, Any]:
    """Whether the bench itself, or the machine's host, was what was measured."""
    return {
        "cores_of": msgspec.to_builtins(cores()),
        "client_share_of_its_core_at_most": round(
            max((row.client_share or 0.0 for row in rows), default=0.0), 2
        ),
        "target_share_of_its_core_at_most": round(
            max((row.target_share or 0.0 for row in rows), default=0.0), 2
        ),
        "stolen_by_the_host_at_most": round(max((row.stolen_share for row in rows), default=0.0), 3),
        "taken_by_other_programs_at_most": round(max((row.others_share for row in rows), default=0.0), 3),
    }


def _say(console: Console, run: Run) -> None:
    window = run.figures.window
    told = f"[dim]{run.repeat + 1}[/dim]  {run.level:<25} {run.contestant:<10}"
    if window is not None:
        told += f" {number(window.cpu_us_per_token['gateway'], 1):>8} µs/token {number(window.tokens_per_s):>7} tokens/s"
    if run.figures.ttft_ms is not None:
        told += f"  TTFT p50 {run.figures.ttft_ms.p50:.1f} ms"
    if run.figures.faults:
        told += f"  [red]{run.figures.faults}[/red]"
    console.print(told, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
