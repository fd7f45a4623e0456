"""The tool against a target that logs what it did: the shortest possible self-test, and targets that fail it."""

from __future__ import annotations

import sys

import pytest

from loadtest.errors import TargetError
from loadtest.selftest import Checked, Level, check

pytestmark = pytest.mark.anyio

TARGET = [sys.executable, "-m", "server.cli", "bench", "target"]


async def test_every_turn_is_held_against_the_targets_log() -> None:
    told: list[Checked] = []
    level = Level(streams=4, interval_ms=5, tokens=6)
    (checked,) = await check(TARGET, [level], seconds=0.4, busy_poll=False, on_level=told.append)
    assert told == [checked]
    summary = checked.stage.summary
    assert (checked.unmatched, summary.failed) == (0, 0)
    assert summary.ok >= 1
    # The client cannot have seen a token before the target had sent it. The log and the kernel's stamps are good to 0.1 ms.
    assert checked.error_ms[0] > -0.1
    assert checked.verdict != "turns are missing"
    assert level.reply_s == pytest.approx(0.075)


async def test_a_target_that_does_not_start_is_named() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no port left')"]
    with pytest.raises(TargetError, match="The simulated target did not start: no port left"):
        await check(command, [Level(1, 5, 2)], seconds=0.1, busy_poll=True, on_level=lambda _: None)
