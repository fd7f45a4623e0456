"""`firstword bench run`. Reads its report, whose schema is `loadtest.figures.document`."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.testers.contestant import Claimed, Command, Waited
from bench.testers.scenario import MODEL, PROMPT_TOKENS, Scenario
from bench.testers.truth import Spread
from loadtest.figures.document import Distribution, decode_report


class Firstword:
    name = "firstword bench"

    def version(self) -> str | None:
        return metadata.version("firstword")

    def cannot(self, scenario: Scenario) -> str | None:
        return None

    def command(self, scenario: Scenario, port: int, folder: Path) -> Command:
        options: dict[str, Any] = {
            "synthetic": f"conversations={scenario.requests},prompt={PROMPT_TOKENS}",
            "url": f"http://127.0.0.1:{port}/v1",
            "model": MODEL,
            "max-tokens": scenario.tokens,
            "json": folder / "report.json",
        }
        if scenario.rate_per_s is None:
            options["concurrency"] = scenario.concurrency
        else:
            options |= {
                "rate": scenario.rate_per_s,
                "arrivals": "constant",
                "max-concurrency": scenario.concurrency,
            }
        argv = [sys.executable, "-m", "server.cli", "bench", "run"]
        for name, value in options.items():
            argv += [f"--{name}", str(value)]
        return Command(tuple(argv))

    def read(self, folder: Path) -> Claimed:
        stage = decode_report((folder / "report.json").read_bytes()).stages[0]
        summary = stage.summary
        waited = None
        if stage.loop == "open" and summary.ttft_ms is not None:
            waited = Waited("TTFT", summary.ttft_ms.p50, summary.ttft_ms.p99, includes_answer=False)
        return Claimed(
            ok=summary.ok,
            failed=summary.failed,
            ttft_ms=_spread(summary.ttft_ms),
            itl_ms=_spread(summary.itl_ms),
            tpot_ms=_spread(summary.tpot_ms),
            requests_per_s=summary.turns_per_s,
            tokens_per_s=summary.output_tokens_per_s,
            waited=waited,
            remarks=stage.client.warnings,
        )


def _spread(found: Distribution | None) -> Spread | None:
    return None if found is None else Spread(found.mean, found.p50, found.p99)
