"""What a stage is to be, whole: every measuring process gets the same plan and takes its own share of it."""

from __future__ import annotations

from typing import Any

import msgspec

from loadtest.arrivals import Arrivals
from loadtest.workload.conversation import Conversation


class TypeAhead(msgspec.Struct, frozen=True):
    """The next question is sent as it is typed, to `POST …/chat/prewarm`, for servers that prefill ahead of the submit."""

    words_per_minute: float
    every_s: float
    """What has been typed is sent this often."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One stage. Without `arrivals` it is a closed loop of `concurrency` conversations at a time."""

    url: str
    model: str
    conversations: tuple[Conversation, ...]
    popularity: str | None = None
    arrivals: Arrivals | None = None
    concurrency: int | None = None
    """Closed loop: conversations held at a time. Open loop: turns under way at a time, null for no bound."""
    n_conversations: int | None = None
    """How many are begun; null: by `duration_s`, or each of the workload once."""
    duration_s: float | None = None
    """No turn begins later; those under way are waited for."""
    warmup_conversations: int = 0
    """Held before the stage begins, the workload's first ones; the stage goes on with the next."""
    warmup_s: float = 0.0
    """Turns that are due in the stage's first seconds are marked as warm-up."""
    think: str | None = None
    """Pause between a reply and the same user's next turn, also of the next conversation in a closed loop; seconds, a distribution."""
    type_ahead: TypeAhead | None = None
    max_tokens: int | None = None
    extra_body: dict[str, Any] = {}
    """Further fields of every request."""
    timeout_s: float = 300.0
    keep_connections: bool = True
    busy_poll: bool = False
    """The measuring processes never sleep."""
    seed: int = 0
    request_prefix: str = "bench"
    """What every `x-request-id` begins with."""

    @property
    def is_open_loop(self) -> bool:
        return self.arrivals is not None


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A process's part of a plan: every holding whose number modulo `processes` is `process`."""

    plan: Plan
    process: int
    processes: int
    ips: tuple[str, ...]
    api_key: str | None

    @property
    def concurrency(self) -> int | None:
        """Its part of the plan's concurrency."""
        whole = self.plan.concurrency
        if whole is None:
            return None
        return whole // self.processes + (self.process < whole % self.processes)
