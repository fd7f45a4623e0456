"""The measuring processes of a stage: started, given their shares, listened to, and ended."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter

from loadtest.client.messages import (  # fmt: skip
    Begin,
    Failed,
    News,
    Order,
    Over,
    Ready,
    Start,
    Stop,
    Turns,
    Unpacker,
    decode_news,
    pack,
)
from loadtest.errors import ClientError
from loadtest.figures.turn_result import TurnResult
from loadtest.plan import Plan, Share

_COMMAND = (sys.executable, "-m", "loadtest.client.worker")
_HEAD_START_S = 0.1
"""Between the order to begin and the beginning, so that every process has heard it."""
_STOP_S = 5.0
_READ_BYTES = 1 << 18
_MOST_BY_ITSELF = 8
_STREAMS_PER_PROCESS = 64


def give_way() -> None:
    """Let this process, which only listens and draws, never interrupt one that measures (SCHED_BATCH, sched(7)).

    What it starts is not affected. Where there is no such thing nothing happens.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            policy = os.SCHED_BATCH | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, policy, os.sched_param(0))


@dataclass(slots=True)
class StageRun:
    """What has happened so far; readable at any moment, complete when `overs` has one for each process."""

    plan: Plan
    processes: int
    turns: list[TurnResult] = field(default_factory=list)
    """In the order of their ends, warm-up turns too."""
    under_way: dict[int, int] = field(default_factory=dict)
    """By process."""
    begun_at: float | None = None
    """`perf_counter` seconds; None while it warms up."""
    overs: list[Over] = field(default_factory=list)
    stolen_share: float | None = None

    @property
    def duration_s(self) -> float:
        """From the stage's beginning, its warm-up left out, to the end of its last turn."""
        ends = [turn.due_s + turn.e2e_ms / 1_000 for turn in self.turns if not turn.warmup]
        return max(0.0, max(ends, default=0.0) - self.plan.warmup_s)


def default_processes(plan: Plan) -> int:
    """Half of the cores at most, the other half is the system's and perhaps the target's; fewer when little is asked."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = max(1, min(cores // 2, _MOST_BY_ITSELF))
    if plan.concurrency is not None and not plan.is_open_loop:
        most = min(most, -(-plan.concurrency // _STREAMS_PER_PROCESS))
    return most if plan.concurrency is None else min(most, plan.concurrency)


async def run_stage(
    run: StageRun,
    *,
    ips: Sequence[str],
    api_key: str | None,
    stop: asyncio.Event,
    on_turns: Callable[[Sequence[TurnResult]], None],
) -> None:
    """Fill `run`. When `stop` is set the open turns are given up. Raises `ClientError` if a process of ours fails."""
    processes = [await _Process.start(number) for number in range(run.processes)]
    stopping = asyncio.create_task(_stop_when_told(stop, processes))
    try:
        for process in processes:
            process.tell(
                Start(
                    Share(
                        plan=run.plan,
                        process=process.number,
                        processes=run.processes,
                        ips=tuple(ips),
                        api_key=api_key,
                    )
                )
            )
        listening = [_listen(process, run, on_turns) for process in processes]
        ready = asyncio.create_task(_begin_when_ready(run, processes))
        try:
            await asyncio.gather(*listening)
        finally:
            ready.cancel()
    finally:
        stopping.cancel()
        await asyncio.gather(*(process.end() for process in processes))


async def _begin_when_ready(run: StageRun, processes: Sequence[_Process]) -> None:
    await asyncio.gather(*(process.ready.wait() for process in processes))
    run.begun_at = perf_counter() + _HEAD_START_S
    before = _machine_time()
    for process in processes:
        process.tell(Begin(run.begun_at))
    try:
        await asyncio.Event().wait()
    finally:
        if before is not None and (after := _machine_time()) is not None and after[0] > before[0]:
            run.stolen_share = (after[1] - before[1]) / (after[0] - before[0])


async def _listen(process: _Process, run: StageRun, on_turns: Callable[[Sequence[TurnResult]], None]) -> None:
    async for news in process.news():
        match news:
            case Turns(results, under_way):
                run.turns.extend(results)
                run.under_way[process.number] = under_way
                if results:
                    on_turns(results)
            case Ready():
                process.ready.set()
            case Failed(reason):
                raise ClientError(reason)
            case Over():
                run.overs.append(news)
                return
    raise ClientError(f"A measuring process ended too early. {await process.last_words()}")


async def _stop_when_told(stop: asyncio.Event, processes: Sequence[_Process]) -> None:
    await stop.wait()
    for process in processes:
        process.tell(Stop())


class _Process:
    def __init__(self, number: int, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("a measuring process is spoken to through its pipes")
        self.number = number
        self.ready = asyncio.Event()
        self._process = process
        self._orders, self._news, self._errors = process.stdin, process.stdout, process.stderr

    @classmethod
    async def start(cls, number: int) -> _Process:
        # A session of its own: Ctrl-C is for us, who tell it.
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *_COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        return cls(number, process)

    def tell(self, order: Order) -> None:
        self._orders.write(pack(order))

    async def news(self) -> AsyncIterator[News]:
        unpacker = Unpacker()
        while data := await self._news.read(_READ_BYTES):
            for message in unpacker.feed(data):
                yield decode_news(message)

    async def last_words(self) -> str:
        said = (await self._errors.read(_READ_BYTES)).decode(errors="replace").strip()
        return said.splitlines()[-1] if said else "It said nothing."

    async def end(self) -> None:
        """It ends by itself when its input does; one that does not is killed."""
        self._orders.close()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_S)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def _machine_time() -> tuple[float, float] | None:
    """(all, stolen) in ticks since the system began, as proc(5) says; None elsewhere."""
    try:
        with open("/proc/stat", encoding="ascii") as stat:
            ticks = [float(field) for field in stat.readline().split()[1:9]]
    except OSError:
        return None
    return sum(ticks), ticks[7]
