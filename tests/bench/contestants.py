"""What is measured: how each is started, and what is sent to it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from bench.process import BENCH_DIR, Server, free_port
from server.settings import PROJECT_ROOT

Name = Literal["direct", "naive", "litellm", "firstword"]

LITELLM = BENCH_DIR / "litellm" / "bin" / "litellm"
MODEL = "bench"
REPLY = "The gateway is what is measured here, so the engine behind it only keeps time and says this again. "
"""Plain words: every token is text, so every token is a frame."""

_START_S = 120.0


@dataclass(frozen=True, slots=True)
class Contestant:
    name: Name
    server: Server
    upstream: Server | None
    """None: it makes its tokens itself."""
    extra: dict[str, Any]
    """Fields that only its requests have."""

    def body(self, prompt: str, tokens: int) -> str:
        fields = {
            "model": MODEL,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": tokens,
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}],
        }
        return json.dumps(fields | self.extra)

    @property
    def servers(self) -> list[Server]:
        return [self.server, self.upstream] if self.upstream else [self.server]


@contextmanager
def standing(names: list[Name], interval_s: float) -> Iterator[dict[Name, Contestant]]:
    """Each started, ready and held still."""
    with ExitStack() as stack:
        target = stack.enter_context(start_target(interval_s))
        target.wait_ready(_START_S)
        found: dict[Name, Contestant] = {}
        for name in names:
            found[name] = _start(name, target, interval_s, stack)
        for contestant in found.values():
            contestant.server.wait_ready(_START_S)
            contestant.server.hold()
        target.hold()
        yield found


def _start(name: Name, target: Server, interval_s: float, stack: ExitStack) -> Contestant:
    match name:
        case "direct":
            return Contestant(name, target, None, {})
        case "naive":
            return Contestant(name, stack.enter_context(start_naive(target)), target, {})
        case "litellm":
            return Contestant(name, stack.enter_context(start_litellm(target)), target, {})
        case "firstword":
            data_dir = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            extra = {"ignore_eos": True, "retrieval": {"enabled": False}}
            return Contestant(name, stack.enter_context(start_firstword(data_dir, interval_s)), None, extra)


def start_target(interval_s: float) -> Server:
    port = free_port()
    arguments = ["--port", str(port), "--interval-ms", str(interval_s * 1_000)]
    return Server("target", [sys.executable, "-m", "bench.target", *arguments], port)


def start_naive(target: Server) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.naive:app", "--port", str(port), "--no-access-log"]
    command += ["--loop", "uvloop", "--http", "httptools", "--ws", "none", "--log-level", "warning"]
    upstream = {"BENCH_UPSTREAM": f"http://127.0.0.1:{target.port}"}
    return Server("naive", command, port, upstream, ready_path="/live")


def start_litellm(target: Server) -> Server:
    port = free_port()
    config = PROJECT_ROOT / "tests" / "bench" / "litellm.yaml"
    command = [str(LITELLM), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "BENCH_UPSTREAM": f"http://127.0.0.1:{target.port}/v1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
    }
    return Server(
        "litellm", [*command, "--num_workers", "1"], port, environment, ready_path="/health/liveliness"
    )


def start_firstword(data_dir: str, interval_s: float) -> Server:
    """`firstword serve` with its simulated engine, and nothing that a turn would have to wait for."""
    port = free_port()
    environment = {
        "FIRSTWORD_DATA_DIR": data_dir,
        "FIRSTWORD_ENGINE__KIND": "simulated",
        "FIRSTWORD_ENGINE__MODEL": str(PROJECT_ROOT / "var" / "models" / "SmolLM2-135M-Instruct"),
        "FIRSTWORD_ENGINE__SERVED_MODEL_NAME": MODEL,
        "FIRSTWORD_ENGINE__MAX_NUM_SEQS": "4096",
        "FIRSTWORD_ENGINE__SIMULATED__TOKEN_INTERVAL_MS": str(interval_s * 1_000),
        "FIRSTWORD_ENGINE__SIMULATED__PREFILL_TOKENS_PER_S": "1e9",
        "FIRSTWORD_ENGINE__SIMULATED__REPLY": REPLY,
        "FIRSTWORD_ADMISSION__MAX_RUNNING_TURNS": "4096",
        "FIRSTWORD_ADMISSION__MAX_PREFILL_TOKENS": "1000000",
        "FIRSTWORD_RETRIEVAL__EMBEDDER_KIND": "hashing",
        "FIRSTWORD_RETRIEVAL__SAMPLE_KNOWLEDGE": "",
        "FIRSTWORD_HTTP__SHUTDOWN_GRACE_S": "1",
    }
    command = [sys.executable, "-m", "server.cli", "serve", "--port", str(port)]
    return Server("firstword", command, port, environment, ready_path="/health/ready")
