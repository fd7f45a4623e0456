"""Real measuring processes: few tests, since each costs a start."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from loadtest_made import conversation, make_share
from loadtest_standin import ANSWER, after, always, serving, whole

from loadtest import fleet
from loadtest.arrivals import Arrivals
from loadtest.bench import Bench, Watcher
from loadtest.client.messages import Begin, News, Over, Ready, Start, Stop, Turns, Unpacker, decode_news, pack
from loadtest.errors import ClientError
from loadtest.figures.document import Stage
from loadtest.figures.turn_result import TurnResult
from loadtest.fleet import StageRun, run_stage
from loadtest.plan import Plan

pytestmark = pytest.mark.anyio

WORKER = [sys.executable, "-m", "loadtest.client.worker"]


def a_plan(url: str, *questions: str, **plan: Any) -> Plan:
    conversations = tuple(conversation(question, name=question) for question in questions)
    return Plan(url=url, model="m", conversations=conversations, **plan)


async def a_stage(plan: Plan, processes: int = 1) -> Stage:
    bench = Bench(api_key=None, processes=processes)
    bench._ips = ["127.0.0.1"]
    return await bench.run(plan, "stage")


def children() -> set[int]:
    """Of this process, zombies too."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("counts processes in /proc")
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(entry.name))
    return found


async def test_with_one_slot_ttft_is_counted_from_when_a_turn_was_due_and_not_from_when_it_was_sent() -> None:
    """The test of the whole tool: a queue inside the client must not hide what its users wait for."""
    service_ms, every_ms, n = 60.0, 20.0, 12
    plan = {"arrivals": Arrivals("constant", 1_000 / every_ms), "concurrency": 1, "n_conversations": n}
    async with serving(after(service_ms / 1_000)) as server:
        stage = await a_stage(a_plan(server.url, "q", **plan))
    turns = sorted(stage.turns, key=lambda turn: turn.holding)
    assert [turn.outcome for turn in turns] == ["ok"] * n
    assert [turn.due_s for turn in turns] == pytest.approx([number * every_ms / 1_000 for number in range(n)])
    for number, turn in enumerate(turns):
        assert turn.ttft_ms is not None
        assert turn.sent_ttft_ms is not None
        # The turns before it took the server's whole time: whatever the machine does, it cannot have been sooner.
        assert turn.ttft_ms >= service_ms + number * (service_ms - every_ms) - 1
        assert turn.held_ms >= number * (service_ms - every_ms) - 1 - turn.late_ms
        assert turn.ttft_ms == pytest.approx(turn.held_ms + turn.late_ms + turn.sent_ttft_ms)
    summary, client = stage.summary, stage.client
    assert summary.ttft_ms is not None
    assert summary.sent_ttft_ms is not None
    assert client.held_ms is not None
    assert summary.sent_ttft_ms.p50 >= service_ms - 1
    # What a tool would report that starts its clock with the request: nothing of the queue.
    assert summary.sent_ttft_ms.p50 < service_ms + 3 * (service_ms - every_ms)
    assert summary.ttft_ms.max >= service_ms + (n - 1) * (service_ms - every_ms) - 1
    assert summary.ttft_ms.max > 3 * summary.sent_ttft_ms.p50
    assert client.held_ms.max >= (n - 1) * (service_ms - every_ms) - 1


async def test_processes_share_the_conversations_and_none_is_left_behind() -> None:
    questions = [f"q{number}" for number in range(9)]
    before = children()
    async with serving(always(whole(ANSWER))) as server:
        stage = await a_stage(
            a_plan(server.url, *questions, concurrency=2, warmup_conversations=2), processes=2
        )
        assert sorted(exchange.body["messages"][0]["content"] for exchange in server.requests) == questions
        assert len({exchange.headers["x-request-id"] for exchange in server.requests}) == 9
    assert sorted(turn.conversation_id for turn in stage.turns) == questions
    assert sorted(turn.conversation_id for turn in stage.turns if turn.warmup) == ["q0", "q1"]
    assert (stage.summary.turns, stage.summary.warmup_turns, stage.client.processes) == (7, 2, 2)
    assert stage.client.cpu_us_per_event is not None
    assert stage.client.loop_lag_ms is None or stage.client.loop_lag_ms.n > 0
    assert children() <= before


async def test_when_there_are_more_processes_than_slots_then_the_bound_still_holds() -> None:
    at_a_time = most = 0

    async def script(exchange: Any) -> None:
        nonlocal at_a_time, most
        at_a_time += 1
        most = max(most, at_a_time)
        await asyncio.sleep(0.03)
        at_a_time -= 1
        await exchange.send(whole(ANSWER))

    async with serving(script) as server:
        plan = {"arrivals": Arrivals("constant", 200.0), "concurrency": 1, "timeout_s": 5.0}
        stage = await a_stage(a_plan(server.url, "a", "b", "c", "d", **plan), processes=2)
    assert (stage.summary.ok, most, stage.client.processes) == (4, 1, 1)


