"""aiperf. Reads `profile_export_aiperf.json`, which names its units; all that is read here is in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bench.process import BENCH_DIR
from bench.testers.contestant import TOKENIZER, Claimed, Command, Waited, installed_version
from bench.testers.scenario import MODEL, PROMPT_TOKENS, Scenario
from bench.testers.truth import Spread

_ENVIRONMENT = "aiperf"


class Aiperf:
    name = "aiperf"

    def version(self) -> str | None:
        return installed_version(_ENVIRONMENT, "aiperf")

    def cannot(self, scenario: Scenario) -> str | None:
        return None

    def command(self, scenario: Scenario, port: int, folder: Path) -> Command:
        options: dict[str, Any] = {
            "model": MODEL,
            "url": f"http://127.0.0.1:{port}",
            "endpoint-type": "chat",
            "tokenizer": TOKENIZER,
            "isl": PROMPT_TOKENS,
            "isl-stddev": 0,
            "osl": scenario.tokens,
            "osl-stddev": 0,
            "extra-inputs": "ignore_eos:true",
            "concurrency": scenario.concurrency,
            "request-count": scenario.requests,
            "artifact-dir": folder,
            "ui": "none",
        }
        if scenario.rate_per_s is not None:
            options |= {"request-rate": scenario.rate_per_s, "arrival-pattern": "constant"}
        argv = [str(BENCH_DIR / _ENVIRONMENT / "bin" / "aiperf"), "profile", "--streaming"]
        # The others count the server's tokens too. No GPU and no metrics page to watch here.
        argv += ["--use-server-token-count", "--no-gpu-telemetry", "--no-server-metrics"]
        for name, value in options.items():
            argv += [f"--{name}", str(value)]
        # Not HF_HUB_OFFLINE: with it, a tokenizer in a folder is taken for the name of a repository.
        return Command(tuple(argv))

    def read(self, folder: Path) -> Claimed:
        found = msgspec.json.decode((folder / "profile_export_aiperf.json").read_bytes(), type=dict[str, Any])
        n_ok = round(found["request_count"]["avg"])
        return Claimed(
            ok=n_ok,
            failed=round(found["completed_request_count"]["avg"]) - n_ok,
            ttft_ms=_spread(found["time_to_first_token"]),
            itl_ms=_spread(found["inter_chunk_latency"]),
            # Its "inter token latency" is one mean for each request, over the tokens after the first: the others' TPOT.
            tpot_ms=_spread(found["inter_token_latency"]),
            requests_per_s=found["request_throughput"]["avg"],
            tokens_per_s=found["output_token_throughput"]["avg"],
            waited=_waited(found.get("effective_latency")),
        )


def _waited(metric: dict[str, Any] | None) -> Waited | None:
    if metric is None:
        return None
    return Waited("effective_latency", metric["p50"], metric["p99"], includes_answer=True)


def _spread(metric: dict[str, Any]) -> Spread:
    return Spread(metric["avg"], metric["p50"], metric["p99"])
