from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from server.context.template import ChatTemplate
from server.engine.protocol import EngineDead, GenerateRequest, Sampling
from server.engine.simulated import SimulatedEngine
from server.engine.supervisor import SupervisedEngine
from server.sections.engine import EngineSettings

pytestmark = pytest.mark.anyio
REQUEST = GenerateRequest("r", [1, 2, 3], Sampling(max_tokens=3))


class Engines:
    """Makes engines and keeps them; the first `broken` do not start."""

    def __init__(self, template: ChatTemplate, broken: int = 0) -> None:
        self.made: list[SimulatedEngine] = []
        self._template = template
        self._broken = broken

    def __call__(self) -> SimulatedEngine:
        engine = SimulatedEngine(EngineSettings(), self._template)
        self.made.append(engine)
        if len(self.made) <= self._broken:

            async def fail() -> None:
                raise EngineDead("no memory")

            engine.start = fail
        return engine


@pytest.fixture
async def supervise() -> AsyncIterator[Callable[[Engines], SupervisedEngine]]:
    started: list[SupervisedEngine] = []

    def start(engines: Engines) -> SupervisedEngine:
        engine = SupervisedEngine(engines, EngineSettings(restart_backoff_s=0.02))
        started.append(engine)
        engine.start()
        return engine

    yield start
    for engine in started:
        await engine.close()


Supervise = Callable[[Engines], SupervisedEngine]


async def test_it_starts_and_answers(supervise: Supervise, template: ChatTemplate) -> None:
    engine = supervise(Engines(template))
    assert engine.status.phase in ("starting", "stopped")
    await asyncio.wait_for(engine.ready(), 5)
    assert engine.status.phase == "ready"
    assert [delta async for delta in engine.generate(REQUEST)][-1].finish_reason == "length"


async def test_after_a_death_another_is_started_and_the_dead_one_is_closed(
    supervise: Supervise, template: ChatTemplate
) -> None:
    engines = Engines(template)
    engine = supervise(engines)
    await asyncio.wait_for(engine.ready(), 5)
    engines.made[0].die("killed")
    while engine.status.phase == "ready":
        await asyncio.sleep(0)
    assert engine.status.phase == "dead"
    assert "killed" in engine.status.detail
    with pytest.raises(EngineDead):
        await anext(engine.generate(REQUEST))
    await asyncio.wait_for(engine.ready(), 5)
    assert (len(engines.made), engine.restarts) == (2, 1)
    assert engines.made[0]._cause == "the engine was stopped"


async def test_an_engine_that_does_not_start_is_tried_again(
    supervise: Supervise, template: ChatTemplate
) -> None:
    engines = Engines(template, broken=3)
    engine = supervise(engines)
    await asyncio.wait_for(engine.ready(), 5)
    assert (len(engines.made), engine.restarts) == (4, 3)


async def test_close_ends_the_engine_and_no_other_is_started(
    supervise: Supervise, template: ChatTemplate
) -> None:
    engines = Engines(template)
    engine = supervise(engines)
    await asyncio.wait_for(engine.ready(), 5)
    await engine.close()
    await asyncio.sleep(0.1)
    assert engine.status.phase == "stopped"
    assert len(engines.made) == 1
    with pytest.raises(EngineDead):
        await anext(engine.generate(REQUEST))
