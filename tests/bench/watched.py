"""A gateway on a simulated engine, in a process of its own, that tells what its engine was given of type-ahead."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateways import Gateway, running
from server.engine.mailbox import Inbox
from server.engine.protocol import GenerateRequest
from server.guard.admission import PREWARM_PRIORITY
from server.settings import PROJECT_ROOT, load_settings
from server.starter import starter_chat_model

SLOTS = 16
PREFILL_TOKENS_PER_S = 20_000
TOKEN_INTERVAL_MS = 10
MODELS = PROJECT_ROOT / "var" / "models"
_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """Of the gateway's side, since it was asked last."""

    prewarms: int
    while_queued: int
    """Of them, those that reached the engine while a turn waited for a permit or for its prefill."""
    outcomes: dict[str, int]


class Watch:
    """Counts what the engine is given."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._prewarms = self._while_queued = 0
        self._outcomes: Counter[str] = Counter()
        engine = gateway.engine
        submit = engine.submit

        def counted(request: GenerateRequest, inbox: Inbox) -> None:
            if request.priority == PREWARM_PRIORITY:
                self._prewarms += 1
                self._while_queued += not gateway.parts.admission.leaves_room(1.0)
            submit(request, inbox)

        engine.submit = counted

    def seen(self) -> Seen:
        found = Seen(self._prewarms, self._while_queued, dict(self._told() - self._outcomes))
        self._prewarms = self._while_queued = 0
        self._outcomes = self._told()
        return found

    def _told(self) -> Counter[str]:
        lines = self._gateway.parts.metrics.render().decode().splitlines()
        named = [line.split('"') for line in lines if line.startswith("firstword_prewarms_total")]
        return Counter({outcome: int(float(count.split()[1])) for _, outcome, count in named})


async def serve(top_k: int, slowdown: float) -> None:
    """Says its address, then what was seen each time that it is asked, until its input ends."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = {
            "data_dir": Path(folder),
            "engine.kind": "simulated",
            "engine.model": str(starter_chat_model(MODELS)),
            "engine.tool_parser": "",
            "engine.max_num_seqs": SLOTS,
            "engine.simulated.prefill_tokens_per_s": PREFILL_TOKENS_PER_S / slowdown,
            "engine.simulated.token_interval_ms": TOKEN_INTERVAL_MS * slowdown,
            "retrieval.embedder_kind": "hashing",
            "retrieval.min_score": -1.0,
            "retrieval.top_k": top_k,
            "admission.max_running_turns": SLOTS,
            # All of them write with one key.
            "prewarm.calls_per_minute": 1_000_000,
            "prewarm.max_per_key": 1_000,
        }
        async with running(load_settings(overrides=overrides)) as gateway:
            watch = Watch(gateway)
            print(json.dumps({"url": gateway.url}), flush=True)
            while await asyncio.to_thread(sys.stdin.readline):
                print(json.dumps(asdict(watch.seen())), flush=True)


class Server:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        self.url: str = self._read()["url"]

    def seen(self) -> Seen:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Seen(**self._read())

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


@contextmanager
def serving(top_k: int, slowdown: float) -> Iterator[Server]:
    """`slowdown`: so many times slower than the rates above."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.watched", str(top_k), str(slowdown)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Server(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
