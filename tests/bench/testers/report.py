"""The runs as tables: what each tester says, beside what the target knows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench.report import Lines, Sheet, number
from bench.testers.run import Run
from bench.testers.scenario import Scenario
from bench.testers.truth import Spread

_SAYS = (
    "tester",
    "TTFT mean / p50 / p99",
    "gaps p50 / p99",
    "mean gap p50 / p99",
    "requests/s",
    "tokens/s",
    "answered",
)
_WAITS = ("tester", "its TTFT p50 / p99", "with its own queue p50 / p99", "that is")
_COSTS = (
    "tester",
    "events/s",
    "CPU µs per event",
    "events/s per core",
    "CPU s in all",
    "processes",
    "TTFT p50 / p99, off by ms",
)
_NOTHING = "–"
_TARGET = "· the target"


class Results(msgspec.Struct, frozen=True):
    """`testers.json`."""

    conditions: dict[str, object]
    scenarios: list[Scenario]
    cannot: dict[str, str]
    """`scenario: tester`, and why not."""
    runs: list[Run]


def sheets(results: Results) -> list[Sheet]:
    found = []
    for scenario in results.scenarios:
        runs = [run for run in results.runs if run.scenario == scenario.name]
        found.append(_says(scenario, runs))
        if scenario.rate_per_s is not None:
            found.append(_waits(scenario, runs))
        if scenario.costs:
            found.append(_costs(scenario, runs))
    return found


def remarks(results: Results) -> list[str]:
    """What cannot be read from the tables: faults, refusals, the testers' own warnings."""
    lines = [f"{what}: cannot: {why}" for what, why in results.cannot.items()]
    for run in results.runs:
        about = f"{run.scenario}, {run.tester}"
        if run.fault is not None:
            lines.append(f"{about}: {run.fault}")
        if run.claimed is not None:
            lines += [f"{about}, its own words: {' '.join(remark.split())}" for remark in run.claimed.remarks]
    return lines


def _says(scenario: Scenario, runs: Sequence[Run]) -> Sheet:
    """Two lines for each run: the tester's, and the target's for the same requests."""
    lines: Lines = []
    for run in runs:
        said, truth = run.claimed, run.truth
        if said is None:
            lines.append((run.tester, *[_NOTHING] * (len(_SAYS) - 1)))
        else:
            told = (said.ttft_ms, said.itl_ms, said.tpot_ms, said.requests_per_s, said.tokens_per_s)
            lines.append((run.tester, *_figures(*told), f"{said.ok}/{scenario.requests}"))
        if truth is not None:
            told = (truth.ttft_ms, truth.itl_ms, truth.tpot_ms, truth.requests_per_s, truth.tokens_per_s)
            lines.append((_TARGET, *_figures(*told), str(truth.requests)))
    return Sheet(f"{scenario.name}: {scenario.shows} (ms)", _SAYS, lines)


def _figures(
    ttft_ms: Spread | None,
    itl_ms: Spread | None,
    tpot_ms: Spread | None,
    requests_per_s: float | None,
    tokens_per_s: float | None,
) -> tuple[str, ...]:
    ttft = _NOTHING if ttft_ms is None else f"{number(ttft_ms.mean, 1)} / {_two(ttft_ms)}"
    return (ttft, _two(itl_ms), _two(tpot_ms, 2), number(requests_per_s, 2), number(tokens_per_s))


def _waits(scenario: Scenario, runs: Sequence[Run]) -> Sheet:
    lines: Lines = []
    for run in runs:
        if run.claimed is not None:
            own = (_NOTHING, "it has no such figure")
            if (waited := run.claimed.waited) is not None:
                to = "last" if waited.includes_answer else "first"
                both = f"{number(waited.p50_ms)} / {number(waited.p99_ms)}"
                own = (both, f"{waited.called}, to the {to} token")
            lines.append((run.tester, _two(run.claimed.ttft_ms, 0), *own))
        if run.truth is not None:
            lines.append((_TARGET, "", _two(run.truth.due_ttft_ms, 0), "from when due to the first token"))
            lines.append((_TARGET, "", _two(run.truth.due_e2e_ms, 0), "from when due to the last token"))
    return Sheet(f"{scenario.name}: the wait from when each request was due (ms)", _WAITS, lines)


def _costs(scenario: Scenario, runs: Sequence[Run]) -> Sheet:
    lines: Lines = []
    for run in runs:
        if run.truth is None or run.cost is None:
            lines.append((run.tester, *[_NOTHING] * (len(_COSTS) - 1)))
            continue
        us = run.us_per_event
        lines.append(
            (
                run.tester,
                number(run.truth.tokens_per_s),
                number(us, 1),
                number(1e6 / us if us else None),
                number(run.cost.whole_s, 1),
                str(run.cost.processes),
                _off(run),
            )
        )
    asked = scenario.concurrency * scenario.tokens / scenario.service_s
    return Sheet(f"{scenario.name}: the client's cost, at up to {asked:,.0f} events/s", _COSTS, lines)


def _off(run: Run) -> str:
    """The tester's TTFT less the target's, of the same requests."""
    said = run.claimed.ttft_ms if run.claimed else None
    true = run.truth.ttft_ms if run.truth else None
    if said is None or true is None:
        return _NOTHING
    return f"{said.p50 - true.p50:+,.1f} / {said.p99 - true.p99:+,.1f}"


def _two(spread: Spread | None, digits: int = 1) -> str:
    return _NOTHING if spread is None else f"{number(spread.p50, digits)} / {number(spread.p99, digits)}"
