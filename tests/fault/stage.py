"""A simulated engine that is told, prompt by prompt, what to say and what is to befall it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest

import server.parts
from fault.texts import Tokens
from server.context.template import ChatTemplate
from server.engine.protocol import Delta, FinishReason, GenerateRequest
from server.engine.script import Answer, Script
from server.engine.simulated import Fault, SimulatedEngine
from server.settings import Settings

_CASE = re.compile(r"case (\d+)")
_CANARY: Tokens = ((0, "."),)


@dataclass(slots=True)
class Seen:
    """What became of one request in the engine."""

    taken_tokens: int = 0
    taken_at: float = field(default_factory=time.monotonic)
    """When its reader last took a delta."""
    longest_silence_s: float = 0.0
    """Longest time after the first token that its reader took nothing."""
    most_merged_tokens: int = 0
    """Tokens in the largest delta."""
    ended_at: float | None = None
    """When the engine was told that it is over."""
    still_runs: bool = False
    """And went on all the same."""

    def take(self, delta: Delta) -> None:
        self.look()
        self.taken_tokens += len(delta.token_ids)
        self.most_merged_tokens = max(self.most_merged_tokens, len(delta.token_ids))

    def look(self) -> None:
        now = time.monotonic()
        if self.taken_tokens:
            self.longest_silence_s = max(self.longest_silence_s, now - self.taken_at)
        self.taken_at = now


@dataclass(slots=True)
class Part:
    """What the engine does with one prompt."""

    answers: Sequence[Tokens | str]
    """One for each choice; text is cut into the tokens of the model's own tokenizer."""
    faults: Sequence[Fault] = ()
    """For each attempt; none beyond."""
    attempts: int = 0
    seen: Seen | None = None
    """Of the last attempt."""


class Stage:
    """The parts of every case; engines come and go, this stays."""

    def __init__(self) -> None:
        self.parts: dict[int, Part] = {}
        self.seen: dict[str, Seen] = {}
        """By request id, which is the turn's."""
        self.vocabulary: ChatTemplate | None = None
        self.stall_s: float | None = None
        """An engine that was stalled goes on after so long; None: never."""

    def part_of(self, request: GenerateRequest) -> Part:
        assert self.vocabulary is not None
        found = _CASE.findall(self.vocabulary.decode(request.prompt_token_ids))
        return self.parts[int(found[-1])] if found else Part([_CANARY] * request.sampling.n)

    def answer(self, request: GenerateRequest, cached_tokens: int, index: int) -> Answer:
        """See `Script.answer`."""
        said = self.part_of(request).answers[index]
        if isinstance(said, str):
            assert self.vocabulary is not None
            return Script(said, self.vocabulary).answer(request, cached_tokens, index)
        return Answer(said, request.sampling, index)


class StagedEngine(SimulatedEngine):
    """Counts who asks, and gives each attempt the fault of its part."""

    def __init__(self, settings: Settings, vocabulary: ChatTemplate, stage: Stage) -> None:
        super().__init__(settings.engine, vocabulary)
        stage.vocabulary = vocabulary
        self._stage = stage
        self.script = stage

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        part = self._stage.part_of(request)
        part.attempts += 1
        fault = part.faults[part.attempts - 1] if part.attempts <= len(part.faults) else None
        if fault is not None and not self._death.is_set():
            self.faults.appendleft(fault)
        seen = part.seen = self._stage.seen[request.request_id] = Seen()
        deltas = super().generate(request)
        try:
            async for delta in deltas:
                seen.take(delta)
                yield delta
        finally:
            seen.look()
            await deltas.aclose()
            seen.ended_at = time.monotonic()
            seen.still_runs = request.request_id in self._runs

    def stall(self) -> None:
        super().stall()
        if self._stage.stall_s is not None:
            asyncio.get_running_loop().call_later(self._stage.stall_s, self.resume)


def set_up(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Every simulated engine that is made from here on plays on this stage."""
    stage = Stage()

    def make(settings: Settings, model: str, template: ChatTemplate) -> StagedEngine:
        return StagedEngine(settings, template, stage)

    monkeypatch.setattr(server.parts, "make_engine", make)
    return stage


def until_stop(
    tokens: Tokens, stops: Sequence[str], max_tokens: int | None = None
) -> tuple[str, FinishReason, int]:
    """The reference: the text that such an answer has, why it ends, and how many tokens it takes."""
    length = len(tokens) if max_tokens is None else min(len(tokens), max_tokens)
    text = ""
    for number, (_, piece) in enumerate(tokens[:length], start=1):
        text += piece
        starts = [at for stop in stops if (at := text.find(stop)) >= 0]
        if starts:
            return text[: min(starts)], "stop", number
    ended = max_tokens is None or len(tokens) < max_tokens
    return text, "stop" if ended else "length", length
