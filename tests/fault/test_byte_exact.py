"""The text that arrives is the text that was said, through any cutting of the bytes and any lagging of the reader."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fault.baseline import port_of, settled, unhandled
from fault.client import Connection
from fault.conftest import Tell
from fault.judge import Truth, judge, turn_id_of
from fault.proxy import Plan, proxied
from fault.size import TIMEOUT_S, cases, random_of, run_cases
from fault.stage import Part, Stage, until_stop
from fault.texts import Tokens, random_stops, random_text, random_tokens
from gateways import Gateway, MakeSettings, running
from server.context.template import ChatTemplate
from server.engine.protocol import FinishReason
from wire import question

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(TIMEOUT_S)]

SUITE = "byte-exact"
_LONGEST = 3_000
_AT_ONCE = 8
_MANY = 50
"""Tokens in one frame: more than a busy event loop merges by itself."""


class Case:
    """One answer, or up to three side by side, and how they are asked for."""

    def __init__(self, number: int, template: ChatTemplate) -> None:
        self.source = source = random_of(SUITE, number)
        self.kind = source.choices(("tokenizer", "cut anywhere", "lagging"), (4, 5, 1))[0]
        self.stops: tuple[str, ...] = ()
        most: int | None = None
        said: list[Tokens | str] = []
        told: list[tuple[str, FinishReason, int]] = []
        for index in range(source.choice((1, 1, 1, 2, 3))):
            text = random_text(source)
            if self.kind == "tokenizer" and (ids := _reversible(text, template)):
                said.append(text)
                told.append((text, "stop", len(ids)))
                continue
            if self.kind == "lagging":
                text = "late " * 40_000
            tokens = random_tokens(source, text)
            if index == 0 and self.kind == "cut anywhere":
                self.stops = random_stops(source, text) if source.random() < 0.5 else ()
                most = source.choice((None, None, source.randint(1, 60)))
            said.append(tokens)
            told.append(until_stop(tokens, self.stops, most))
        self.part = Part(said)
        texts, reasons, lengths = zip(*told, strict=True)
        self.truth = Truth(texts, reasons, sum(lengths))
        self.body: dict[str, Any] = question(
            f"case {number}",
            stream=True,
            n=len(said),
            max_tokens=_LONGEST + 100 if most is None else most,
            retrieval={"enabled": False},
            stream_options={"include_usage": True},
            stop=list(self.stops),
        )

    def plan(self) -> Plan:
        source = self.source
        if self.kind == "lagging":
            return Plan(mishap="stall", after_bytes=3_000, stall_s=0.4, receive_buffer_bytes=4_096)
        match source.randrange(4):
            case 0:
                return Plan(slice_bytes=(1, 1), slices=1_500)
            case 1:
                return Plan(slice_bytes=(1, 40), slices=600, latency_ms=source.uniform(0, 3))
            case 2:
                return Plan(slice_bytes=(1, 5_000), bytes_per_s=source.uniform(2e6, 2e7))
            case _:
                return Plan(latency_ms=source.uniform(0, 10))


def _reversible(text: str, template: ChatTemplate) -> list[int] | None:
    """Its token ids; None when they are too many, or the vocabulary lacks some of its bytes."""
    ids = template.encode(text)
    return ids if len(ids) <= _LONGEST and template.decode(ids) == text else None


async def test_every_answer_arrives_as_it_was_said(
    make_settings: MakeSettings, template: ChatTemplate, stage: Stage, tell: Tell
) -> None:
    settings = make_settings(engine__max_num_seqs=64, **{"engine.simulated.token_interval_ms": 0.2})
    counts: Counter[str] = Counter()

    async def run(number: int, gateway: Gateway) -> None:
        case = Case(number, template)
        stage.parts[number] = case.part
        async with proxied(port_of(gateway), case.plan(), f"{SUITE}:{number}") as proxy:
            connection = await Connection.open(proxy.port)
            try:
                response = await connection.ask(case.body)
            finally:
                connection.leave()
        assert judge(response, case.truth) == "finished"
        del stage.parts[number]
        counts["streams"] += 1
        counts["answers"] += len(case.truth.texts)
        counts["characters"] += sum(map(len, case.truth.texts))
        counts["tokens"] += case.truth.completion_tokens
        counts[f"streams, {case.kind}"] += 1
        counts["answers that a stop string cut short"] += bool(case.stops) * case.truth.reasons.count("stop")
        merged = stage.seen[turn_id_of(response)].most_merged_tokens >= _MANY
        counts["lagging readers whose tokens were merged"] += case.kind == "lagging" and merged

    numbers = cases(SUITE, ci=300, full=10_000)
    async with running(settings) as gateway:
        with unhandled() as told:
            await run_cases(SUITE, numbers, lambda number: run(number, gateway), _AT_ONCE)
            await settled(gateway)
        assert not told
    assert counts["streams"] == len(numbers)
    if len(numbers) >= 300:
        assert counts["lagging readers whose tokens were merged"] > 0.5 * counts["streams, lagging"]
        assert counts["answers that a stop string cut short"] > 0.05 * len(numbers)
    tell("Byte-exact answers", counts)
