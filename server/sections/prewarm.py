"""Type-ahead."""

from __future__ import annotations

from pydantic import Field

from server.sections.section import Section


class PrewarmSettings(Section):
    """Type-ahead: prefill while the user types."""

    enabled: bool = True
    """Answer `POST /v1/chat/prewarm`."""
    max_running_share: float = Field(0.5, ge=0, le=1)
    """Nothing is prewarmed while more than this share of the permits for turns is taken, or while a turn waits."""
    max_per_key: int = Field(8, ge=1, le=10_000)
    """Messages of one API key that are being typed at a time; beyond it the oldest is given up."""
    calls_per_minute: int = Field(600, ge=1, le=1_000_000)
    """Of one API key; beyond it the answer is 429."""
    guess_ttl_s: float = Field(120.0, gt=0, le=86_400)
    """How long a prefilled guess waits for its message."""
