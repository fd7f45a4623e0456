"""What the command line asks for, checked and made into stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from loadtest.arrivals import ArrivalKind, Arrivals, trace_due_times
from loadtest.client.address import parse_url
from loadtest.errors import BenchError, OptionError
from loadtest.figures.document import Config
from loadtest.figures.slo import Slo, TurnBounds, parse_goodput, parse_slo
from loadtest.plan import Plan, TypeAhead
from loadtest.workload.distribution import parse_distribution
from loadtest.workload.popularity import parse_popularity
from loadtest.workload.read import WorkloadKind, read_workload
from loadtest.workload.synthetic import synthesise
from loadtest.workload.workload import Workload

_TYPED_EVERY_S = 0.5
"""What a debounced input field sends."""
_FIND_FOR_S = 20.0
"""How long a stage of a search takes when nobody says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The options, as given."""

    workload: Path | None
    kind: WorkloadKind
    synthetic: str | None
    url: str
    model: str | None
    max_tokens: int | None
    body: str | None
    timeout_s: float
    fresh_connections: bool
    conversations: int | None
    popularity: str | None
    think: str | None
    type_ahead_wpm: float | None
    seed: int
    concurrency: str | None
    rate: str | None
    find_rate: bool
    arrivals: ArrivalKind
    burstiness: float
    speed: float
    max_concurrency: int | None
    duration_s: float | None
    warmup: int
    warmup_s: float
    busy_poll: bool
    slo: str | None
    goodput: str | None


@dataclass(frozen=True, slots=True)
class Stages:
    """`plans` are named, in order; a search makes its own."""

    workload: Workload
    plans: tuple[tuple[str, Plan], ...]
    slo: Slo | None
    goodput: TurnBounds | None
    config: Config
    search: Search | None


@dataclass(frozen=True, slots=True)
class Search:
    """For the highest rate that meets the SLO, upwards from that of `arrivals`."""

    plan: Plan
    arrivals: Arrivals
    start_per_s: float
    slo: str

    def at_rate(self, rate_per_s: float) -> tuple[str, Plan]:
        arrivals = replace(self.arrivals, rate_per_s=rate_per_s)
        return _rate_name(rate_per_s), msgspec.structs.replace(self.plan, arrivals=arrivals)


def take(order: Order) -> Stages:
    """Raises `BenchError` for what cannot be used, naming the option or the line of the workload."""
    parse_url(order.url)
    slo = None if order.slo is None else parse_slo(order.slo)
    goodput = None if order.goodput is None else parse_goodput(order.goodput)
    if order.think is not None:
        parse_distribution(order.think, "--think")
    if order.popularity is not None:
        parse_popularity(order.popularity)
    _check_loops(order)
    workload = _workload(order)
    _check_warmup(order, workload)
    plans = tuple(_plans(order, workload))
    return Stages(workload, plans, slo, goodput, _config(order, workload), _search(order, plans))


def _check_loops(order: Order) -> None:
    is_open = order.rate is not None or order.arrivals == "trace"
    refused = (
        (order.rate is not None and order.concurrency is not None,
         "--rate is an open loop and --concurrency a closed one. Give one of them; --max-concurrency bounds an open loop."),
        (order.rate is not None and order.arrivals == "trace", "--arrivals trace has its own rate: leave --rate out, or use --speed."),
        (order.arrivals == "trace" and order.concurrency is not None, "--arrivals trace is an open loop: use --max-concurrency."),
        (order.arrivals in ("constant", "gamma") and order.rate is None,
         f"--arrivals {order.arrivals} spreads the arrivals of an open loop: give --rate, or leave it out."),
        (order.max_concurrency is not None and not is_open, "--max-concurrency bounds an open loop: give --rate, or use --concurrency."),
        (order.find_rate and order.slo is None, "--find-rate needs --slo, such as 'ttft_p99<500ms,error_rate<0.1%'."),
        (order.find_rate and (order.rate is None or "," in order.rate), "--find-rate needs one --rate to begin with."),
        (order.arrivals == "trace" and order.popularity is not None, "--popularity draws conversations; a trace says itself which comes when."),
        (order.arrivals == "trace" and order.warmup > 0, "--warmup takes conversations from a trace: use --warmup-seconds."),
        (order.duration_s is not None and order.warmup_s >= order.duration_s, "--warmup-seconds leaves nothing of --duration."),
    )  # fmt: skip
    for is_so, why in refused:
        if is_so:
            raise OptionError(why)


def _check_warmup(order: Order, workload: Workload) -> None:
    n = len(workload.conversations)
    ends_by_itself = order.conversations is None and order.duration_s is None and not order.find_rate
    if ends_by_itself and order.warmup >= n:
        raise OptionError(
            f"--warmup {order.warmup} leaves nothing to measure of {_name(order)}, which holds {n}. Lower it to {n - 1}."
        )


def _workload(order: Order) -> Workload:
    if (order.workload is None) == (order.synthetic is None):
        raise OptionError("Give a workload: a file, or --synthetic 'conversations=100,prompt=100,output=64'.")
    if order.workload is not None:
        return read_workload(order.workload, order.kind)
    return synthesise(order.synthetic or "", order.seed)


def _plans(order: Order, workload: Workload) -> Iterator[tuple[str, Plan]]:
    type_ahead = None if order.type_ahead_wpm is None else TypeAhead(order.type_ahead_wpm, _TYPED_EVERY_S)
    duration_s = order.duration_s
    if duration_s is None and order.find_rate and order.conversations is None:
        duration_s = _FIND_FOR_S
    plan = Plan(
        url=order.url.rstrip("/"),
        model=order.model or "",
        conversations=workload.conversations,
        popularity=order.popularity,
        n_conversations=order.conversations,
        duration_s=duration_s,
        warmup_conversations=order.warmup,
        warmup_s=order.warmup_s,
        think=order.think,
        type_ahead=type_ahead,
        max_tokens=order.max_tokens,
        extra_body=_body(order.body),
        timeout_s=order.timeout_s,
        keep_connections=not order.fresh_connections,
        busy_poll=order.busy_poll,
        seed=order.seed,
    )
    if order.arrivals == "trace":
        arrivals = Arrivals("trace", speed=order.speed)
        trace_due_times(workload.conversations, order.speed)  # here an error is still one of the workload's
        yield "trace", msgspec.structs.replace(plan, arrivals=arrivals, concurrency=order.max_concurrency)
    elif order.rate is not None:
        for rate in _numbers(order.rate, "--rate"):
            try:
                arrivals = Arrivals(order.arrivals, rate, order.burstiness)
            except BenchError as error:
                raise OptionError(f"--rate, --burstiness: {error}") from error
            yield (
                _rate_name(rate),
                msgspec.structs.replace(plan, arrivals=arrivals, concurrency=order.max_concurrency),
            )
    else:
        for concurrency in _numbers(order.concurrency or "1", "--concurrency"):
            if concurrency != int(concurrency) or concurrency > 100_000:
                raise OptionError(f"--concurrency {concurrency:g}: expected whole numbers from 1 to 100,000.")
            yield f"{concurrency:g} at a time", msgspec.structs.replace(plan, concurrency=int(concurrency))


def _search(order: Order, plans: Sequence[tuple[str, Plan]]) -> Search | None:
    _, plan = plans[0]
    if not order.find_rate or order.slo is None or plan.arrivals is None or plan.arrivals.rate_per_s is None:
        return None
    return Search(plan, plan.arrivals, plan.arrivals.rate_per_s, order.slo)


def _rate_name(rate_per_s: float) -> str:
    return f"{rate_per_s:.4g}/s"


def _numbers(text: str, option: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < 1e9 for number in numbers):
        raise OptionError(f"{option} {text!r}: expected a number above 0, or several with commas: 1,2,4.")
    return numbers


def _body(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        fields = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"--body: {error}. Expected a JSON object.") from error
    if not isinstance(fields, dict):
        raise OptionError("--body: expected a JSON object.")
    reserved = {"messages", "stream", "model", "stream_options"} & set(fields)
    if reserved:
        raise OptionError(f"--body cannot set {', '.join(sorted(reserved))}: the bench does.")
    return fields


def _config(order: Order, workload: Workload) -> Config:
    open_loop = order.rate is not None or order.arrivals == "trace"
    return Config(
        url=order.url.rstrip("/"),
        model=order.model,
        workload=_name(order),
        conversations=len(workload.conversations),
        arrivals=order.arrivals if open_loop else "closed",
        burstiness=order.burstiness if order.arrivals == "gamma" else None,
        popularity=order.popularity,
        think=order.think,
        type_ahead=None if order.type_ahead_wpm is None else f"{order.type_ahead_wpm:g} words per minute",
        max_tokens=order.max_tokens,
        timeout_s=order.timeout_s,
        slo=order.slo,
        goodput=order.goodput,
        seed=order.seed,
        remarks=workload.remarks,
    )


def _name(order: Order) -> str:
    """For a report, which may travel: a file's name without its folders."""
    return f"synthetic {order.synthetic}" if order.workload is None else order.workload.name
