"""A report as a real run would leave it, made up from a seed: the same arguments give the same report.

A prefill that grows with the prompt and shrinks with the cache, a queue that grows with the load, stalls that hit all
streams at once, and a share of turns that fail in every way there is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from loadtest.figures.document import (
    SCHEMA,
    Conditions,
    Config,
    Distribution,
    ErrorKind,
    Histograms,
    Interval,
    Lateness,
    Report,
    Stage,
    Summary,
    Sweep,
    TurnIndex,
    Verdict,
)
from loadtest.figures.turn_result import Outcome, ServerTiming, TurnResult

HOSTILE = "</script><img src=x onerror='window.pwned = 1'>"
_FAILURES: tuple[tuple[Outcome, int | None, str], ...] = (
    ("refused", 429, "too many requests in line; try again in 2 s"),
    ("timeout", 200, "no end of the answer within 60 s"),
    ("truncated", 200, "the stream ended without [DONE]"),
    ("connection", None, "Connection reset by peer"),
    ("http_error", 500, f"the server says: {HOSTILE}"),
)
_PHASES = {"admit": 0.2, "embed": 6.0, "search": 1.5, "rerank": 9.0, "engine_queue": 4.0, "prefill": 60.0}


def sample_report(
    stages: int = 1,
    conversations: int = 120,
    turns: int = 7,
    gaps: int = 60,
    *,
    failing: float = 0.03,
    lagging: bool = False,
    interrupted: bool = False,
    own_queue: bool = False,
    phases: bool = True,
) -> Report:
    """`own_queue`: turns wait in the client for a slot, as they do under `--max-concurrency`."""
    rates = [2.0 * (at + 1) for at in range(stages)]
    made = tuple(
        _stage(rate, conversations, turns, gaps, failing, lagging, own_queue, phases) for rate in rates
    )
    met = [rate for rate, stage in zip(rates, made, strict=True) if all(v.met for v in stage.verdicts)]
    missed = [rate for rate in rates if rate not in met]
    return Report(
        schema=SCHEMA,
        created="2026-03-14T15:09:26+00:00",
        command="firstword bench conversations.jsonl --rate 2 --slo 'ttft_p99<500ms,error_rate<5%'",
        interrupted=interrupted,
        config=Config(
            url="http://127.0.0.1:8000/v1",
            model="SmolLM2-135M-Instruct",
            workload="conversations.jsonl",
            conversations=conversations,
            arrivals="poisson",
            burstiness=None,
            popularity="zipf 1.1",
            think="exponential, mean 2 s",
            type_ahead=None,
            max_tokens=128,
            timeout_s=60,
            slo="ttft_p99<500ms,error_rate<5%",
            goodput="ttft<500ms,tpot<50ms",
            seed=7,
        ),
        conditions=Conditions(
            tool="firstword 0.1.0", python="CPython 3.11.7", machine="some CPU, 2 cores", system="Linux 6.1"
        ),
        stages=made,
        sweep=Sweep("ttft_p99<500ms,error_rate<5%", max(met, default=None), min(missed, default=None))
        if stages > 1
        else None,
    )


def _stage(
    rate: float,
    conversations: int,
    turns: int,
    gaps: int,
    failing: float,
    lagging: bool,
    own_queue: bool,
    phases: bool,
) -> Stage:
    random = np.random.default_rng(int(rate * 100))
    starts = np.cumsum(random.exponential(1 / rate, conversations))
    crowd = 1 / (1 - min(0.9, rate / 11))
    results = [
        result
        for at, start in enumerate(starts.tolist())
        for result in _conversation(
            random, at, start, turns, gaps, crowd, failing, own_queue, phases, warmup=at < conversations // 10
        )
    ]
    summary = _summary(results, turns)
    ttft_p99 = summary.ttft_ms.p99 if summary.ttft_ms else None
    return Stage(
        name=f"{rate:g}/s",
        loop="open",
        rate_per_s=rate,
        concurrency=8 if own_queue else None,
        summary=summary,
        client=_lateness(results, lagging),
        verdicts=(
            Verdict("ttft_p99<500ms", ttft_p99, ttft_p99 is not None and ttft_p99 < 500),
            Verdict("error_rate<5%", summary.error_rate * 100, summary.error_rate < 0.05),
        ),
        histograms=Histograms("", "", "", {}),
        turns=tuple(results),
    )


def _conversation(
    random: np.random.Generator,
    at: int,
    start_s: float,
    turns: int,
    gaps: int,
    crowd: float,
    failing: float,
    own_queue: bool,
    phases: bool,
    *,
    warmup: bool,
) -> Iterable[TurnResult]:
    """Ends with the first turn that fails, as the tool's conversations do."""
    due_s = start_s
    for turn in range(1, turns + 1):
        prompt = 900 + 260 * turn + int(random.integers(0, 120))
        cached = 0 if turn == 1 else prompt - 330
        held_ms = float(random.gamma(2.0, 40.0 * crowd)) if own_queue else 0.0
        late_ms = float(random.exponential(0.05))
        parts = {
            name: mean * (crowd if name == "engine_queue" else 1.0) * float(random.gamma(6.0, 1 / 6))
            for name, mean in _PHASES.items()
        }
        parts["prefill"] *= 0.4 + 2.4 * (prompt - cached) / 1_500
        parts["engine_queue"] += float(random.exponential(12 * crowd)) * (random.random() < 0.3) * crowd
        server_ms = sum(parts.values()) + 0.4
        ttft_ms = held_ms + late_ms + server_ms + 0.6 + float(random.exponential(0.3))
        itl_us = _gaps(random, int(random.integers(gaps // 2, gaps + 1)), crowd)
        e2e_ms = ttft_ms + sum(itl_us) / 1_000 + 0.2
        failure = _FAILURES[int(random.integers(len(_FAILURES)))] if random.random() < failing else None
        yield TurnResult(
            conversation_id="=cmd|'/c calc'!A0" if at == 1 else f"<b>c{at}</b>" if at % 10 == 0 else f"c{at}",
            holding=0,
            turn=turn,
            request_id=f"bench-{at}-{turn}",
            warmup=warmup,
            outcome=failure[0] if failure else "ok",
            status=failure[1] if failure else 200,
            detail=failure[2] if failure else None,
            due_s=due_s,
            held_ms=held_ms,
            late_ms=late_ms,
            connect_ms=0.4 if turn == 1 else None,
            ttfb_ms=None if failure else held_ms + late_ms + 3.1,
            ttft_ms=None if failure else ttft_ms,
            itl_us=() if failure else itl_us,
            e2e_ms=40.0 if failure else e2e_ms,
            output_tokens=0 if failure else len(itl_us) + 1,
            output_tokens_from="usage",
            finish_reason=None if failure else "stop",
            prompt_tokens=None if failure else prompt,
            cached_tokens=None if failure else cached,
            server=ServerTiming("firstword", server_ms, parts) if phases and not failure else None,
        )
        if failure:
            return
        due_s += e2e_ms / 1_000 + float(random.exponential(2.0))


def _gaps(random: np.random.Generator, count: int, crowd: float) -> tuple[int, ...]:
    gaps = random.normal(18_000 * (1 + 0.15 * crowd), 900, count)
    gaps[random.random(count) < 0.02] += 35_000 * crowd  # someone else's prefill
    merged = np.flatnonzero(random.random(count) < 0.01)
    gaps[merged] = 0
    return tuple(np.maximum(gaps, 0).astype(int).tolist())


def _distribution(samples: Iterable[float | None], *, interval: bool = False) -> Distribution | None:
    found = np.array([sample for sample in samples if sample is not None], np.float64)
    if not len(found):
        return None
    p50, p90, p95, p99, p999 = np.quantile(found, (0.50, 0.90, 0.95, 0.99, 0.999)).tolist()
    wide = 1.5 / math.sqrt(len(found))
    return Distribution(
        n=len(found),
        mean=float(found.mean()),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        p999=p999,
        max=float(found.max()),
        p50_ci=Interval(p50 * (1 - wide), p50 * (1 + wide)) if interval and wide < 0.3 else None,
        p99_ci=Interval(p99 * (1 - 3 * wide), p99 * (1 + 3 * wide)) if interval and wide < 0.3 else None,
    )


def _summary(results: Sequence[TurnResult], turns: int) -> Summary:
    measured = [turn for turn in results if not turn.warmup]
    warmup = [turn for turn in results if turn.warmup]
    ok = [turn for turn in measured if turn.outcome == "ok"]
    refused = sum(turn.outcome == "refused" for turn in measured)
    duration_s = max(t.due_s + t.e2e_ms / 1_000 for t in measured) - min(t.due_s for t in measured)
    tokens = sum(turn.output_tokens for turn in ok)
    servers = [turn.server for turn in ok if turn.server is not None]
    return Summary(
        duration_s=duration_s,
        turns=len(measured),
        ok=len(ok),
        failed=len(measured) - len(ok),
        refused=refused,
        unfinished=0,
        not_sent=len({turn.conversation_id for turn in results}) * turns - len(results),
        without_token=0,
        warmup_turns=len(warmup),
        warmup_failed=sum(turn.outcome != "ok" for turn in warmup),
        errors=_errors(measured),
        error_rate=(len(measured) - len(ok) - refused) / len(measured),
        refusal_rate=refused / len(measured),
        ttft_ms=_distribution((turn.ttft_ms for turn in ok), interval=True),
        ttft_by_turn=tuple(
            TurnIndex(
                index,
                _distribution((turn.ttft_ms for turn in ok if turn.turn == index), interval=True),
                _cached_share([turn for turn in ok if turn.turn == index]),
                900.0 + 260 * index,
            )
            for index in sorted({turn.turn for turn in ok})
        ),
        sent_ttft_ms=_distribution((turn.sent_ttft_ms for turn in ok), interval=True),
        ttfb_ms=_distribution(turn.ttfb_ms for turn in ok),
        itl_ms=_distribution((gap / 1_000 for turn in ok for gap in turn.itl_us), interval=True),
        tpot_ms=_distribution((turn.tpot_ms for turn in ok), interval=True),
        e2e_ms=_distribution(turn.e2e_ms for turn in ok),
        server_ttft_ms=_distribution(server.ttft_ms for server in servers),
        client_minus_server_ttft_ms=_distribution(turn.client_minus_server_ttft_ms for turn in ok),
        phases_ms={
            name: sum(server.phases_ms[name] for server in servers) / len(servers)
            for name in _PHASES
            if servers
        },
        cached_share=_cached_share(ok),
        output_tokens=tokens,
        output_tokens_per_s=tokens / duration_s,
        turns_per_s=len(ok) / duration_s,
        goodput_per_s=0.97 * len(ok) / duration_s,
        good_share=0.97 * len(ok) / len(measured),
        turns_counting_deltas=0,
    )


def _cached_share(turns: Sequence[TurnResult]) -> float | None:
    prompt = sum(turn.prompt_tokens or 0 for turn in turns)
    return sum(turn.cached_tokens or 0 for turn in turns) / prompt if prompt else None


def _errors(measured: Sequence[TurnResult]) -> tuple[ErrorKind, ...]:
    failed = [turn for turn in measured if turn.outcome != "ok"]
    examples = {(turn.outcome, turn.status): turn.detail or "" for turn in failed}
    counts = Counter((turn.outcome, turn.status) for turn in failed)
    return tuple(ErrorKind(*kind, count=count, example=examples[kind]) for kind, count in counts.items())


def _lateness(results: Sequence[TurnResult], lagging: bool) -> Lateness:
    warning = "turns were sent up to 84 ms late: add processes with --processes, or lower the load"
    return Lateness(
        processes=2,
        late_ms=_distribution(turn.late_ms for turn in results),
        held_ms=_distribution(turn.held_ms for turn in results) if results[0].held_ms else None,
        loop_lag_ms=_distribution((0.05, 0.06, 0.08, 0.4)),
        stamped_by="kernel",
        read_lag_ms=_distribution((0.03, 0.04, 0.05, 0.2)),
        busy_poll=False,
        cpu_share=0.31,
        cpu_us_per_event=38.2,
        stolen_share=0.004,
        warnings=(warning,) if lagging else (),
    )
