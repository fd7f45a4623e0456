from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.telemetry.turnlog import TurnLog, TurnRecord


def record(number: int, **fields: Any) -> TurnRecord:
    defaults: dict[str, Any] = {
        "turn_id": f"turn_{number}",
        "tenant": "acme",
        "created": 1,
        "model": "m",
        "turn": 1,
        "stream": True,
        "outcome": "finished",
        "finish_reason": "stop",
        "error_code": None,
        "phases_ms": {"admit": 1.0},
        "ttft_ms": 1.0,
        "total_ms": 2.0,
        "prompt_tokens": 3,
        "cached_tokens": 1,
        "completion_tokens": 4,
        "passages": ("c1",),
    }
    return TurnRecord(**defaults | fields)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TurnLog]:
    log = TurnLog(tmp_path / "turns.sqlite", turns_kept=10)
    yield log
    log.close()


def ids(turns: list[TurnRecord]) -> list[str]:
    return [turn.turn_id for turn in turns]


def test_turns_are_read_newest_first_and_page_by_page(log: TurnLog) -> None:
    for number in range(6):
        log.append(record(number))
    log.flush()
    assert ids(log.latest("acme", 4)) == ["turn_5", "turn_4", "turn_3", "turn_2"]
    assert ids(log.latest("acme", 4, before="turn_2")) == ["turn_1", "turn_0"]
    assert log.find("acme", "turn_3") == record(3)


def test_a_tenant_sees_its_own(log: TurnLog) -> None:
    log.append(record(1))
    log.append(record(2, tenant="beta"))
    log.flush()
    assert ids(log.latest("beta", 10)) == ["turn_2"]
    assert log.find("beta", "turn_1") is None


def test_only_the_last_are_kept(log: TurnLog) -> None:
    for number in range(40):
        log.append(record(number))
        if number % 7 == 0:
            log.flush()
    log.flush()
    assert ids(log.latest("acme", 100)) == [f"turn_{number}" for number in range(39, 29, -1)]


def test_what_was_appended_before_close_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "turns.sqlite"
    first = TurnLog(path, 10)
    first.append(record(1))
    first.close()
    second = TurnLog(path, 10)
    assert ids(second.latest("acme", 10)) == ["turn_1"]
    second.close()


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    log = TurnLog(tmp_path / "turns.sqlite", 10)
    log.append(record(1))
    log.close()
    assert len(os.listdir("/proc/self/fd")) == before
