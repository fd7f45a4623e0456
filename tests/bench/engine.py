"""`python -m bench.engine`: Firstword in front of the real engine against vLLM's own OpenAI server, without retrieval.

The two cannot share the machine, so each is started, measured and stopped, in the order ABBA: a drift of the
machine's speed meets both alike. About eight minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, Literal

import msgspec

from bench.conditions import conditions
from bench.gateway import measure
from bench.plan import Figures, Plan
from bench.process import BENCH_DIR, Server, end_in_order, free_port, raise_open_files
from bench.report import Lines, Sheet, number, open_console, show
from server.settings import PROJECT_ROOT, Settings, load_settings

Side = Literal["firstword", "vllm"]

ORDER: tuple[Side, ...] = ("firstword", "vllm", "vllm", "firstword")
STREAMS_AND_TURNS = ((1, 4), (4, 2), (16, 1))
TOKENS = 32
_MODELS = PROJECT_ROOT / "var" / "models"
_CHAT_MODEL = _MODELS / "SmolLM2-135M-Instruct"
_START_S = 400.0
_WORDS = [
    "harbour",
    "lantern",
    "meadow",
    "copper",
    "winter",
    "signal",
    "garden",
    "thunder",
    "paper",
    "violin",
    "orchard",
    "river",
    "marble",
    "compass",
    "feather",
    "kettle",
    "island",
    "saddle",
    "velvet",
    "anchor",
    "pepper",
    "glacier",
    "mirror",
    "canyon",
    "basket",
    "falcon",
    "ribbon",
    "tunnel",
]
_PROMPT_WORDS = 48


class EngineRun(msgspec.Struct, frozen=True):
    side: str
    start: int
    """Which of the four starts."""
    streams: int
    figures: Figures


class EngineResults(msgspec.Struct, frozen=True):
    """`engine.json`."""

    conditions: dict[str, Any]
    runs: list[EngineRun]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.engine", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="each started once, at one and four streams")
    arguments = parser.parse_args()
    console = open_console()
    end_in_order()
    raise_open_files()
    settings = load_settings()
    before = conditions()
    runs: list[EngineRun] = []
    levels = STREAMS_AND_TURNS[:2] if arguments.smoke else STREAMS_AND_TURNS
    for start, side in enumerate(ORDER[:2] if arguments.smoke else ORDER):
        console.print(f"starting {side} ({start + 1} of {len(ORDER)})")
        with _running(side, settings) as server:
            measure(_plan(side, server, 1, 1, seed=-1))
            for streams, turns in levels:
                figures = measure(_plan(side, server, streams, turns, seed=start))
                runs.append(EngineRun(side, start, streams, figures))
                console.print(_told(runs[-1]), highlight=False, soft_wrap=True)
    engine = settings.engine.model_dump(mode="json", exclude={"simulated"})
    results = EngineResults(before | {"tokens": TOKENS, "engine": engine}, runs)
    show(console, [sheet(runs)], results.conditions)
    written = BENCH_DIR / "engine.json"
    written.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    (BENCH_DIR / "engine.md").write_text(sheet(runs).markdown(), encoding="utf-8")
    console.print(f"written: {written.relative_to(PROJECT_ROOT)}")


@contextmanager
def _running(side: Side, settings: Settings) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as data_dir:
        server = _start_vllm(settings) if side == "vllm" else _start_firstword(data_dir)
        with server:
            server.wait_ready(_START_S)
            yield server


def _start_firstword(data_dir: str) -> Server:
    """The default configuration, as it is served."""
    port = free_port()
    environment = {
        "FIRSTWORD_DATA_DIR": data_dir,
        "FIRSTWORD_ENGINE__MODEL": str(_CHAT_MODEL),
        "FIRSTWORD_RETRIEVAL__EMBEDDER": str(_MODELS / "all-MiniLM-L6-v2"),
    }
    command = [sys.executable, "-m", "server.cli", "serve", "--port", str(port)]
    return Server("firstword-engine", command, port, environment, ready_path="/health/ready")


def _start_vllm(settings: Settings) -> Server:
    """vLLM's own server with the settings that Firstword gives to the same engine."""
    engine = settings.engine
    port = free_port()
    options: dict[str, Any] = {
        "model": _CHAT_MODEL,
        "served-model-name": _CHAT_MODEL.name,
        "host": "127.0.0.1",
        "port": port,
        "dtype": engine.dtype,
        "block-size": engine.block_size,
        "max-model-len": engine.max_model_len,
        "max-num-seqs": engine.max_num_seqs,
        "max-num-batched-tokens": engine.max_num_batched_tokens,
        "scheduling-policy": "priority",
        "generation-config": "vllm",
    }
    flags = ["--enable-prefix-caching", "--disable-log-stats", "--disable-uvicorn-access-log"]
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": str(engine.kv_cache_gib),
        "VLLM_LOGGING_LEVEL": engine.log_level,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }
    if engine.enforce_eager:
        flags.append("--enforce-eager")
        environment["TORCH_COMPILE_DISABLE"] = "1"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags]
    command += [f"--{name}={value}" for name, value in options.items()]
    return Server("vllm", command, port, environment, ready_path="/health")


