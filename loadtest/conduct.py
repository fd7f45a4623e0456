"""A bench from its first stage to its report."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

import msgspec

from loadtest.bench import Bench, Watcher, report_of
from loadtest.figures.document import Report, Stage, Sweep
from loadtest.order import Stages
from loadtest.plan import Plan
from loadtest.sweep import find_rate, sweep_of

_HIGHEST_RATE_PER_S = 100_000.0
_PRECISION = 0.1


async def conduct(
    stages: Stages, api_key: str | None, processes: int | None, watcher: Watcher, *, command: str
) -> Report:
    """Raises `BenchError` when nothing can be measured. SIGINT ends the stage that runs, and the bench with it."""
    bench = Bench(
        api_key=api_key, processes=processes, slo=stages.slo, goodput=stages.goodput, watcher=watcher
    )
    _stop_on_interrupt(bench)
    _, first = stages.plans[0]
    model = await bench.find_target(first.url, first.model or None)
    held: list[Stage] = []

    async def hold(name: str, plan: Plan) -> Stage | None:
        if bench.stop.is_set():
            return None
        held.append(await bench.run(msgspec.structs.replace(plan, model=model), name))
        return held[-1]

    sweep: Sweep | None = None
    if (search := stages.search) is not None:
        sweep = await find_rate(
            lambda rate: hold(*search.at_rate(rate)),
            slo=search.slo,
            start_per_s=search.start_per_s,
            most_per_s=_HIGHEST_RATE_PER_S,
            precision=_PRECISION,
        )
    else:
        for name, plan in stages.plans:
            await hold(name, plan)
        if stages.slo is not None and len(held) > 1 and all(stage.rate_per_s is not None for stage in held):
            sweep = sweep_of(stages.slo.text, held)
    config = msgspec.structs.replace(stages.config, model=model)
    return report_of(held, config, command=command, interrupted=bench.stop.is_set(), sweep=sweep)


def _stop_on_interrupt(bench: Bench) -> None:
    """The first Ctrl-C stops the bench; the second is Python's own and ends the program."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        bench.stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    with suppress(NotImplementedError):  # no such handlers on Windows
        loop.add_signal_handler(signal.SIGINT, stop)
