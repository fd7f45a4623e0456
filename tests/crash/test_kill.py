"""`kill -9` at random moments of everything that writes: what was acknowledged is there, and nothing by halves."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from random import Random
from statistics import median

import pytest

from crash.conftest import Tell
from crash.draw import KINDS, Draw
from crash.judge import Follower, judged, judged_backup
from crash.model import State, applied
from crash.nursery import Child, Nursery
from crash.operations import DEFAULT_MOMENT_S, Operation
from crash.size import FULL, TIMEOUT_S, pick, random_of
from crash.worker import BACKUP, INDEX, STORE
from retrieval.store.sqlite_store import SqliteStore

pytestmark = pytest.mark.timeout(TIMEOUT_S)

N_KILLS = pick(10, 200)
N_CREATIONS = pick(2, 30)
_MOST_STEPS = 50
OUTCOMES = ("nothing of it", "the whole of it", "acknowledged")


def targets(n: int) -> list[str]:
    """Every kind, the ones that the others rest on more often, each in turn."""
    turns = [
        kind for kind, weight in KINDS.items() for _ in range(max(1, round(weight * n / sum(KINDS.values()))))
    ]
    random_of("targets", n).shuffle(turns)
    return list(islice(cycle(turns), n))


@dataclass
class Rounds:
    """One store that outlives many workers."""

    folder: Path
    random: Random
    draw: Draw
    state: State = field(default_factory=State)
    ids: dict[str, str] = field(default_factory=dict)
    follower: Follower = field(default_factory=Follower)
    saved: list[tuple[int, int]] = field(default_factory=list)
    """What the index's snapshot may be of: version and dimensions."""
    backed_up: list[State] = field(default_factory=list)
    took_s: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=9)))
    met: Counter[tuple[str, str]] = field(default_factory=Counter)
    n_acknowledged: int = 0
    n_strays: int = 0

    def run(self, child: Child, target: str, bystander: SqliteStore | None) -> bool:
        """False when the target had been acknowledged before the kill came."""
        operation = Operation("open")
        n_before = self.random.randint(2, 6)
        for _ in range(n_before if target != "open" else 0):
            self.acknowledged(child, operation)
            operation = self.draw.any_of(self.state)
            if bystander and self.random.random() < 0.3:
                self.follower.follow(bystander)
        for _ in range(_MOST_STEPS):
            if operation.kind == target:
                break
            self.acknowledged(child, operation)
            operation = self.draw.towards(target, self.state)
        return self.killed(child, operation)

    def acknowledged(self, child: Child, operation: Operation) -> None:
        begun = time.perf_counter()
        told = child.ask(operation, self.ids)
        self.took_s[operation.kind].append(time.perf_counter() - begun)
        self.settle(operation, told)
        if self.state.next_model:
            gathered = child.ask(Operation("observe"), self.ids).state.gathered
            self.state = replace(self.state, gathered=gathered)

    def settle(self, operation: Operation, told: object) -> None:
        """It was acknowledged: from here on it must be there."""
        self.n_acknowledged += 1
        before, self.state = self.state, applied(self.state, operation)
        if isinstance(told, str) and told:
            batch = f"batch of {operation.store} {operation.name}"
            self.ids[batch if operation.kind == "attach" else operation.name] = told
        if operation.kind in ("snapshot", "compaction"):
            assert isinstance(told, tuple)
            self.saved = [told]
        if operation.kind == "backup":
            self.backed_up = [before, self.state]

    def killed(self, child: Child, operation: Operation) -> bool:
        child.send(operation, self.ids)
        time.sleep(self.random.uniform(0, median(self.took_s[operation.kind] or [DEFAULT_MOMENT_S])))
        child.kill()
        candidates = [self.state, applied(self.state, operation)]
        had_backup = bool(self.backed_up)
        try:
            self.settle(operation, child.answer())
        except EOFError:
            in_flight = True
            if operation.kind == "backup":
                self.backed_up += candidates
        else:
            in_flight = False
            candidates = [self.state]
        child.close()
        self.plant_strays()
        n_new = min(operation.limit, self.state.n_missing) if operation.kind == "reindex put" else 0
        verdict = judged(self.folder, candidates, self.follower, n_new)
        outcome = OUTCOMES[verdict.candidate] if in_flight else OUTCOMES[2]
        if n_new and in_flight and len(verdict.observed.state.gathered) > len(candidates[0].gathered):
            outcome = OUTCOMES[1]
        self.met[operation.kind, outcome] += 1
        self.state, self.ids = verdict.observed.state, dict(verdict.observed.ids)
        self.check_snapshot(
            verdict.snapshot, saving=in_flight and operation.kind in ("snapshot", "compaction")
        )
        held = judged_backup(self.folder, self.backed_up)
        assert held is not None or not had_backup
        self.backed_up = [] if held is None else [self.backed_up[held]]
        return in_flight

    def check_snapshot(self, found: tuple[int, int] | None, saving: bool) -> None:
        """The last one that was acknowledged, or the one that was being written; of the model's dimensions."""
        dim = int(self.state.model.split("-")[1])
        expected = [each for each in self.saved if each[1] == dim]
        if saving and found is not None:
            # Of which version the one in flight was is not known; it must be a whole one, and not an older one.
            assert not expected or found[0] >= expected[0][0]
            self.saved = [found]
        else:
            assert [found] == (expected or [None])

    def plant_strays(self) -> None:
        """What other crashes may have left: pieces of files under every temporary name."""
        if self.random.random() < 0.5:
            return
        piece = self.random.randbytes(self.random.choice([0, 100, 10_000]))
        for name in (
            f"{INDEX}.0123456789ab.tmp",
            f".{BACKUP}.part",
            f".{BACKUP}.part-journal",
            f".{BACKUP}.part-wal",
        ):
            (self.folder / name).write_bytes(piece)
            self.n_strays += 1
        log = self.folder / f"{STORE}-wal"
        if log.exists() and log.stat().st_size:
            # The beginning of a transaction that was never committed.
            with log.open("ab") as file:
                file.write(piece)

    def table(self) -> list[Sequence[object]]:
        rows: list[Sequence[object]] = [("killed during", "times", *OUTCOMES)]
        for kind in KINDS:
            counts = [self.met[kind, outcome] for outcome in OUTCOMES]
            rows.append((kind, sum(counts), *counts))
        totals = [sum(self.met[kind, outcome] for kind in KINDS) for outcome in OUTCOMES]
        return [*rows, ("all", sum(totals), *totals)]


