"""The gateways side by side: every level with everyone in turn, repeated, then Firstword alone until it gives way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path

import msgspec

from bench.contestants import Contestant, Name, standing
from bench.levels import LEVELS, SWEEP_STREAMS, Level, shortened, sweep_level
from bench.plan import Figures, Plan

_PATIENCE_S = 240.0
SWEEP_LIMIT = 2.0
"""ITL p99 in intervals of the source: beyond it a gateway is said to give way."""


class Run(msgspec.Struct, frozen=True):
    """One contestant at one level, once."""

    level: str
    streams: int
    rate_per_s: float
    contestant: str
    repeat: int
    figures: Figures


class Cores(msgspec.Struct, frozen=True):
    """The gateway has a core for itself; where there are only two, the target shares the client's."""

    gateway: list[int]
    client: list[int]
    target: list[int]


def cores() -> Cores:
    mine = sorted(os.sched_getaffinity(0))
    return Cores(gateway=mine[:1], client=mine[1:2] or mine, target=mine[2:3] or mine[1:2] or mine)


def run_levels(
    repeats: int, names: Iterable[Name], smoke: bool, say: Callable[[Run], None]
) -> tuple[list[Run], list[Run]]:
    """The runs of all levels, and those of the sweep."""
    taking_part = list(names)
    runs: list[Run] = []
    sweep: list[Run] = []
    for interval_s, group in groupby(LEVELS, lambda level: level.interval_s):
        levels = [shortened(level) if smoke else level for level in group]
        needed = [name for name in taking_part if any(name in level.who for level in levels)]
        with standing(needed, interval_s) as contestants:
            for repeat in range(repeats):
                for level in levels:
                    for name in _in_turn(level, needed, repeat):
                        runs.append(_run(level, contestants[name], repeat))
                        say(runs[-1])
            if levels[0].rate_per_s == 100 and "firstword" in contestants:
                sweep = _sweep(contestants["firstword"], smoke, say)
    return runs, sweep


def _in_turn(level: Level, names: list[Name], repeat: int) -> list[Name]:
    """Each repeat begins with another, so that none is always measured in the same moment."""
    who = [name for name in level.who if name in names]
    start = repeat % max(1, len(who))
    return who[start:] + who[:start]


def _sweep(firstword: Contestant, smoke: bool, say: Callable[[Run], None]) -> list[Run]:
    found: list[Run] = []
    for streams in SWEEP_STREAMS[:2] if smoke else SWEEP_STREAMS:
        found.append(_run(sweep_level(streams), firstword, 0))
        say(found[-1])
        if len(found) > 1 and not any(holds(run) for run in found[-2:]):
            break
    return found


def holds(run: Run) -> bool:
    """Whether the gateway kept up, lost nothing, and 99 of 100 gaps were within twice the source's interval."""
    figures = run.figures
    if figures.steady is None or figures.complete < figures.turns:
        return False
    return figures.steady.itl_ms.p99 <= SWEEP_LIMIT * 1_000 / run.rate_per_s


def _run(level: Level, contestant: Contestant, repeat: int) -> Run:
    for server in contestant.servers:
        server.go_on()
    places = cores()
    if contestant.upstream is not None:
        contestant.upstream.pin(places.target)
    contestant.server.pin(places.gateway)
    try:
        figures = measure(level.plan(contestant, places.client, seed=repeat))
    finally:
        for server in contestant.servers:
            server.hold()
    return Run(level.name, level.streams, level.rate_per_s, contestant.name, repeat, figures)


def measure(plan: Plan) -> Figures:
    """Run the measuring client in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.client"],
        input=msgspec.json.encode(plan),
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        timeout=_PATIENCE_S,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Figures)