async def test_a_process_that_dies_is_an_error_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; sys.stdin.buffer.read(9); sys.exit('the disk is on fire')"
    monkeypatch.setattr(fleet, "_COMMAND", (sys.executable, "-c", code))
    before = children()
    with pytest.raises(ClientError, match=r"ended too early\. the disk is on fire"):
        await a_stage(a_plan("http://127.0.0.1:1/v1", "q"), processes=2)
    assert children() <= before


async def test_a_process_that_is_killed_is_an_error_and_takes_the_others_with_it() -> None:
    class Killer(Watcher):
        def turns_ended(self, results: Sequence[TurnResult]) -> None:
            os.kill(min(children() - before), signal.SIGKILL)

    before = children()
    async with serving(always(whole(ANSWER))) as server:
        bench = Bench(api_key=None, processes=2, watcher=Killer())
        bench._ips = ["127.0.0.1"]
        with pytest.raises(ClientError, match=r"ended too early\. It said nothing"):
            await bench.run(a_plan(server.url, "q", concurrency=2, duration_s=60.0, think="0.01"), "stage")
    assert children() <= before


async def test_a_process_that_cannot_go_on_says_so() -> None:
    plan = a_plan("http://127.0.0.1:1/v1", "q", concurrency=1, think="for a while")
    with pytest.raises(ClientError, match="--think 'for a while'"):
        await a_stage(plan)


async def test_a_run_that_is_stopped_keeps_its_open_turns_as_unfinished() -> None:
    async def script(exchange: Any) -> None:
        if exchange.body["messages"][0]["content"] != "quick":
            await asyncio.sleep(60)
        await exchange.send(whole(ANSWER))

    before = children()
    async with serving(script) as server:
        bench = Bench(api_key=None, processes=1)
        bench._ips = ["127.0.0.1"]
        plan = a_plan(server.url, "quick", "slow", "slower", "never", concurrency=2)
        running = asyncio.create_task(bench.run(plan, "stage"))
        while len(server.requests) < 3:
            await asyncio.sleep(0.005)
        bench.stop.set()
        stage = await asyncio.wait_for(running, 30)
    assert sorted((turn.conversation_id, turn.outcome) for turn in stage.turns) == [
        ("quick", "ok"),
        ("slow", "unfinished"),
        ("slower", "unfinished"),
    ]
    summary = stage.summary
    assert (summary.turns, summary.ok, summary.failed, summary.unfinished) == (1, 1, 0, 2)
    assert summary.ttft_ms is not None
    assert summary.ttft_ms.n == 1
    assert children() <= before


async def test_a_run_that_is_stopped_while_it_warms_up_ends_too() -> None:
    async with serving(always(b"", then="hang")) as server:
        stop = asyncio.Event()
        run = StageRun(a_plan(server.url, "a", "b", warmup_conversations=1, concurrency=1), 1)
        running = asyncio.create_task(
            run_stage(run, ips=["127.0.0.1"], api_key=None, stop=stop, on_turns=lambda _: None)
        )
        while not server.requests:
            await asyncio.sleep(0.005)
        stop.set()
        await asyncio.wait_for(running, 30)
    assert [(turn.outcome, turn.warmup) for turn in run.turns] == [("unfinished", True)]
    assert run.begun_at is None


@pytest.mark.parametrize(
    "said", [b"", b"\x00\x00", "start"], ids=["nothing", "half a length", "the start alone"]
)
def test_a_worker_whose_starter_is_gone_ends(said: bytes | str) -> None:
    if said == "start":
        said = pack(Start(make_share("http://127.0.0.1:1/v1", conversation("q"), concurrency=1)))
    assert isinstance(said, bytes)
    result = subprocess.run(WORKER, input=said, capture_output=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, b"")


def test_a_worker_leaves_ctrl_c_to_its_starter_and_says_all_it_knows_when_it_is_stopped() -> None:
    share = make_share("http://127.0.0.1:1/v1", conversation("q"), concurrency=1, think="60")
    with subprocess.Popen(WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(pack(Start(share)))
        worker.stdin.flush()
        unpacker = Unpacker()
        news: list[News] = []
        while Ready() not in news:
            news += map(decode_news, unpacker.feed(os.read(worker.stdout.fileno(), 65536)))
        worker.send_signal(signal.SIGINT)
        worker.stdin.write(pack(Begin(perf_counter() + 3_600)) + pack(Stop()))
        worker.stdin.flush()
        news += map(decode_news, unpacker.feed(worker.stdout.read()))
        assert worker.wait(20) == 0
    assert isinstance(news[-1], Over)
    assert all(not one.results for one in news if isinstance(one, Turns))


def test_messages_come_out_whole_however_they_were_cut() -> None:
    sent: list[News] = [Ready(), Turns([], 3), Ready()]
    data = b"".join(map(pack, sent))
    for size in range(1, len(data) + 1):
        unpacker = Unpacker()
        found = [one for at in range(0, len(data), size) for one in unpacker.feed(data[at : at + size])]
        assert list(map(decode_news, found)) == sent