def test_what_was_acknowledged_survives_every_kill(tmp_path: Path, workers: Nursery, tell: Tell) -> None:
    random = random_of("kill", 0)
    rounds = Rounds(tmp_path, random, Draw(random))
    waiting, n_in_flight = deque(targets(N_KILLS)), 0
    for number in range(4 * N_KILLS):
        target = waiting.popleft()
        with ExitStack() as stack:
            try:
                child = stack.enter_context(workers.child(tmp_path))
                bystander = None
                if number % 2 and number > 1:
                    # As a server beside a command that ingests: it has the store open when the other one dies.
                    bystander = SqliteStore(tmp_path / STORE)
                    stack.callback(bystander.close)
                in_flight = rounds.run(child, target, bystander)
            except BaseException as error:
                error.add_note(f"round {number}, killed during {target}")
                raise
        n_in_flight += in_flight
        if FULL and not in_flight:
            waiting.append(target)  # the kill came late: once more
        if not waiting:
            break
    assert not FULL or n_in_flight >= N_KILLS, "too few kills came in time"
    tell(
        f"{number + 1} kills, {n_in_flight} of them amid an operation; {rounds.n_acknowledged} operations acknowledged, none lost, none by halves; "
        f"{rounds.n_strays} stray files planted; views followed {rounds.follower.n_followed} times, were built "
        f"anew {rounds.follower.n_rebuilt} times",
        rounds.table(),
    )


def test_a_store_whose_making_was_killed_can_be_made_again(
    tmp_path: Path, workers: Nursery, tell: Tell
) -> None:
    random = random_of("creation", 0)
    made: Counter[str] = Counter()
    for number in range(N_CREATIONS):
        folder = tmp_path / str(number)
        folder.mkdir()
        with workers.child(folder) as child:
            child.send(Operation("open"), {})
            time.sleep(random.uniform(0, 0.012))
            child.kill()
            child.close()
        made[
            "with tables"
            if (folder / STORE).exists() and (folder / STORE).stat().st_size
            else "empty or none"
        ] += 1
        judged(folder, [State()], Follower())
    tell(f"{N_CREATIONS} kills while a store is made", [("left behind", "times"), *made.items()])
