"""The measuring client against the reference server, each a process of its own as in a real run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bench.contestants import Contestant, start_target
from bench.cpu import cpu_time, process_tree
from bench.gateway import measure
from bench.levels import LEVELS, Level
from bench.process import Server, free_port

INTERVAL_S = 0.01


@pytest.fixture(scope="module")
def direct() -> Iterator[Contestant]:
    with start_target(INTERVAL_S) as target:
        target.wait_ready(30)
        yield Contestant("direct", target, None, {})


def test_every_stream_gets_its_tokens_and_every_frame_is_seen(direct: Contestant) -> None:
    figures = measure(Level("small", 12, 100, 60, ("direct",)).plan(direct, [], seed=1))
    assert figures.faults == {}
    assert (figures.complete, figures.tokens, figures.frames) == (12, 720, 720)
    assert figures.ttft_ms is not None
    assert figures.whole is not None
    assert figures.whole.tokens == pytest.approx(720)
    assert figures.whole.cpu_us_per_token["gateway"] > 0
    # The schedule is absolute: 60 tokens take at least 59 intervals, however late single ones are.
    assert figures.whole.wall_s >= 59 * INTERVAL_S


def test_turns_of_one_connection_follow_each_other(direct: Contestant) -> None:
    level = Level("turns", 3, 100, 4, ("direct",), turns=5, in_one_interval=False)
    figures = measure(level.plan(direct, [], seed=1))
    assert (figures.turns, figures.complete, figures.tokens) == (15, 15, 60)
    assert figures.ttft_ms is not None
    assert figures.ttft_ms.n == 15


def test_an_answer_of_the_wrong_length_is_counted_as_a_fault(direct: Contestant) -> None:
    plan = Level("short", 2, 100, 5, ("direct",)).plan(direct, [], seed=1)
    shorter = [
        [body.replace('"max_tokens": 5', '"max_tokens": 4') for body in turns] for turns in plan.bodies
    ]
    assert shorter != plan.bodies
    assert measure(msgspec.structs.replace(plan, bodies=shorter)).faults == {"4 tokens instead of 5": 2}


def test_a_held_server_stands_still_until_it_goes_on(direct: Contestant) -> None:
    (pid,) = direct.server.pids
    direct.server.hold()
    while _state(pid) != "T":
        time.sleep(0.01)
    before = cpu_time(pid)
    time.sleep(0.05)
    assert cpu_time(pid) == before
    direct.server.go_on()
    assert measure(Level("after", 1, 100, 3, ("direct",)).plan(direct, [], seed=1)).complete == 1


def test_the_process_tree_holds_children_and_stopping_ends_them() -> None:
    wait = "import time; time.sleep(600)"
    spawn = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {wait!r}]); {wait}"
    with Server("tree", [sys.executable, "-c", spawn], free_port()) as server:
        while len(server.pids) < 2:
            time.sleep(0.01)
        parent, child = server.pids
        assert process_tree(child) == [child]
    with pytest.raises(ProcessLookupError):
        cpu_time(parent)
    # An orphan that has ended may stay a zombie for as long as init likes.
    while _state(child) not in (None, "Z"):
        time.sleep(0.01)


def _state(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def test_levels_have_names_of_their_own_and_bodies_that_differ(direct: Contestant) -> None:
    assert len({level.name for level in LEVELS}) == len(LEVELS)
    bodies = [body for turns in LEVELS[1].plan(direct, [], seed=0).bodies for body in turns]
    assert len(set(bodies)) == len(bodies) == LEVELS[1].streams
    assert all(json.loads(body)["stream_options"]["include_usage"] for body in bodies)
