"""Logs and the turn log."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from server.sections.section import Section


class TelemetrySettings(Section):
    turns_kept: int = Field(10_000, ge=1)
    """Turns that `/v1/turns` remembers."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The server's own log."""
