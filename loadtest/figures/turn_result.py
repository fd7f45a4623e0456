"""One turn as its user saw it: what every figure is made of, and one entry of the report's `turns`."""

from __future__ import annotations

from typing import Literal

import msgspec

Outcome = Literal[
    "ok",
    "http_error",  # a status other than 200, 429 and 503
    "refused",  # 429 or 503: the server had no room
    "stream_error",  # an error event after the headers
    "truncated",  # the stream ended without a finish_reason or without [DONE]
    "malformed",  # not HTTP, not an event stream, or an event that is not a chat completion chunk
    "connection",  # no response: refused, reset, name or TLS failure
    "timeout",  # the whole turn took longer than allowed
    "unfinished",  # the run was stopped while the turn was under way: neither good nor failed, and in no figure
]
OUTCOMES: tuple[Outcome, ...] = (
    "ok", "http_error", "refused", "stream_error", "truncated", "malformed", "connection", "timeout", "unfinished",
)  # fmt: skip


class ServerTiming(msgspec.Struct, frozen=True):
    """What the server itself says of a turn, in milliseconds."""

    source: Literal["firstword", "vllm"]
    """`firstword.timing`, or the `metrics` of vLLM's `--enable-per-request-metrics`."""
    ttft_ms: float | None
    phases_ms: dict[str, float]
    """Consecutive phases in order, which add up to `ttft_ms` as far as the server tells them; may be empty."""


class TurnResult(msgspec.Struct, frozen=True, kw_only=True):
    """A field is null when the turn never got there or the server did not say.

    Durations start when the turn was *due*, whatever the client was doing then.
    """

    conversation_id: str
    holding: int
    """Which holding of a conversation this turn belongs to, 0 for the first: one conversation may be held many times."""
    turn: int
    """1 for the first turn of a conversation."""
    request_id: str
    """Sent as `x-request-id`."""
    warmup: bool
    outcome: Outcome
    status: int | None
    """HTTP status; null where there was no response."""
    detail: str | None
    """Why the turn failed, in one line."""
    due_s: float
    """When the turn was due: seconds since its stage began."""
    held_ms: float
    """How long it waited for one of `--max-concurrency` slots. Part of every duration below."""
    late_ms: float
    """How late the client itself was in sending it, beyond `held_ms`. Part of every duration below."""
    connect_ms: float | None
    """Setting up a new connection, with TLS; null when one was reused. Part of every duration below."""
    ttfb_ms: float | None
    """Until the first byte of the response."""
    ttft_ms: float | None
    """Until the first token: a delta with non-empty content, reasoning, tool call or refusal."""
    itl_us: tuple[int, ...]
    """Every gap between consecutive tokens, in order, in microseconds. 0: both came in one read."""
    e2e_ms: float
    """Until `[DONE]`; for a failed turn, until it was known to have failed."""
    output_tokens: int
    output_tokens_from: Literal["usage", "deltas"]
    """`deltas` counts events, which a server may fill with several tokens each."""
    finish_reason: str | None
    prompt_tokens: int | None
    cached_tokens: int | None
    """Prompt tokens that the server took from its prefix cache."""
    server: ServerTiming | None

    @property
    def sent_ttft_ms(self) -> float | None:
        """TTFT by a clock that starts when the request was sent: what a tool would report that does not see its own queue."""
        return None if self.ttft_ms is None else self.ttft_ms - self.held_ms - self.late_ms

    @property
    def tpot_ms(self) -> float | None:
        """Time per output token after the first; null for fewer than two tokens."""
        if not self.itl_us or self.output_tokens < 2:
            return None
        return sum(self.itl_us) / 1_000 / (self.output_tokens - 1)

    @property
    def client_minus_server_ttft_ms(self) -> float | None:
        """What the network, and the clients on both ends of it, added to the server's own figure."""
        if self.sent_ttft_ms is None or self.server is None or self.server.ttft_ms is None:
            return None
        return self.sent_ttft_ms - self.server.ttft_ms
