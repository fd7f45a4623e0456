"""What a turn is asked to do, whatever endpoint it came in by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from retrieval.types import Scope
from server.context.template import Message
from server.engine.protocol import Sampling
from server.engine.reply import ToolUse
from server.guard.admission import Tier


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """Validated."""

    messages: Sequence[Message]
    sampling: Sampling
    retrieve: bool
    top_k: int
    stream: bool
    scope: str = ""
    """Names `where`: a history is known under this name alone."""
    where: Scope = field(default_factory=Scope)
    """What is searched, when `retrieve`."""
    tier: Tier = "default"
    tool_use: ToolUse | None = None

    @property
    def tools(self) -> Sequence[dict[str, Any]]:
        """Those that the model is told of."""
        return self.tool_use.tools if self.tool_use and self.tool_use.choice != "none" else ()
