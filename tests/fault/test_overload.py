"""Ten times what the server can do: it goes on doing that much, and refuses the rest at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fault.conftest import Tell
from fault.load import Figures, closed_loop, poisson, volley
from fault.size import FULL, pick, random_of
from fault.summary import quantile
from fault.vitals import cpu_s, gauge, idle_cpu_s, simulated_server
from wire import question

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(pick(120, 600))]

_RUNNING = 16
_QUEUED = 16
_TOKENS = 20
_INTERVAL_MS = 20.0
"""So that a turn takes 0.4 s, and sixteen at a time make 40 a second."""
_PATIENCE_S = 15.0
_REFUSAL_MS = 50
BODY = question(stream=True, max_tokens=_TOKENS, ignore_eos=True)


async def test_ten_times_the_load_costs_nobody_who_is_let_in(
    tmp_path: Path, chat_model_path: Path, knowledge: Path, tell: Tell
) -> None:
    with simulated_server(
        tmp_path,
        chat_model_path,
        knowledge,
        engine__simulated__token_interval_ms=_INTERVAL_MS,
        admission__max_running_turns=_RUNNING,
        admission__max_queued_turns=_QUEUED,
        telemetry__log_level="WARNING",
    ) as server:
        seconds = pick(2.0, 20.0)
        capacity = await closed_loop(server.port, BODY, _RUNNING + _QUEUED // 2, seconds)
        found: dict[int, Figures] = {}
        for times in (1, 10):
            dates = poisson(times * capacity, seconds * pick(1, times**0.3), random_of("overload", times))
            shares = Shares(server.process.pid)
            found[times] = await volley(server.port, BODY, dates, _PATIENCE_S)
            title = f"Poisson arrivals at {times} × the capacity of {capacity:.1f} turns/s"
            tell(title, table(found[times], capacity) | shares.now())
            assert gauge(server, "firstword_active_streams") == gauge(server, "firstword_queue_depth") == 0
    tenfold = found[10]
    for figures in found.values():
        assert figures.hung == 0
        assert figures.other == []
        assert figures.without_retry_after == 0
    goodput = tenfold.finished_per_s / capacity
    assert tenfold.refused > tenfold.finished
    assert goodput > 0.5
    if FULL:
        assert goodput >= 0.9
        ttft_ms = {times: quantile(figures.ttft_ms, 0.99) for times, figures in found.items()}
        assert ttft_ms[10] <= 2 * ttft_ms[1]
        slowest_refusal_ms = max(tenfold.refusal_ms)
        assert slowest_refusal_ms <= _REFUSAL_MS
        assert tenfold.unclear < 0.1 * tenfold.refused


class Shares:
    """Who had the machine meanwhile: where others had much of it, the milliseconds are theirs."""

    def __init__(self, server_pid: int) -> None:
        self._pids = {"the server": server_pid, "this client": os.getpid()}
        self._before = {name: cpu_s(pid) for name, pid in self._pids.items()}
        self._idle_before = idle_cpu_s()
        self._began_at = time.monotonic()

    def now(self) -> dict[str, str]:
        seconds = time.monotonic() - self._began_at
        had = {name: (cpu_s(pid) - self._before[name]) / seconds for name, pid in self._pids.items()}
        idle = (idle_cpu_s() - self._idle_before) / seconds
        others = max(0.0, (os.cpu_count() or 1) - idle - sum(had.values()))
        shares = had | {"others": others, "nobody": idle}
        return {"cores, by who had them": ", ".join(f"{name} {share:.2f}" for name, share in shares.items())}


def table(figures: Figures, capacity: float) -> dict[str, str]:
    refusal_ms = figures.refusal_ms or [0.0]
    return {
        "arrivals": f"{len(figures.late_ms)} in {figures.seconds:.1f} s",
        "finished": f"{figures.finished}, {figures.finished_per_s:.1f}/s, {figures.finished_per_s / capacity:.1%}",
        "refused": f"{figures.refused}, all with retry-after",
        "hung": str(figures.hung),
        "TTFT p50, p99": f"{quantile(figures.ttft_ms, 0.5):.0f}, {quantile(figures.ttft_ms, 0.99):.0f} ms",
        "refusal p50, p99, most": f"{quantile(refusal_ms, 0.5):.1f}, {quantile(refusal_ms, 0.99):.1f}, "
        f"{max(refusal_ms):.1f} ms",
        "refusals while this client stood still": str(figures.unclear),
        "this client late p99, most": f"{quantile(figures.late_ms, 0.99):.1f}, {max(figures.late_ms):.1f} ms",
    }
