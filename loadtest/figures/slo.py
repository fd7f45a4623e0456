"""What the user of a server was promised: `--slo` over all turns, `--goodput` for each.

`--slo "ttft_p99<500ms,error_rate<0.1%"` decides the exit code: every bound must be met. `--goodput
"ttft<500ms,tpot<50ms"` decides which turns count as good (goodput: requests per second that meet their bounds; Zhong et
al., DistServe, OSDI 2024).
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import NoReturn

from loadtest.errors import OptionError
from loadtest.figures.document import Distribution, Summary, Verdict
from loadtest.figures.turn_result import TurnResult

_BOUND = re.compile(r"([a-z0-9_]+)\s*(<=|>=|<|>)\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zµ%/]*)", re.IGNORECASE)
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_TO_MS = {"us": 0.001, "µs": 0.001, "ms": 1.0, "s": 1_000.0}
_LATENCIES = ("ttft", "sent_ttft", "ttfb", "itl", "tpot", "e2e", "server_ttft")
_STATISTICS = ("mean", "p50", "p90", "p95", "p99", "p999", "max")
_SHARES = ("error_rate", "refusal_rate", "good_share", "cached_share")
_RATES = ("turns_per_s", "output_tokens_per_s", "goodput_per_s")
_OF_A_TURN = ("ttft", "ttfb", "tpot", "e2e")


@dataclass(frozen=True, slots=True)
class _Bound:
    text: str
    name: str
    sign: str
    limit: float
    """Milliseconds for latencies, a share in [0, 1] for shares."""
    unit: float
    """What one of the bound's own unit is in these."""

    def met_by(self, value: float | None) -> bool:
        """Nothing measured is a miss: an SLO that nobody could meet was not met."""
        return value is not None and bool(_COMPARE[self.sign](value, self.limit))


@dataclass(frozen=True, slots=True)
class Slo:
    """Bounds on a whole stage."""

    text: str
    bounds: tuple[_Bound, ...]

    def judge(self, summary: Summary) -> tuple[Verdict, ...]:
        values = [(bound, _value_of(summary, bound.name)) for bound in self.bounds]
        return tuple(
            Verdict(bound.text, None if value is None else value / bound.unit, bound.met_by(value))
            for bound, value in values
        )


@dataclass(frozen=True, slots=True)
class TurnBounds:
    """Bounds on each turn."""

    text: str
    bounds: tuple[_Bound, ...]

    def met_by(self, turn: TurnResult) -> bool:
        """A turn of a single token has no TPOT, and so keeps any bound on it."""
        return all(
            (bound.name == "tpot" and turn.tpot_ms is None) or bound.met_by(_value_of_turn(turn, bound.name))
            for bound in self.bounds
        )


def parse_slo(text: str) -> Slo:
    """Raises `OptionError`, naming the bound."""
    names = [f"{latency}_{statistic}" for latency in _LATENCIES for statistic in _STATISTICS]
    bounds = tuple(_parse_bound(part, {*names, *_SHARES, *_RATES}, "--slo") for part in text.split(","))
    return Slo(text, bounds)


def parse_goodput(text: str) -> TurnBounds:
    """Raises `OptionError`, naming the bound."""
    return TurnBounds(
        text, tuple(_parse_bound(part, set(_OF_A_TURN), "--goodput") for part in text.split(","))
    )


def _parse_bound(part: str, known: set[str], option: str) -> _Bound:
    text = part.strip()
    match = _BOUND.fullmatch(text)
    if match is None:
        _refuse(option, text, "is no bound")
    name, sign, number, unit = match[1].lower(), match[2], float(match[3]), match[4].lower()
    if name not in known:
        _refuse(option, text, f"knows no {name!r}; it knows {', '.join(_summed_up(option))}")
    if name in _SHARES:
        if unit not in ("", "%"):
            _refuse(option, text, "is a share: give it in %, or as a number from 0 to 1")
        share = 0.01 if unit == "%" else 1.0
        return _Bound(text, name, sign, number * share, share)
    if name in _RATES:
        if unit not in ("", "/s"):
            _refuse(option, text, "is a rate per second: give it a number alone")
        return _Bound(text, name, sign, number, 1.0)
    if unit not in _TO_MS:
        _refuse(option, text, "is a time: give it in us, ms or s")
    return _Bound(text, name, sign, number * _TO_MS[unit], _TO_MS[unit])


def _summed_up(option: str) -> tuple[str, ...]:
    if option == "--goodput":
        return _OF_A_TURN
    latencies = f"{{{','.join(_LATENCIES)}}}_{{{','.join(_STATISTICS)}}}"
    return (latencies, *_SHARES, *_RATES)


def _refuse(option: str, text: str, why: str) -> NoReturn:
    example = "ttft<500ms,tpot<50ms" if option == "--goodput" else "ttft_p99<500ms,error_rate<0.1%"
    raise OptionError(f"{option}: {text!r} {why}. An example: {example}")


def _value_of(summary: Summary, name: str) -> float | None:
    if name in _SHARES or name in _RATES:
        value: float | None = getattr(summary, name)
        return value if summary.turns else None
    latency, _, statistic = name.rpartition("_")
    distribution: Distribution | None = getattr(summary, f"{latency}_ms")
    return None if distribution is None else float(getattr(distribution, statistic))


def _value_of_turn(turn: TurnResult, name: str) -> float | None:
    value: float | None = getattr(turn, f"{name}_ms")
    return value
