"""The document that one evaluation makes: everything that was seen, and what it adds up to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from loadtest.report.partial_file import replacing
from server.evaluation.figures import (
    Mode,
    Observation,
    Summary,
    TurnSummary,
    by_turn,
    common_turns,
    summaries,
)

SCHEMA = "firstword/evaluation-cache/1"

Replies = Literal["own", "reference"]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    modes: tuple[Mode, ...]
    conversations: int | None
    min_turns: int
    max_turns: int | None
    turns: int | None
    """Only so many turns of each conversation were held."""
    top_k: int
    max_tokens: int
    replies: Replies
    words_per_minute: float
    think_s: float
    seed: int


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Where and with what it was measured."""

    tool: str
    python: str
    machine: str
    device: str
    """The GPU, where there is one."""
    model: str
    engine: str
    embedder: str
    max_model_len: int
    block_size: int
    kv_blocks: int
    data: str
    data_sha256: str
    settings: dict[str, Any]
    """The sections that shape a prompt; secrets are masked."""


class Failure(msgspec.Struct, frozen=True):
    """A conversation that could not be held to its end in one mode."""

    conversation: str
    mode: Mode
    turn: int
    error: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    schema: str
    created: str
    """UTC, for people."""
    command: str
    interrupted: bool
    order: Order
    conditions: Conditions
    conversations: int
    """That were begun."""
    turns: int
    """Seen, over all modes."""
    left_out: int
    """Turns in no figure, since another mode has not finished the same turn."""
    failures: tuple[Failure, ...]
    prewarms: dict[str, int]
    """Calls to prewarm by what became of them, and turns that used it."""
    summaries: tuple[Summary, ...]
    by_turn: tuple[TurnSummary, ...]
    observations: tuple[Observation, ...] = ()


def make_report(
    order: Order,
    conditions: Conditions,
    observations: Sequence[Observation],
    failures: Sequence[Failure],
    prewarms: dict[str, int],
    *,
    interrupted: bool,
) -> Report:
    return Report(
        schema=SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=" ".join(["firstword", *sys.argv[1:]]),
        interrupted=interrupted,
        order=order,
        conditions=conditions,
        conversations=len(
            {turn.conversation for turn in observations} | {failure.conversation for failure in failures}
        ),
        turns=len(observations),
        left_out=len(observations) - len(common_turns(observations)),
        failures=tuple(failures),
        prewarms=prewarms,
        summaries=summaries(observations),
        by_turn=by_turn(observations),
        observations=tuple(observations),
    )


def write_json(report: Report, path: Path) -> None:
    """The whole document or, when the disk is full or forbids it (`OSError`), none of it."""
    with replacing(path) as file:
        file.write(msgspec.json.encode(report) + b"\n")
