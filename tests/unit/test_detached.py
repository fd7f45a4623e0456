from __future__ import annotations

import asyncio
import threading

import pytest

from server.engine.detached import run_detached

pytestmark = pytest.mark.anyio


async def test_the_result_comes_back() -> None:
    assert await run_detached(lambda: threading.current_thread().name, "worker") == "worker"


async def test_what_it_raised_comes_back() -> None:
    with pytest.raises(ZeroDivisionError):
        await run_detached(lambda: 1 / 0, "worker")


async def test_a_result_that_comes_too_late_is_discarded() -> None:
    release, discarded = threading.Event(), asyncio.Event()

    def work() -> str:
        release.wait()
        return "late"

    found: list[str] = []

    def discard(result: str) -> None:
        found.append(result)
        discarded.set()

    waiting = asyncio.create_task(run_detached(work, "worker", discard))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    release.set()
    await asyncio.wait_for(discarded.wait(), 5)
    assert found == ["late"]
