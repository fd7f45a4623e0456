"""How much is taken on at a time."""

from __future__ import annotations

from pydantic import Field

from server.sections.section import Section


class AdmissionSettings(Section):
    max_running_turns: int = Field(16, ge=1, le=10_000)
    """Turns that retrieve or generate at the same time."""
    max_queued_turns: int = Field(64, ge=0, le=100_000)
    """Turns that may wait for a permit; the next one is refused at once with 429."""
    queue_share_per_key: float = Field(0.5, gt=0, le=1)
    """Share of that line which one API key may fill, when there are several."""
    max_prefill_tokens: int = Field(4_096, ge=32)
    """Prompt tokens that the engine is given to compute at a time; tokens it has in its prefix cache do not count."""
    retry_after_s: float = Field(1.0, gt=0, le=3_600)
    """What a refused client is told to wait."""