def _plan(side: Side, server: Server, streams: int, turns: int, seed: int) -> Plan:
    bodies = [
        [_body(side, prompt(streams, stream, turn, seed)) for turn in range(turns)]
        for stream in range(streams)
    ]
    return Plan(
        port=server.port,
        bodies=bodies,
        tokens=TOKENS,
        interval_s=0.1,
        spread_s=0.05,
        pause_s=0.05,
        # The first: the engine's own processes are the same on both sides.
        cpu_pids={"gateway": server.pids[:1]},
        seed=seed,
        timeout_s=200,
    )


def _body(side: Side, question: str) -> str:
    """The same messages to both: a system message of ours, since Firstword would add its own."""
    fields: dict[str, Any] = {
        "model": _CHAT_MODEL.name,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}],
    }
    if side == "firstword":
        fields["retrieval"] = {"enabled": False}
    return json.dumps(fields)


def prompt(streams: int, stream: int, turn: int, seed: int) -> str:
    """Different from its first word on, so that the prefix cache answers none of it; the same for both sides."""
    source = random.Random(f"{seed} {streams} {stream} {turn}")
    return f"{' '.join(source.choices(_WORDS, k=_PROMPT_WORDS))}. Tell a story with these words."


def sheet(runs: list[EngineRun]) -> Sheet:
    lines: Lines = []
    for streams in sorted({run.streams for run in runs}):
        medians = {}
        for side in sorted({run.side for run in runs}):
            mine = [run.figures for run in runs if (run.side, run.streams) == (side, streams)]
            medians[side] = [median(map(figure_of, mine)) for figure_of, _ in _COLUMNS.values()]
            cells = [
                number(value, digits)
                for value, (_, digits) in zip(medians[side], _COLUMNS.values(), strict=True)
            ]
            complete = sum(figures.complete for figures in mine)
            lines.append((str(streams), side, *cells, f"{complete}/{sum(figures.turns for figures in mine)}"))
        if len(medians) == 2:
            ratios = [f"{ours / theirs:.2f}" for ours, theirs in zip(*medians.values(), strict=True)]
            lines.append(("", "ratio", *ratios, ""))
    title = "the real engine behind Firstword and behind vLLM's own server"
    return Sheet(title, ("streams", "server", *_COLUMNS, "complete"), lines)


def tokens_per_s(figures: Figures) -> float:
    return figures.tokens / figures.wall_s if figures.wall_s else 0.0


def ttft_p50_ms(figures: Figures) -> float:
    return figures.ttft_ms.p50 if figures.ttft_ms else float("nan")


def itl_p50_ms(figures: Figures) -> float:
    return figures.whole.itl_ms.p50 if figures.whole else float("nan")


def cpu_us_per_token(figures: Figures) -> float:
    return figures.whole.cpu_us_per_token["gateway"] if figures.whole else float("nan")


_COLUMNS: dict[str, tuple[Callable[[Figures], float], int]] = {
    "tokens/s": (tokens_per_s, 1),
    "TTFT p50 ms": (ttft_p50_ms, 0),
    "ITL p50 ms": (itl_p50_ms, 1),
    "API process µs/token": (cpu_us_per_token, 0),
}
"""A figure and its digits. The engine's own processes are not in the last."""


def _told(run: EngineRun) -> str:
    figures = run.figures
    faults = f"  [red]{figures.faults}[/red]" if figures.faults else ""
    return (
        f"[dim]{run.start + 1}[/dim]  {run.side:<10} {run.streams:>3} streams  {tokens_per_s(figures):6.1f} tokens/s"
        f"  TTFT p50 {ttft_p50_ms(figures):6.0f} ms{faults}"
    )


if __name__ == "__main__":
    main()
