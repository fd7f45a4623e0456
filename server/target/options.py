"""What the target is told to be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from server.sections.engine import EngineSettings, SimulatedSettings

MAX_BODY_BYTES = 16_777_216
MAX_HEAD_BYTES = 65_536

# Eighteen whole tokens of the four-byte vocabulary, all different.
_REPLY = "Words come one by one, at times that are known, to check a load tester. "
_CONTEXT_TOKENS = 8 * MAX_BODY_BYTES


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """The known figures, and what is to go wrong on purpose. Shares are in [0, 1] and add up to 1 at most."""

    ttft_ms: float = 50.0
    """From a request's last byte to its first token, when a slot is free and its prompt costs nothing."""
    interval_ms: float = 10.0
    tokens: int = 64
    """Length of an answer whose request names none."""
    slots: int = 1_024
    """Answers under way at a time; further requests wait in the engine's line."""
    prefill_tokens_per_s: float = math.inf
    """Prompts are computed one after the other at this rate, ahead of `ttft_ms`."""
    block_size: int = 32
    kv_blocks: int = 16_384
    refuse_share: float = 0.0
    """429 with `retry-after`."""
    fail_share: float = 0.0
    """500."""
    cut_share: float = 0.0
    """Streams that end in the middle, cleanly by HTTP, without a finish reason and without `[DONE]`."""
    early_role: bool = False
    """Send the role chunk at once: a tester that takes it for a token reports a TTFT of nothing."""
    seed: int = 0
    model: str = "simulated"
    log: Path | None = None

    def engine(self) -> EngineSettings:
        return EngineSettings(
            kind="simulated",
            block_size=self.block_size,
            max_model_len=_CONTEXT_TOKENS,
            max_num_seqs=self.slots,
            simulated=SimulatedSettings(
                prefill_tokens_per_s=self.prefill_tokens_per_s,
                first_token_ms=self.ttft_ms,
                token_interval_ms=self.interval_ms,
                kv_blocks=self.kv_blocks,
                reply=_REPLY,
            ),
        )
