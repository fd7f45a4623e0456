"""One tester in one scenario, with a target of its own that has a core, and the CPU time of the client.

The client's CPU time is that of its whole process tree: all of it, and the part between the first request that the
target got and the last token that it sent, which leaves imports, tokenizers and prompts out.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from bench.cpu import cpu_time, machine_time, process_tree
from bench.process import BENCH_DIR, Server, free_port
from bench.testers.contestant import Claimed, Command, Contestant
from bench.testers.scenario import Scenario
from bench.testers.truth import Truth, read_log, truth_of

FOLDER = BENCH_DIR / "testers"
PATIENCE_S = 400.0
_SAMPLE_S = 0.25

TargetKind = Literal["plain", "firstword"]
"""The bench's own, which shares no code with the load tester, or `firstword bench target`."""


class Cost(msgspec.Struct, frozen=True):
    """Of the client, in CPU seconds of its whole process tree."""

    whole_s: float
    """From its start to its end."""
    streaming_s: float | None
    """While the target was answering; None when it answered nothing."""
    elapsed_s: float
    processes: int
    """Most at a time."""
    others_share: float
    """CPU time that neither the client nor the target had, of one core: the bench itself and other programs."""
    stolen_share: float
    """Of the machine's CPU time, taken by its host."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    tester: str
    scenario: str
    repeat: int
    claimed: Claimed | None
    truth: Truth | None
    cost: Cost | None
    fault: str | None
    """Why there is no figure."""

    @property
    def us_per_event(self) -> float | None:
        if self.truth is None or self.cost is None or self.cost.streaming_s is None:
            return None
        return self.cost.streaming_s * 1e6 / self.truth.tokens


def client_cores(scenario: Scenario) -> list[int]:
    mine = sorted(os.sched_getaffinity(0))
    return mine[-1:] if scenario.one_core else mine


def target_core() -> int:
    return sorted(os.sched_getaffinity(0))[0]


def run(contestant: Contestant, scenario: Scenario, repeat: int, target_kind: TargetKind = "plain") -> Run:
    """Never raises for what a tester does: its run has a fault then."""
    folder = FOLDER / f"{scenario.name}-{contestant.name.replace(' ', '-')}-{repeat}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    claimed: Claimed | None = None
    truth: Truth | None = None
    cost: Cost | None = None
    fault: str | None = None
    log = folder / "target.jsonl"
    with start_target(scenario, log, target_kind) as target:
        target.wait_ready(30)
        target.pin([target_core()])
        command = contestant.command(scenario, target.port, folder)
        client = Client(command, folder, target.pids, client_cores(scenario))
        with client:
            code = client.wait()
    if code != 0:
        fault = f"ended with {code}" if code is not None else f"not done after {PATIENCE_S:g} s"
        fault += f": see {folder.name}/output.log"
    truth = truth_of(read_log(log), scenario)
    cost = client.cost(truth)
    try:
        claimed = contestant.read(folder)
    except (OSError, KeyError, ValueError) as error:
        fault = fault or f"its output cannot be read: {type(error).__name__}: {error}"
    return Run(
        tester=contestant.name,
        scenario=scenario.name,
        repeat=repeat,
        claimed=claimed,
        truth=truth,
        cost=cost,
        fault=fault,
    )


def start_target(scenario: Scenario, log: Path, kind: TargetKind) -> Server:
    port = free_port()
    options = ["--port", str(port), "--log", str(log)]
    options += ["--ttft-ms", str(scenario.ttft_ms), "--interval-ms", str(scenario.interval_ms)]
    match kind:
        case "plain":
            argv = [sys.executable, "-m", "bench.testers.target", *options]
            argv += ["--role-first"] if scenario.role_first else []
            return Server("testers-target", argv, port)
        case "firstword":
            argv = [sys.executable, "-m", "server.cli", "bench", "target", "--quiet", *options]
            argv += ["--early-role"] if scenario.role_first else []
            return Server("testers-target", argv, port, ready_path="/v1/models")


class Client:
    """A tester's processes; leaving its `with` block ends all of them."""

    def __init__(
        self, command: Command, folder: Path, target_pids: Sequence[int], cores: Sequence[int]
    ) -> None:
        self._cpu_s: dict[int, float] = {}
        self._at: list[float] = []
        self._total_s: list[float] = []
        self._most = 0
        self._target_pids = target_pids
        self._reaped_s = _children_s()
        self._whole_s = 0.0
        self._begun_at = time.perf_counter()
        self._elapsed_s = 0.0
        self._machine = machine_time()
        self._target_s = self._target_cpu_s()
        self._others_share = 0.0
        self._stolen_share = 0.0
        with (folder / "output.log").open("wb") as output:
            self._process = subprocess.Popen(
                ["taskset", "-c", ",".join(map(str, cores)), *command.argv],
                cwd=folder,
                env=_environment() | dict(command.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        left = process_tree(self._process.pid)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # A tester may put its own processes into groups of their own.
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def wait(self) -> int | None:
        """Its exit status; None when it ran out of time."""
        while (code := self._process.poll()) is None:
            if time.perf_counter() - self._begun_at > PATIENCE_S:
                break
            self._sample()
            time.sleep(_SAMPLE_S)
        self._elapsed_s = time.perf_counter() - self._begun_at
        self._whole_s = _children_s() - self._reaped_s
        machine = machine_time()
        known_s = self._whole_s + self._target_cpu_s() - self._target_s
        self._others_share = (machine.busy_s - self._machine.busy_s - known_s) / self._elapsed_s
        self._stolen_share = (machine.stolen_s - self._machine.stolen_s) / (
            machine.all_s - self._machine.all_s
        )
        return code

    def cost(self, truth: Truth | None) -> Cost:
        streaming_s = None
        if truth is not None and self._at:
            before_s, after_s = np.interp([truth.begun_at, truth.ended_at], self._at, self._total_s)
            streaming_s = float(after_s - before_s)
        whole_s = max(self._whole_s, self._total_s[-1] if self._total_s else 0.0)
        return Cost(
            whole_s,
            streaming_s,
            self._elapsed_s,
            self._most,
            max(0.0, self._others_share),
            self._stolen_share,
        )

    def _sample(self) -> None:
        tree = process_tree(self._process.pid)
        for pid in tree:
            # One that has ended keeps its last figure.
            with suppress(ProcessLookupError):
                self._cpu_s[pid] = cpu_time(pid)
        self._most = max(self._most, len(tree))
        self._at.append(time.perf_counter())
        self._total_s.append(sum(self._cpu_s.values()))

    def _target_cpu_s(self) -> float:
        return sum(map(cpu_time, self._target_pids))


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _environment() -> dict[str, str]:
    """No telemetry, no settings of Firstword's, no proxy on the way to the target."""
    dropped = ("FIRSTWORD_", "PYTHON", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    clean = {key: value for key, value in os.environ.items() if not key.upper().startswith(dropped)}
    return clean | {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
