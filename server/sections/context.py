"""How a conversation's prompt grows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from server.sections.section import Section


class ContextSettings(Section):
    """How a conversation's prompt is laid out and what is remembered of it."""

    layout: Literal["append", "system", "user"] = "append"
    """`append`: the prompt only grows. For comparison, rebuilt on each turn: passages in the `system` message, or with
    the last `user` message."""
    order: Literal["shared", "relevance"] = "shared"
    """Of the passages of a first turn: those that other conversations use come first, or the best."""
    order_margin: float = Field(0.15, ge=0, le=2)
    """Passages whose scores differ by more than this keep their order by relevance."""
    order_window: int = Field(512, ge=1, le=100_000)
    """First turns of a tenant that the shared order remembers."""
    max_prompt_tokens: int = Field(0, ge=0)
    """A prompt that grows beyond this is compacted; 0: as far as the model's context and room for the answer allow."""
    compact_to: float = Field(0.6, gt=0, lt=1)
    """Share of that which a compacted prompt may keep."""
    attention_cost: float = Field(0.25, ge=0, le=10)
    """What a thousand tokens of context add to the price of computing one token, against one without context."""
    ledger_mib: int = Field(256, ge=1, le=1_048_576)
    """Memory for the ledgers of all conversations; the least recently used are forgotten."""
    ledger_snapshot: bool = True
    """Keep the ledgers over a restart, in a file that only this user can read. They hold questions and answers."""
    ledger_url: SecretStr = SecretStr("")
    """`redis://` or `rediss://`: several gateways share their ledgers there; empty: each keeps its own."""
    ledger_timeout_ms: float = Field(50.0, gt=0, le=10_000)
    """A shared ledger that answers no sooner is done without."""
    ledger_ttl_s: float = Field(86_400.0, gt=0)
    """How long the shared ledger keeps a conversation that nobody goes on with."""
    overlap_tokens: int = Field(256, ge=1)
    """History of which at least so many tokens must be computed is prefilled while the query is embedded and searched."""
