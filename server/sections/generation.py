"""Defaults for sampling."""

from __future__ import annotations

from pydantic import Field

from server.sections.section import Section


class GenerationSettings(Section):
    max_tokens: int = Field(256, ge=1)
    """Length of an answer, unless the request says otherwise."""
    temperature: float = Field(0.0, ge=0, le=2)
    """Sampling temperature, unless the request says otherwise."""
    repetition_penalty: float = Field(1.0, gt=0, le=2)
    """Keeps small models from repeating themselves; 1 is off."""
