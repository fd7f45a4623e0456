"""Whatever bytes come, the answer is one of ours, and the server goes on as before."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx
import pytest

from fuzz import bulk, content, corpus, framing, heads
from fuzz.case import Case
from fuzz.exchange import exchange
from fuzz.probe import Probe, probing
from fuzz.size import FULL, SEED, TIMEOUT_S, numbers
from fuzz.verdict import judge
from gateways import ServerProcess
from wire import CHAT, question

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(TIMEOUT_S)]

KINDS = (*framing.KINDS, *heads.KINDS, *content.KINDS, *bulk.KINDS)
AT_ONCE = 12
LONGEST_STALL_MS = 100.0
MOST_TOLD = 20


def make(number: int) -> Case:
    return KINDS[number % len(KINDS)](Random(f"{SEED}:{number}"))


@dataclass(slots=True)
class Tally:
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """By kind."""
    faults: dict[tuple[str, str], str] = field(default_factory=dict)
    """By the kind of input and the beginning of the fault: one of each is told, the others are counted."""
    n_faults: int = 0

    def blame(self, case: Case, number: int, fault: str) -> None:
        self.n_faults += 1
        key = (case.kind, fault[:60])
        if key not in self.faults:
            self.faults[key] = (
                f"{case.kind}: {fault}\n"
                f"    again with FUZZ_SEED={SEED} FUZZ_CASE={number}; kept as {corpus.keep(case).name}\n"
                f"    {case.sent[:300]!r} ({len(case.sent)} bytes)"
            )


async def send(server: ServerProcess, case: Case) -> tuple[list[int], list[str]]:
    """The statuses of its answers, and what is wrong with them."""
    try:
        exchanged = await exchange(
            server.port, case.segments, case.answers, heads_alone=case.asks_for_headers_alone
        )
    except ValueError as error:
        return [], [str(error)]
    return [response.status for response in exchanged.responses], judge(case, exchanged)


@pytest.mark.parametrize("path", corpus.kept(), ids=lambda path: path.stem)
async def test_what_failed_once_does_not_fail_again(fuzzed_server: ServerProcess, path: Path) -> None:
    _, faults = await send(fuzzed_server, corpus.read(path))
    assert not faults


async def test_any_bytes_are_answered_in_our_words(fuzzed_server: ServerProcess) -> None:
    server = fuzzed_server
    await send(server, make(0))
    connections_before = _sockets(server.process.pid)
    output_before = len(server.output)
    chosen = numbers(ci=600, full=50_000)
    tally = Tally()
    started_at = time.monotonic()
    async with probing(server.port, server.process.pid) as probe:
        waiting = iter(chosen)
        await asyncio.gather(*(_work(server, waiting, tally, probe) for _ in range(AT_ONCE)))
    _tell(tally, probe, len(chosen), time.monotonic() - started_at)

    await _settled(server, connections_before)
    assert server.process.poll() is None
    async with httpx.AsyncClient(base_url=server.url, timeout=30, trust_env=False) as client:
        answer = await client.post(CHAT, json=question())
        assert answer.json()["choices"][0]["message"]["content"] == "On port 8000. 👋"
    if tally.faults:
        told = "\n".join([*tally.faults.values()][:MOST_TOLD])
        pytest.fail(f"{tally.n_faults} of {len(chosen)} inputs failed, seed {SEED}:\n{told}", pytrace=False)
    if logged := _tracebacks(server.output[output_before:]):
        pytest.fail(f"{len(logged)} tracebacks were logged, one of them:\n{logged[0]}", pytrace=False)
    if FULL:
        assert probe.longest.net_ms < LONGEST_STALL_MS


async def _work(server: ServerProcess, waiting: Iterator[int], tally: Tally, probe: Probe) -> None:
    for number in waiting:
        case = make(number)
        started_at = time.monotonic()
        with probe.sending(number, case.kind):
            statuses, faults = await send(server, case)
        tally.seconds[case.kind] += time.monotonic() - started_at
        tally.statuses.update(statuses)
        for fault in faults:
            tally.blame(case, number, fault)


def _sockets(pid: int) -> int:
    """That the process has open."""
    folder = f"/proc/{pid}/fd"
    found = 0
    for name in os.listdir(folder):
        try:
            found += os.readlink(f"{folder}/{name}").startswith("socket:")
        except FileNotFoundError:
            continue
    return found


async def _settled(server: ServerProcess, connections_before: int) -> None:
    """No connection and no turn is left of what was sent."""
    give_up_at = time.monotonic() + 30
    async with httpx.AsyncClient(base_url=server.url, timeout=30, trust_env=False) as client:
        while True:
            # This client's own connection is one.
            figures = (await client.get("/metrics")).text
            turns = [line for line in figures.splitlines() if line.startswith("firstword_active_streams ")]
            connections = _sockets(server.process.pid) - 1
            if connections <= connections_before and turns == ["firstword_active_streams 0.0"]:
                return
            assert time.monotonic() < give_up_at, (
                f"{connections} connections of {connections_before} before are open, {turns}"
            )
            await asyncio.sleep(0.1)


def _tracebacks(output: str) -> list[str]:
    """Entries of the server's log that hold one."""
    entries = re.split(r"^(?=\d{4}-\d\d-\d\d )", output, flags=re.MULTILINE)
    return [entry for entry in entries if "Traceback" in entry]


def _tell(tally: Tally, probe: Probe, n_sent: int, took_s: float) -> None:
    stall = probe.longest
    print(
        f"\n{n_sent} inputs, seed {SEED}, in {took_s:.0f} s; statuses {dict(sorted(tally.statuses.items()))}\n"
        f"longest stall {stall.net_ms:.1f} ms (answer after {stall.raw_ms:.1f} ms) in {probe.asked} probes",
        file=sys.stderr,
    )
    for worse in probe.worst if FULL or stall.net_ms > LONGEST_STALL_MS else []:
        print(f"  {worse.net_ms:.0f} ms, meanwhile {', '.join(worse.meanwhile)}", file=sys.stderr)
    longest = sorted(tally.seconds.items(), key=lambda item: -item[1])[:5]
    slowest = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in longest)
    print(f"  most time went to {slowest}", file=sys.stderr)
