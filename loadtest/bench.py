"""One bench: its stages one after the other, and the document they make."""

from __future__ import annotations

import asyncio
import os
import platform
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex

import msgspec

from loadtest.client.address import find_model, parse_url, resolve
from loadtest.figures.document import SCHEMA, Conditions, Config, Report, Stage, Sweep
from loadtest.figures.slo import Slo, TurnBounds
from loadtest.figures.summary import histograms_of, summarise
from loadtest.figures.turn_result import TurnResult
from loadtest.fleet import StageRun, default_processes, run_stage
from loadtest.lateness import lateness_of
from loadtest.plan import Plan


class Watcher:
    """What a bench tells while it runs. This one is not interested."""

    def stage_began(self, name: str, run: StageRun) -> None:
        pass

    def turns_ended(self, results: Sequence[TurnResult]) -> None:
        pass

    def stage_ended(self, stage: Stage) -> None:
        pass


class Bench:
    """Holds what stages share. `stop`, once set, ends the stage that runs and lets no other begin."""

    def __init__(
        self,
        *,
        api_key: str | None,
        processes: int | None = None,
        slo: Slo | None = None,
        goodput: TurnBounds | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.stop = asyncio.Event()
        self._api_key = api_key
        self._processes = processes
        self._slo = slo
        self._goodput = goodput
        self._watcher = watcher or Watcher()
        self._ips: list[str] = []

    async def find_target(self, url: str, model: str | None) -> str:
        """The model to ask for. Raises `TargetError` if the target does not answer at all."""
        address = parse_url(url)
        found = await find_model(url, self._api_key, model)
        self._ips = await resolve(address)
        return found

    async def run(self, plan: Plan, name: str) -> Stage:
        """One stage. Failed turns are results. Raises `ClientError` if a measuring process of ours fails."""
        plan = msgspec.structs.replace(plan, request_prefix=f"bench-{token_hex(3)}")
        processes = self._processes or default_processes(plan)
        # A process without a slot of its own could send nothing, or would send too much.
        run = StageRun(plan, processes if plan.concurrency is None else min(processes, plan.concurrency))
        self._watcher.stage_began(name, run)
        await run_stage(
            run,
            ips=self._ips,
            api_key=self._api_key,
            stop=self.stop,
            on_turns=self._watcher.turns_ended,
        )
        stage = self._stage(name, run)
        self._watcher.stage_ended(stage)
        return stage

    def _stage(self, name: str, run: StageRun) -> Stage:
        plan = run.plan
        summary = summarise(
            run.turns,
            duration_s=run.duration_s,
            not_sent=sum(over.unsent for over in run.overs),
            goodput=self._goodput,
        )
        return Stage(
            name=name,
            loop="open" if plan.is_open_loop else "closed",
            rate_per_s=None if plan.arrivals is None else plan.arrivals.rate_per_s,
            concurrency=plan.concurrency,
            summary=summary,
            client=lateness_of(run, summary),
            verdicts=() if self._slo is None else self._slo.judge(summary),
            histograms=histograms_of(run.turns),
            turns=tuple(sorted(run.turns, key=lambda turn: turn.due_s)),
            prewarms=_prewarms(run),
        )


def report_of(
    stages: Sequence[Stage], config: Config, *, command: str, interrupted: bool, sweep: Sweep | None = None
) -> Report:
    return Report(
        schema=SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        interrupted=interrupted,
        config=config,
        conditions=_conditions(),
        stages=tuple(stages),
        sweep=sweep,
    )


def _prewarms(run: StageRun) -> dict[str, int]:
    counts: Counter[int] = Counter()
    for over in run.overs:
        counts.update(over.prewarms)
    return {str(status): n for status, n in sorted(counts.items())}


def _conditions() -> Conditions:
    return Conditions(
        tool=f"firstword {version('firstword')}",
        python=platform.python_version(),
        machine=f"{_cpu_model()}, {os.cpu_count()} cores",
        system=f"{platform.system()} {platform.release()}",
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
