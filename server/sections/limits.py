"""What one request may ask for."""

from __future__ import annotations

from pydantic import Field

from server.sections.section import Section


class LimitSettings(Section):
    """What one request may ask for; beyond it the answer is 400, 413 or 431."""

    max_body_bytes: int = Field(1_000_000, ge=1_024, le=100_000_000)
    """Largest request body that is read; above it the answer is 413."""
    max_header_bytes: int = Field(32_768, ge=1_024, le=1_048_576)
    """Longest request line and headers together; above it the answer is 431."""
    max_messages: int = Field(512, ge=1, le=10_000)
    """Most messages one request may carry."""
    max_tokens: int = Field(16_384, ge=1)
    """Longest answer that may be asked for; the model's context bounds it too."""
    max_choices: int = Field(8, ge=1, le=128)
    """Most answers to one request (`n`)."""
    max_stop_strings: int = Field(16, ge=1, le=256)
    """Most stop strings."""
    max_stop_characters: int = Field(256, ge=1, le=4_096)
    """Longest stop string; a stream holds that much text back."""
    max_logit_biases: int = Field(300, ge=0, le=10_000)
    """Most tokens that `logit_bias` may name."""
    max_top_logprobs: int = Field(20, ge=0, le=20)
    """Most alternatives that are told with each token."""
    max_tools: int = Field(64, ge=0, le=1_024)
    """Most tools one request may offer."""
    max_schema_bytes: int = Field(16_384, ge=64, le=1_000_000)
    """Largest JSON schema, of a tool or of the answer."""
    max_schema_depth: int = Field(16, ge=1, le=100)
    """Deepest nesting of a JSON schema."""
