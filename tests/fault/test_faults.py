"""Engines that fail, connections that break, clients that leave, in any mixture: no token lost or doubled, one ending."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from fault.baseline import port_of, settled, unhandled
from fault.client import FAREWELLS, Connection, Cut, Response
from fault.conftest import Tell
from fault.judge import Truth, judge
from fault.proxy import Plan, proxied
from fault.size import FULL, TIMEOUT_S, cases, named, random_of
from fault.stage import Part, Stage
from fault.texts import random_text, random_tokens
from gateways import Gateway, MakeSettings, running
from server.engine.simulated import Fault
from wire import question

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(TIMEOUT_S)]

SUITE = "faults"
_TURNS = 6
"""In one case, side by side: the fault of one is felt by the others."""
_STALL_S = 0.25
_PATIENCE_S = 20.0
"""No turn takes so long; one that does hangs."""

REFUSALS = {"500 internal_error", "503 engine_died", "503 not_ready"}
ERRORS = {"error event internal_error", "error event engine_died"}


@dataclass(slots=True)
class Turn:
    """One of a case's turns, and all that is to befall it."""

    number: int
    part: Part
    truth: Truth
    body: dict[str, Any]
    plan: Plan | None
    leaves_after_s: float | None
    source: Random

    @property
    def stands(self) -> bool:
        """Whether its connection is left whole from outside."""
        broken = self.plan is not None and self.plan.mishap is not None and self.plan.stall_s is None
        return not broken and self.leaves_after_s is None


def make_turn(case: int, position: int, source: Random) -> Turn:
    number = case * _TURNS + position
    n = source.choice((1, 1, 1, 1, 2, 3))
    texts = [random_text(source)[:400] for _ in range(n)]
    said = [random_tokens(source, text)[:200] for text in texts]
    truth = Truth(
        ["".join(piece for _, piece in tokens) for tokens in said], ["stop"] * n, sum(map(len, said))
    )
    stream = source.random() < 0.8
    body = question(
        f"case {number}",
        stream=stream,
        n=n,
        max_tokens=1_000,
        retrieval={"enabled": source.random() < 0.3},
        **({"stream_options": {"include_usage": True}} if stream else {}),
    )
    turn = Turn(number, Part(said), truth, body, None, None, source)
    longest = max(map(len, said))
    match source.choices(("engine", "proxy", "client", "nothing"), (5, 3, 2, 2))[0]:
        case "engine":
            attempts = source.choice((1, 1, 1, 2))
            turn.part.faults = [random_fault(source, longest) for _ in range(attempts)]
        case "proxy":
            turn.plan = random_plan(source)
        case "client":
            turn.leaves_after_s = source.uniform(0, 0.3)
    return turn


def random_fault(source: Random, longest: int) -> Fault:
    kind = source.choices(("raise", "stall", "die"), (5, 3, 2))[0]
    return Fault(kind, 0 if source.random() < 0.3 else source.randint(0, longest))


def random_plan(source: Random) -> Plan:
    mishap = source.choices(("reset", "stall", "half_close"), (2, 2, 1))[0]
    return Plan(
        slice_bytes=(1, source.choice((5, 100, 4_000))),
        slices=400,
        mishap=mishap,
        after_bytes=source.choice((0, source.randint(0, 800), source.randint(0, 20_000))),
        stall_s=source.choice((0.05, 0.5, None)) if mishap == "stall" else None,
    )


async def play(turn: Turn, gateway: Gateway) -> str:
    """The turn's ending, its promises kept."""
    async with proxied(port_of(gateway), turn.plan or Plan(), f"{SUITE}:{turn.number}") as proxy:
        connection = await Connection.open(proxy.port if turn.plan else port_of(gateway))
        patience_s = _PATIENCE_S
        if turn.leaves_after_s is not None:
            patience_s = turn.leaves_after_s
        elif not turn.stands:
            patience_s = 1.0
        try:
            async with asyncio.timeout(patience_s):
                response = await connection.ask(turn.body)
        except Cut:
            assert turn.plan is not None, "the server cut the connection"
            assert not turn.stands, "the server cut the connection"
            response = connection.reader.response
            assert not response.complete
        except TimeoutError:
            assert not turn.stands, f"no ending after {patience_s} s"
            return told_before_leaving(turn, connection)
        finally:
            connection.leave(turn.source.choice(FAREWELLS))
            connection.leave()
    return ending_of(response, turn)


def told_before_leaving(turn: Turn, connection: Connection) -> str:
    """What had come until the client left was true, too."""
    if connection.reader.response.status:
        ending_of(connection.reader.response, turn)
    return "left"


def ending_of(response: Response, turn: Turn) -> str:
    if not response.status:
        return "cut"
    ending = judge(response, turn.truth)
    assert ending in {"finished", "cut"} | ERRORS | REFUSALS, ending
    return ending


async def test_every_stream_that_stands_ends_once_and_whole_or_with_an_error(
    make_settings: MakeSettings, stage: Stage, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Restarts are frequent here; the pause between them must not grow.
    monkeypatch.setattr("server.engine.supervisor._LONGEST_BACKOFF_S", 0.02)
    settings = make_settings(
        engine__restart_backoff_s=0.01,
        engine__stall_s=_STALL_S,
        engine__stall_restart_s=_STALL_S,
        engine__canary_s=1_000,
        engine__max_num_seqs=64,
        **{"engine.simulated.token_interval_ms": 0.5},
    )
    counts: Counter[str] = Counter()

    async def run(case: int, gateway: Gateway) -> None:
        source = random_of(SUITE, case)
        stage.stall_s = source.choice((0.05, 0.4, None))
        turns = [make_turn(case, position, source) for position in range(_TURNS)]
        stage.parts = {turn.number: turn.part for turn in turns}
        await gateway.ready()
        endings = await asyncio.gather(*(play(turn, gateway) for turn in turns))
        faults = [fault for turn in turns for fault in turn.part.faults]
        for turn, ending in zip(turns, endings, strict=True):
            standing = "connection stands" if turn.stands else "connection breaks"
            counts[f"{standing}: {ending}"] += 1
            if turn.stands and all(fault.kind == "raise" for fault in faults) and not turn.part.faults:
                assert ending == "finished", "no fault could reach it"
        counts["faults"] += len(faults) + sum(not turn.stands for turn in turns)
        await settled(gateway)

    numbers = cases(SUITE, ci=12, full=400)
    async with running(settings) as gateway:
        with unhandled() as told:
            for number in numbers:
                with named(SUITE, number):
                    await run(number, gateway)
        assert not told
        counts["engine restarts"] = gateway.parts.engine.restarts
    if FULL and len(numbers) == 400:
        assert counts["faults"] >= 2_000
    tell("Random faults", dict(sorted(counts.items())))
