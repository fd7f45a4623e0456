"""How wrong the tool itself is: its TTFT beside the log of a target that knows when it sent each token.

The target and the client read the same monotonic clock. The difference holds everything that is not the target's: the
client's lateness in sending, the loopback both ways, the time until the bytes were read. Both share one machine here, so
the levels end where its cores do, and a level whose client was overloaded says so.
"""

from __future__ import annotations

import asyncio
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from loadtest.bench import Bench
from loadtest.errors import TargetError
from loadtest.figures.document import Stage
from loadtest.plan import Plan
from loadtest.workload.conversation import Conversation, UserTurn

TTFT_MS = 50.0
TOLERATED_MS = 1.0
_START_S = 20.0
_SETTLED_AFTER = 3
"""Replies."""
_LISTENING = re.compile(rb"http://[^\s]+:(\d+)")


@dataclass(frozen=True, slots=True)
class Level:
    streams: int
    interval_ms: float
    tokens: int

    @property
    def reply_s(self) -> float:
        return (TTFT_MS + self.interval_ms * (self.tokens - 1)) / 1_000


LEVELS = (
    Level(1, 10, 16),
    Level(10, 10, 32),
    Level(50, 20, 32),
    Level(100, 20, 32),
    Level(200, 25, 32),
    Level(500, 50, 32),
    Level(500, 20, 32),
)
"""The last one is more than two cores can serve and measure."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One level, held against the target's log."""

    level: Level
    stage: Stage
    error_ms: tuple[float, float, float]
    """TTFT by the client less TTFT by the target: p50; then p99 and max of its size, since early is as wrong as late."""
    itl_error_ms: tuple[float, float]
    """Mean gap by the client less mean gap by the target, of each turn: p50, p99 of its size."""
    unmatched: int
    """Turns that the target's log does not know."""

    @property
    def is_honest(self) -> bool:
        """Right, or it says that it was overloaded."""
        return self.verdict in ("exact", "client says: overloaded")

    @property
    def verdict(self) -> str:
        if self.stage.summary.failed or self.unmatched:
            return "turns are missing"
        if self.error_ms[1] <= TOLERATED_MS:
            return "exact"
        return "client says: overloaded" if self.stage.client.warnings else "WRONG, and unnoticed"


class _Logged(msgspec.Struct):
    """What is read of a line of the target's log."""

    request_id: str
    arrived_at: float
    first_token_at: float | None
    last_token_at: float | None
    tokens: int


_decode_logged = msgspec.json.Decoder(_Logged).decode


async def check(
    target_command: Sequence[str],
    levels: Sequence[Level] = LEVELS,
    *,
    seconds: float,
    busy_poll: bool,
    on_level: Callable[[Checked], None],
) -> list[Checked]:
    """Each level in turn, against a target of its own. Raises `TargetError` when the target does not start."""
    checked = []
    with tempfile.TemporaryDirectory() as folder:
        for number, level in enumerate(levels):
            log = Path(folder) / f"target-{number}.jsonl"
            async with _target([*target_command, *_options(level, log)]) as url:
                stage = await _measure(level, url, seconds, busy_poll)
            checked.append(_held_against(level, stage, log))
            on_level(checked[-1])
    return checked


def _options(level: Level, log: Path) -> list[str]:
    return [
        "--port", "0", "--ttft-ms", f"{TTFT_MS:g}", "--interval-ms", f"{level.interval_ms:g}",
        "--tokens", str(level.tokens), "--slots", "4096", "--log", str(log),
    ]  # fmt: skip


@asynccontextmanager
async def _target(command: Sequence[str]) -> AsyncIterator[str]:
    """A target in a process of its own, as a URL; it has written its whole log when this is left."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    try:
        yield f"http://127.0.0.1:{await _port(process)}/v1"
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def _port(process: asyncio.subprocess.Process) -> int:
    said = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(_START_S):
            while process.stdout is not None and (line := await process.stdout.readline()):
                said += line
                if listening := _LISTENING.search(line):
                    return int(listening[1])
    raise TargetError(f"The simulated target did not start: {said.decode(errors='replace').strip()}")


async def _measure(level: Level, url: str, seconds: float, busy_poll: bool) -> Stage:
    bench = Bench(api_key=None)
    model = await bench.find_target(url, None)
    questions = tuple(Conversation(f"q{n}", (UserTurn(f"Question {n}?"),)) for n in range(level.streams))
    # They begin together; pauses let them fall out of step, as users are, before anything counts.
    settled_s = _SETTLED_AFTER * level.reply_s
    plan = Plan(
        url=url,
        model=model,
        conversations=questions,
        concurrency=level.streams,
        duration_s=seconds + settled_s,
        warmup_s=settled_s,
        think=f"0..{level.reply_s / 2:g}",
        max_tokens=level.tokens,
        timeout_s=60.0,
        busy_poll=busy_poll,
    )
    return await bench.run(plan, f"{level.streams} streams")


def _held_against(level: Level, stage: Stage, log: Path) -> Checked:
    logged = {entry.request_id: entry for entry in map(_decode_logged, log.read_bytes().splitlines())}
    errors_ms, itl_errors_ms, unmatched = [], [], 0
    for turn in stage.turns:
        if turn.warmup or turn.ttft_ms is None:
            continue
        entry = logged.get(turn.request_id)
        if entry is None or entry.first_token_at is None or entry.last_token_at is None:
            unmatched += 1
            continue
        errors_ms.append(turn.ttft_ms - (entry.first_token_at - entry.arrived_at) * 1_000)
        if turn.tpot_ms is not None:
            tpot_ms = (entry.last_token_at - entry.first_token_at) * 1_000 / (entry.tokens - 1)
            itl_errors_ms.append(abs(turn.tpot_ms - tpot_ms))
    p50 = np.median(errors_ms or [np.nan])
    p99, worst = np.percentile(np.abs(errors_ms or [np.nan]), [99, 100])
    itl_p50, itl_p99 = np.percentile(itl_errors_ms or [np.nan], [50, 99])
    return Checked(
        level, stage, (float(p50), float(p99), float(worst)), (float(itl_p50), float(itl_p99)), unmatched
    )
