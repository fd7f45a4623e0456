"""Each write, fsync, rename and truncation fails in turn, in five ways: a typed error, and nothing lost."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import pytest

from crash.conftest import Tell
from crash.judge import Follower, judged, judged_backup, which
from crash.model import State, applied
from crash.nursery import Child, Nursery, Refusal
from crash.operations import FIRST_MODEL, Operation, model_after
from crash.size import AT_MOST, TIMEOUT_S, chosen, named, pick, random_of

pytestmark = pytest.mark.timeout(TIMEOUT_S)

N_SAMPLED = 8
WAYS = ("EIO", "ENOSPC", "short", "half", "lasting")
"""As `faults.c` says."""
LETTERS = {"w": "write", "s": "fsync", "t": "truncate", "r": "rename"}
Afterwards = Literal["goes on", "goes on and closes", "is killed"]
AFTERWARDS: tuple[Afterwards, ...] = get_args(Afterwards)
"""What becomes of the process in which a call failed; it is killed at last in any case."""

_NEXT = model_after(FIRST_MODEL)
_TEXTS = ("one ", "two ", "three ", "four ", "five ")

SCENARIO = (
    Operation("open"),
    Operation("ingest", name="d-1", texts=_TEXTS),
    Operation("create store", name="a-1"),
    Operation("upload", name="a-2", texts=_TEXTS),
    Operation("attach", "a-1", "a-2", attributes={"n": 1}),
    Operation("snapshot"),
    Operation("backup"),
    Operation("finish", "a-1", "a-2", texts=_TEXTS),
    Operation("update", name="d-1", texts=(*_TEXTS[::-1], "six ", "seven "), repeat=200),
    Operation("prune", name="d-1", attributes={"n": 2}),
    Operation("snapshot"),
    Operation("backup"),
    Operation("checkpoint"),
    Operation("reindex begin", name=_NEXT),
    Operation("reindex put", name=_NEXT, limit=100),
    Operation("reindex finish", name=_NEXT),
    Operation("delete", name="d-1"),
    Operation("compaction"),
    Operation("close"),
    Operation("open"),
    Operation("ingest", name="d-2", texts=_TEXTS),
)
_OF_THE_STORE = {"open", "close", "snapshot", "compaction", "backup", "checkpoint"}
"""What leaves the documents as they are."""


def test_no_failing_call_loses_or_halves_anything(
    tmp_path: Path, faulty_workers: Nursery, tell: Tell
) -> None:
    trace = calls_of_the_scenario(tmp_path / "all", faulty_workers)
    cases = [
        (at, way)
        for at, letter in enumerate(trace, 1)
        for way in WAYS
        if letter == "w" or way not in ("short", "half")
    ]
    numbered = chosen("calls", cases)
    n = min(pick(N_SAMPLED, len(numbered)), AT_MOST, len(numbered))
    numbered = sorted(random_of("calls", n).sample(numbered, n))
    struck: Counter[tuple[str, str]] = Counter()
    ended: Counter[tuple[str, str]] = Counter()
    for number, (at, way) in numbered:
        folder = tmp_path / str(number)
        with named("calls", number), faulty_workers.child(folder_made(folder)) as child:
            case = Case(folder, child, at, way)
            case.run(AFTERWARDS[number % 3])
            letter = LETTERS[trace[at - 1]]
            struck[letter, way] += 1
            ended[letter, case.end] += 1
        shutil.rmtree(folder)
    ends = sorted({end for _, end in ended})
    rows: list[Sequence[object]] = [("call", "in the scenario", *WAYS, *ends)]
    for sign, letter in LETTERS.items():
        rows.append(
            (
                letter,
                trace.count(sign),
                *(struck[letter, way] for way in WAYS),
                *(ended[letter, end] for end in ends),
            )
        )
    tell(f"{len(numbered)} failing calls in a scenario of {len(SCENARIO)} operations", rows)


def calls_of_the_scenario(folder: Path, workers: Nursery) -> str:
    """A letter for each call."""
    with workers.child(folder_made(folder)) as child:
        case = Case(folder, child, 0, "EIO")
        case.run("goes on and closes")
    trace = case.trace
    # SQLite and Python really make their calls through the library, the ones that matter each.
    assert set(trace) == set(LETTERS)
    assert trace.count("s") >= len(SCENARIO) / 2
    assert trace.count("w") > 100
    return trace


class Case:
    """The scenario with one fault in it; what failed is done again when the fault is over, in the same process."""

    def __init__(self, folder: Path, child: Child, at: int, way: str) -> None:
        self._folder = folder
        self._child = child
        self._arming = Operation("arm", name=way, limit=at)
        self._state = State()
        self._ids: dict[str, str] = {}
        self._backed_up: list[State] = []
        self.trace = ""
        self.end = "not seen"

    def run(self, afterwards: Afterwards) -> None:
        armed = True
        self._ask(self._arming)
        for operation in SCENARIO:
            try:
                told = self._ask(operation)
            except Refusal as refusal:
                if not armed or not self._disarmed():
                    raise  # nothing had failed
                armed = False
                self.end = str(refusal).partition(":")[0]
                if afterwards == "is killed":
                    self._judge_now(operation)
                    return
                if operation.kind == "backup":
                    self._backed_up.append(self._state)
                if operation.kind == "open" or not self._happened(operation):
                    told = self._ask(operation)
                else:
                    told = None
            self._settle(operation, told)
        if armed:
            struck = self._disarmed()
            assert bool(struck) == bool(self._arming.limit)
        if afterwards == "goes on and closes":
            self._ask(Operation("close"))
        self._child.kill()
        self._child.close()
        verdict = judged(self._folder, [self._state], Follower())
        assert verdict.snapshot is not None
        assert judged_backup(self._folder, self._backed_up) is not None

    def _judge_now(self, operation: Operation) -> None:
        """What failed is there wholly or not at all, and so is what it would have written anew."""
        self._child.kill()
        self._child.close()
        n_new = min(operation.limit, self._state.n_missing) if operation.kind == "reindex put" else 0
        candidates = [self._state, applied(self._state, operation)]
        judged(self._folder, candidates, Follower(), n_new)
        held = judged_backup(self._folder, [*self._backed_up, self._state])
        assert held is not None or not self._backed_up

    def _happened(self, operation: Operation) -> bool:
        """Whether the operation that failed is there nonetheless: wholly, or not at all."""
        if operation.kind in _OF_THE_STORE:
            return False
        seen = self._ask(Operation("observe"))
        after = applied(self._state, operation)
        n_new = min(operation.limit, self._state.n_missing) if operation.kind == "reindex put" else 0
        place = which(seen, [self._state, after], n_new)
        self._ids = dict(seen.ids)
        return bool(place) and after != self._state

    def _settle(self, operation: Operation, told: object) -> None:
        self._state = applied(self._state, operation)
        if operation.kind == "backup":
            self._backed_up = [self._state]
        if isinstance(told, str) and told and operation.kind != "attach":
            self._ids[operation.name] = told
        if operation.kind == "reindex put":
            seen = self._ask(Operation("observe"))
            self._state = replace(self._state, gathered=seen.state.gathered)

    def _disarmed(self) -> int:
        struck, self.trace = self._ask(Operation("disarm"))
        return struck

    def _ask(self, operation: Operation) -> object:
        return self._child.ask(operation, self._ids)


def folder_made(folder: Path) -> Path:
    folder.mkdir()
    return folder
