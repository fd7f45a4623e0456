"""What a stage amounts to: its measured turns as a `Summary`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from loadtest.figures.distribution import Measure, by_conversation, distribution_of, itl_ms
from loadtest.figures.document import Distribution, ErrorKind, Histograms, Summary, TurnIndex
from loadtest.figures.histogram import Histogram
from loadtest.figures.slo import TurnBounds
from loadtest.figures.turn_result import OUTCOMES, TurnResult


def summarise(
    turns: Sequence[TurnResult], *, duration_s: float, not_sent: int, goodput: TurnBounds | None
) -> Summary:
    """`duration_s` is the measured phase's; `not_sent` what the client says it left unsent."""
    warmup = [turn for turn in turns if turn.warmup]
    measured = [turn for turn in turns if not turn.warmup]
    ended = [turn for turn in measured if turn.outcome != "unfinished"]
    ok = [turn for turn in ended if turn.outcome == "ok"]
    refused = sum(turn.outcome == "refused" for turn in ended)
    failed = len(ended) - len(ok)
    tokens = sum(turn.output_tokens for turn in ok)
    good = None if goodput is None else sum(goodput.met_by(turn) for turn in ok)

    def over(measure: Measure) -> Distribution | None:
        return distribution_of(by_conversation(ok, measure))

    def per_second(n: int) -> float | None:
        return n / duration_s if duration_s > 0 else None

    return Summary(
        duration_s=duration_s,
        turns=len(ended),
        ok=len(ok),
        failed=failed,
        refused=refused,
        unfinished=len(measured) - len(ended),
        not_sent=not_sent,
        without_token=sum(turn.ttft_ms is None for turn in ok),
        warmup_turns=len(warmup),
        warmup_failed=sum(turn.outcome != "ok" for turn in warmup),
        errors=_errors(ended),
        error_rate=(failed - refused) / len(ended) if ended else 0.0,
        refusal_rate=refused / len(ended) if ended else 0.0,
        ttft_ms=over(lambda turn: turn.ttft_ms),
        ttft_by_turn=_by_turn(ok),
        sent_ttft_ms=over(lambda turn: turn.sent_ttft_ms),
        ttfb_ms=over(lambda turn: turn.ttfb_ms),
        itl_ms=over(itl_ms),
        tpot_ms=over(lambda turn: turn.tpot_ms),
        e2e_ms=over(lambda turn: turn.e2e_ms),
        server_ttft_ms=over(lambda turn: None if turn.server is None else turn.server.ttft_ms),
        client_minus_server_ttft_ms=over(lambda turn: turn.client_minus_server_ttft_ms),
        phases_ms=_phases(ok),
        cached_share=_cached_share(ok),
        output_tokens=tokens,
        output_tokens_per_s=per_second(tokens),
        turns_per_s=per_second(len(ok)),
        goodput_per_s=None if good is None else per_second(good),
        good_share=None if good is None or not ended else good / len(ended),
        turns_counting_deltas=sum(turn.output_tokens_from == "deltas" for turn in ok),
    )


def histograms_of(turns: Iterable[TurnResult]) -> Histograms:
    """Of the measured turns that ended `ok`."""
    ok = [turn for turn in turns if turn.outcome == "ok" and not turn.warmup]
    ttft_by_turn: dict[int, list[float]] = defaultdict(list)
    for turn in ok:
        if turn.ttft_ms is not None:
            ttft_by_turn[turn.turn].append(turn.ttft_ms)
    by_turn = {index: Histogram.of_ms(values) for index, values in sorted(ttft_by_turn.items())}
    ttft = Histogram()
    for histogram in by_turn.values():
        ttft.add(histogram)
    return Histograms(
        ttft_us=ttft.encode(),
        itl_us=Histogram.of_ms(gap for turn in ok for gap in itl_ms(turn)).encode(),
        e2e_us=Histogram.of_ms(turn.e2e_ms for turn in ok).encode(),
        ttft_us_by_turn={str(index): histogram.encode() for index, histogram in by_turn.items()},
    )


def _by_turn(ok: Sequence[TurnResult]) -> tuple[TurnIndex, ...]:
    by_index: dict[int, list[TurnResult]] = defaultdict(list)
    for turn in ok:
        by_index[turn.turn].append(turn)
    return tuple(
        TurnIndex(
            index,
            distribution_of(by_conversation(turns, lambda turn: turn.ttft_ms)),
            _cached_share(turns),
            _mean(turn.prompt_tokens for turn in turns),
        )
        for index, turns in sorted(by_index.items())
    )


def _cached_share(turns: Iterable[TurnResult]) -> float | None:
    prompt = cached = 0
    for turn in turns:
        if turn.prompt_tokens is not None and turn.cached_tokens is not None:
            prompt += turn.prompt_tokens
            cached += turn.cached_tokens
    return cached / prompt if prompt else None


def _phases(ok: Iterable[TurnResult]) -> dict[str, float]:
    samples: dict[str, list[float]] = defaultdict(list)
    for turn in ok:
        for name, ms in (turn.server.phases_ms if turn.server else {}).items():
            samples[name].append(ms)
    return {name: fmean(values) for name, values in samples.items()}


def _mean(values: Iterable[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _errors(ended: Sequence[TurnResult]) -> tuple[ErrorKind, ...]:
    failed = [turn for turn in ended if turn.outcome != "ok"]
    counts = Counter((turn.outcome, turn.status) for turn in failed)
    examples = {(turn.outcome, turn.status): turn.detail or "" for turn in reversed(failed)}
    ordered = sorted(counts, key=lambda kind: (OUTCOMES.index(kind[0]), kind[1] or 0))
    return tuple(ErrorKind(*kind, count=counts[kind], example=examples[kind]) for kind in ordered)
