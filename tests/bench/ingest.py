"""`python -m bench.ingest`: what an ingest costs the turns beside it, on the real engine.

One reader asks question after question while nothing else happens, and while documents are uploaded without end; in
the order A B B A, so that a drift of the machine's speed meets both alike. About eight minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx
import numpy as np

from bench.conditions import conditions
from bench.process import BENCH_DIR, Server, end_in_order, free_port
from bench.report import Lines, Sheet, keep, open_console, show
from server.settings import PROJECT_ROOT

ORDER = (False, True, True, False)
WORDS_A_DOCUMENT = 3_000
MOST_WAITING = 4
_START_S = 400.0
_MODELS = PROJECT_ROOT / "var" / "models"
_WORDS = sorted({word for page in (PROJECT_ROOT / "docs").glob("*.md") for word in page.read_text().split()})


@dataclass(slots=True)
class Phase:
    ingesting: bool
    ttft_ms: list[float] = field(default_factory=list)
    embed_ms: list[float] = field(default_factory=list)
    search_ms: list[float] = field(default_factory=list)
    chunks: int = 0
    seconds: float = 0.0


class Uploads:
    """Keeps a few documents waiting to be ingested, until it is ended."""

    def __init__(self, url: str, seed: int) -> None:
        self._client = httpx.Client(base_url=url, timeout=60)
        self._draw = random.Random(seed)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.store_id = self._client.post("/v1/vector_stores", json={"name": "bench"}).json()["id"]

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._end.set()
            self._thread.join()

    def completed_chunks(self) -> int:
        page = self._client.get(f"/v1/vector_stores/{self.store_id}/files", params={"limit": 100}).json()
        return sum(file["firstword"]["n_chunks"] for file in page["data"])

    def _run(self) -> None:
        number = 0
        while not self._end.is_set():
            counts = self._client.get(f"/v1/vector_stores/{self.store_id}").json()["file_counts"]
            if counts["in_progress"] >= MOST_WAITING:
                self._end.wait(0.2)
                continue
            number += 1
            text = "\n\n".join(
                " ".join(self._draw.choices(_WORDS, k=60)) + "." for _ in range(WORDS_A_DOCUMENT // 60)
            )
            file = self._client.post(
                "/v1/files",
                data={"purpose": "assistants"},
                files={"file": (f"bench-{number}.txt", text.encode())},
            ).json()
            self._client.post(f"/v1/vector_stores/{self.store_id}/files", json={"file_id": file["id"]})


def ask(client: httpx.Client, words: list[str], phase: Phase) -> None:
    """A question that nobody asked before, so that nothing of it is cached but the system message."""
    body = {
        "messages": [{"role": "user", "content": " ".join(words)}],
        "stream": True,
        "max_tokens": 8,
    }
    began = time.perf_counter()
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            choice = json.loads(line[6:])["choices"][0]
            if choice["delta"].get("content") and len(phase.ttft_ms) == len(phase.embed_ms):
                phase.ttft_ms.append((time.perf_counter() - began) * 1e3)
            if timing := json.loads(line[6:]).get("firstword", {}).get("timing"):
                phase.embed_ms.append(timing["embed"])
                phase.search_ms.append(timing["search"])


def run_phase(url: str, ingesting: bool, turns: int, seed: int) -> Phase:
    phase, draw = Phase(ingesting), random.Random(seed)
    with httpx.Client(base_url=url, timeout=120) as client:
        uploads = Uploads(url, seed) if ingesting else None
        began = time.perf_counter()
        if uploads is None:
            _ask_all(client, draw, phase, turns)
        else:
            with uploads.running():
                time.sleep(5)  # until the first documents are embedded
                began = time.perf_counter()
                _ask_all(client, draw, phase, turns)
            phase.chunks = uploads.completed_chunks()
            client.delete(f"/v1/vector_stores/{uploads.store_id}")
        phase.seconds = time.perf_counter() - began
    return phase


def _ask_all(client: httpx.Client, draw: random.Random, phase: Phase, turns: int) -> None:
    for _ in range(turns):
        ask(client, draw.choices(_WORDS, k=12), phase)
        time.sleep(draw.uniform(0.2, 0.8))


@contextmanager
def serving() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as data:
        port = free_port()
        environment = {
            "FIRSTWORD_DATA_DIR": data,
            "FIRSTWORD_ENGINE__MODEL": str(_MODELS / "SmolLM2-135M-Instruct"),
            "FIRSTWORD_RETRIEVAL__EMBEDDER": str(_MODELS / "all-MiniLM-L6-v2"),
        }
        command = [str(PROJECT_ROOT / ".venv/bin/firstword"), "serve", "--port", str(port)]
        with Server("ingest", command, port, environment, ready_path="/health/ready") as server:
            server.wait_ready(_START_S)
            yield f"http://127.0.0.1:{port}"


def sheet(phases: list[Phase]) -> Sheet:
    both = {
        ingesting: [phase for phase in phases if phase.ingesting is ingesting] for ingesting in (False, True)
    }
    lines: Lines = []
    for name in ("ttft_ms", "embed_ms", "search_ms"):
        idle, busy = (
            [value for phase in both[ingesting] for value in getattr(phase, name)]
            for ingesting in (False, True)
        )
        for percent in (50, 90, 99):
            one, other = np.percentile(idle, percent), np.percentile(busy, percent)
            label = f"{name.removesuffix('_ms')} p{percent}"
            lines.append((label, f"{one:.1f}", f"{other:.1f}", f"{other / one:.2f}x"))
    chunks = sum(phase.chunks for phase in both[True])
    seconds = sum(phase.seconds for phase in both[True])
    turns = sum(len(phase.ttft_ms) for phase in both[True])
    title = f"{turns} turns each way; {chunks} chunks ingested in {seconds:.0f} s beside them"
    return Sheet(title, ("phase", "idle ms", "ingesting ms", "ratio (aim: TTFT p99 at most 1.2x)"), lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=60, help="in each of the four phases")
    options = parser.parse_args()
    end_in_order()
    with serving() as url:
        run_phase(url, False, 5, seed=99)
        phases = [run_phase(url, ingesting, options.turns, seed) for seed, ingesting in enumerate(ORDER)]
    where = conditions()
    sheets = [sheet(phases)]
    show(open_console(), sheets, where)
    document: dict[str, Any] = {"conditions": where, "phases": [asdict(phase) for phase in phases]}
    keep("ingest", sheets, where)
    (BENCH_DIR / "ingest.json").write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
