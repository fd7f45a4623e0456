"""What is read of a chat completion chunk: nothing but what a load test needs. Unknown keys are skipped unread."""

from __future__ import annotations

from typing import Any

import msgspec

from loadtest.figures.turn_result import ServerTiming

_DETAIL_CHARS = 200


class Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class Choice(msgspec.Struct):
    delta: Delta | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None

    @property
    def cached_tokens(self) -> int | None:
        return None if self.prompt_tokens_details is None else self.prompt_tokens_details.cached_tokens


class _Firstword(msgspec.Struct):
    timing: dict[str, float | int | None] | None = None


class _VllmMetrics(msgspec.Struct):
    time_to_first_token_ms: float | None = None
    queue_time_ms: float | None = None


class Chunk(msgspec.Struct):
    choices: list[Choice] | None = None
    usage: Usage | None = None
    firstword: _Firstword | None = None
    metrics: _VllmMetrics | None = None
    error: Any = None


decode_chunk = msgspec.json.Decoder(Chunk).decode

_FIRSTWORD_PHASES = ("admit", "recall", "embed", "search", "rerank", "assemble", "engine_queue", "prefill", "first_byte")  # fmt: skip


def server_timing(chunk: Chunk) -> ServerTiming | None:
    """What the chunk tells of the server's own measurement, in the server's order of phases."""
    if chunk.firstword is not None and (timing := chunk.firstword.timing) is not None:
        phases = {name: float(ms) for name in _FIRSTWORD_PHASES if (ms := timing.get(name)) is not None}
        return ServerTiming("firstword", timing.get("ttft"), phases)
    if chunk.metrics is not None and (ttft_ms := chunk.metrics.time_to_first_token_ms) is not None:
        queue_ms = chunk.metrics.queue_time_ms
        phases = {} if queue_ms is None else {"queue": queue_ms, "prefill": max(0.0, ttft_ms - queue_ms)}
        return ServerTiming("vllm", ttft_ms, phases)
    return None


def error_message(error: object) -> str:
    """The message inside an OpenAI error, or whatever stands in its place."""
    if isinstance(error, dict):
        error = error.get("message") or error
    return error if isinstance(error, str) else msgspec.json.encode(error).decode()


def one_line(text: str) -> str:
    """Printable, on one line, short enough for a table."""
    words = "".join(c if c.isprintable() else " " for c in text).split()
    line = " ".join(words)
    return line if len(line) <= _DETAIL_CHARS else line[: _DETAIL_CHARS - 1] + "…"
