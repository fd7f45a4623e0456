"""`python -m bench.testers`: the load testers side by side on the same target, in about ten minutes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from rich.console import Console

from bench.conditions import conditions
from bench.process import BENCH_DIR, end_in_order, raise_open_files
from bench.report import markdown, number, open_console, show
from bench.testers.aiperf import Aiperf
from bench.testers.contestant import Contestant
from bench.testers.firstword import Firstword
from bench.testers.guidellm import Guidellm
from bench.testers.report import Results, remarks, sheets
from bench.testers.run import Run, TargetKind, client_cores, run, target_core
from bench.testers.scenario import SCENARIOS, Scenario, shortened
from bench.testers.vllm_bench import VllmBench
from server.settings import PROJECT_ROOT

CONTESTANTS: dict[str, Callable[[], Contestant]] = {
    "firstword": Firstword,
    "vllm": VllmBench,
    "guidellm": Guidellm,
    "aiperf": Aiperf,
}
_QUIET_SHARE = 0.10


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.testers", description=__doc__)
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--repeats", type=int, default=1, help="of every scenario (default: 1)")
    parser.add_argument("--smoke", action="store_true", help="a few requests, to see that everything works")
    parser.add_argument("--only", action="append", choices=names, help="this scenario; may be repeated")
    parser.add_argument("--without", action="append", default=[], choices=list(CONTESTANTS))
    parser.add_argument(
        "--target",
        choices=["plain", "firstword"],
        default="plain",
        help="firstword: `firstword bench target`",
    )
    arguments = parser.parse_args()
    console = open_console()
    end_in_order()
    raise_open_files()
    scenarios = [item for item in SCENARIOS if arguments.only is None or item.name in arguments.only]
    if arguments.smoke:
        scenarios = [shortened(item) for item in scenarios]
    testers = _installed(
        console, [make() for name, make in CONTESTANTS.items() if name not in arguments.without]
    )
    results = _measure(console, testers, scenarios, arguments.repeats, arguments.target)
    found = sheets(results)
    show(console, found, results.conditions)
    told = remarks(results)
    for line in told:
        console.print(f"[dim]{line}[/dim]", highlight=False)
    if any(item.cost is not None and item.cost.others_share > _QUIET_SHARE for item in results.runs):
        console.print("[yellow]Other programs ran on this machine: do not record these figures.[/yellow]")
    written = BENCH_DIR / "testers.json"
    written.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    notes = "".join(f"- {line}\n" for line in told)
    written.with_suffix(".md").write_text(f"{markdown(found, results.conditions)}\n{notes}", encoding="utf-8")
    console.print(f"written: {written.relative_to(PROJECT_ROOT)}, {written.stem}.md")


def _installed(console: Console, testers: Sequence[Contestant]) -> list[Contestant]:
    for tester in testers:
        if tester.version() is None:
            console.print(f"{tester.name} is not installed (`make bench-testers` does it): it is left out.")
    return [tester for tester in testers if tester.version() is not None]


def _measure(
    console: Console, testers: list[Contestant], scenarios: list[Scenario], repeats: int, target: TargetKind
) -> Results:
    before: dict[str, Any] = conditions()
    before["testers"] = {tester.name: tester.version() for tester in testers}
    before["cores_of"] = {item.name: client_cores(item) for item in scenarios} | {"the target": target_core()}
    before["target"] = target
    runs: list[Run] = []
    cannot: dict[str, str] = {}
    for repeat in range(repeats):
        for place, scenario in enumerate(scenarios):
            for tester in _in_turn(testers, repeat + place):
                if (why := tester.cannot(scenario)) is not None:
                    cannot[f"{scenario.name}: {tester.name}"] = why
                    continue
                runs.append(run(tester, scenario, repeat, target))
                _say(console, runs[-1])
    shares = [item.cost.others_share for item in runs if item.cost is not None]
    before["taken_by_others_at_most"] = round(max(shares, default=0.0), 3)
    stolen = [item.cost.stolen_share for item in runs if item.cost is not None]
    before["stolen_by_the_host_at_most"] = round(max(stolen, default=0.0), 3)
    before["load_average_after"] = round(os.getloadavg()[0], 2)
    order = {tester.name: place for place, tester in enumerate(testers)}
    runs.sort(key=lambda item: (order[item.tester], item.repeat))
    return Results(before, scenarios, cannot, runs)


def _in_turn(testers: list[Contestant], place: int) -> list[Contestant]:
    """Another one begins every time: a drift of the machine's speed meets all alike."""
    first = place % len(testers) if testers else 0
    return testers[first:] + testers[:first]


def _say(console: Console, item: Run) -> None:
    told = f"[dim]{item.repeat + 1}[/dim]  {item.scenario:<8} {item.tester:<18}"
    if item.claimed is not None and item.claimed.ttft_ms is not None:
        told += f" TTFT p50 {number(item.claimed.ttft_ms.p50, 1)} ms"
    if item.truth is not None and item.truth.ttft_ms is not None:
        told += (
            f" (the target: {number(item.truth.ttft_ms.p50, 1)})  {number(item.truth.tokens_per_s)} events/s"
        )
    if item.fault is not None:
        told += f"  [red]{item.fault}[/red]"
    console.print(told, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
