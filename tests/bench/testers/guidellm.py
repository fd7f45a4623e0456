"""guidellm. Reads its JSON report, which has seconds for whole requests and milliseconds for tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bench.process import BENCH_DIR
from bench.testers.contestant import TOKENIZER, Claimed, Command, Waited, installed_version
from bench.testers.scenario import MODEL, PROMPT_TOKENS, Scenario
from bench.testers.truth import Spread

_ENVIRONMENT = "guidellm"


class Guidellm:
    name = "guidellm"

    def version(self) -> str | None:
        return installed_version(_ENVIRONMENT, "guidellm")

    def cannot(self, scenario: Scenario) -> str | None:
        return None

    def command(self, scenario: Scenario, port: int, folder: Path) -> Command:
        profile = f"kind=concurrent,streams={scenario.concurrency}"
        if scenario.rate_per_s is not None:
            profile = f"kind=constant,rate={scenario.rate_per_s:g},max_concurrency={scenario.concurrency}"
        argv = [
            str(BENCH_DIR / _ENVIRONMENT / "bin" / "guidellm"),
            "run",
            f"--backend=kind=openai_http,target=http://127.0.0.1:{port},model={MODEL}",
            f"--profile={profile}",
            f"--constraint=kind=max_requests,count={scenario.requests}",
            f"--tokenizer=kind=huggingface_auto,model={TOKENIZER}",
            # It asks for the output's length with ignore_eos by itself.
            f"--data=kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={scenario.tokens}",
            f"--output=kind=json,path={folder / 'report.json'}",
            "--disable-console-interactive",
        ]
        return Command(tuple(argv), {"HF_HUB_OFFLINE": "1"})

    def read(self, folder: Path) -> Claimed:
        report = msgspec.json.decode((folder / "report.json").read_bytes(), type=dict[str, Any])
        benchmark = report["benchmarks"][0]
        metrics = benchmark["metrics"]
        waited = None
        if (scheduled := metrics.get("request_scheduled_latency")) is not None:
            p50_ms, p99_ms = (scheduled["successful"]["percentiles"][p] * 1e3 for p in ("p50", "p99"))
            waited = Waited("request_scheduled_latency", p50_ms, p99_ms, includes_answer=True)
        totals = metrics["request_totals"]
        return Claimed(
            ok=totals["successful"],
            failed=totals["errored"],
            ttft_ms=_spread(metrics["time_to_first_token_ms"]),
            # It keeps no gaps. Its "inter token latency" is one mean for each request, over the tokens after the first:
            # the others' TPOT. Its own "time per output token" has the wait for the first token in it.
            itl_ms=None,
            tpot_ms=_spread(metrics["inter_token_latency_ms"]),
            requests_per_s=metrics["requests_per_second"]["successful"]["mean"],
            tokens_per_s=metrics["output_tokens_per_second"]["successful"]["mean"],
            waited=waited,
            remarks=tuple(_remark(warning) for warning in benchmark.get("warnings") or ()),
        )


def _remark(warning: Any) -> str:
    return (
        str(warning.get("message") or warning.get("summary") or warning)
        if isinstance(warning, dict)
        else str(warning)
    )


def _spread(metric: dict[str, Any]) -> Spread:
    good = metric["successful"]
    return Spread(good["mean"], good["percentiles"]["p50"], good["percentiles"]["p99"])
