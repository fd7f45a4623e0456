"""What every Python client program shares: asks come in as JSON lines, what the client saw goes out as JSON lines."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Ask:
    """One scenario for a client. `base_url` ends in `/v1`."""

    scenario: str
    base_url: str
    api_key: str
    model: str
    questions: list[str]
    """The user's turns, in order; most scenarios have one."""
    max_tokens: int | None = None
    parameter: str = ""
    """A request field that no server knows."""
    tool: dict[str, Any] = field(default_factory=dict)
    """A function as JSON schema: `name`, `description`, `parameters`."""
    tool_results: list[str] = field(default_factory=list)
    """What each call of the tool returns."""
    close_after_deltas: int = 0
    documents: dict[str, str] = field(default_factory=dict)
    """Texts by the name of their file."""

    @property
    def question(self) -> str:
        return self.questions[0]


@dataclass(slots=True)
class Seen:
    """What a client made of the wire, in one spelling for all of them."""

    text: str = ""
    deltas: int = 0
    finish_reason: str | None = None
    usage: dict[str, int] | None = None
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    """`id`, `name` and `arguments`, the last one parsed."""
    choices: list[str] = field(default_factory=list)
    """The texts of an answer with more than one choice."""
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    """`token`, `logprob` and `n_top` of each token."""
    parsed: Any = None
    """The object a structured answer became."""
    firstword: dict[str, Any] = field(default_factory=dict)
    """Firstword's own fields, where the client keeps keys it does not know."""
    found: list[dict[str, Any]] = field(default_factory=list)
    """`filename`, `text` and `attributes` of what a search of a vector store gave, best first."""
    follow_up: dict[str, Any] | None = None
    """What was seen of the next turn."""
    error: dict[str, Any] | None = None
    """`type`, `status`, `code`, `param` and `message`, as the client's exception has them."""


def retyped(text: str) -> str:
    """A reply as a text area or a script's own file gives it back: other line breaks, other white space around it."""
    return text.strip().replace("\r\n", "\n").replace("\r", "\n") + "\n"


class Answer(BaseModel):
    """The shape that structured answers are asked for."""

    answer: str
    notes: list[str]


Scenario = Callable[[Ask, Seen], Any]
Describe = Callable[[Exception], dict[str, Any]]


def describe(error: Exception) -> dict[str, Any]:
    """An OpenAI-style exception as plain fields."""
    return {
        "type": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "code": getattr(error, "code", None),
        "param": getattr(error, "param", None),
        "message": str(error),
        "trace": traceback.format_exc(limit=-6),
    }


def version_of(*packages: str) -> str:
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)


def serve(version: str, scenarios: dict[str, Scenario], to_fields: Describe = describe) -> None:
    """Say who one is, then answer asks until stdin ends. An exception of the client's becomes `error`."""
    _say({"version": version})
    for line in sys.stdin:
        ask = Ask(**json.loads(line))
        seen = Seen()
        try:
            running = scenarios[ask.scenario](ask, seen)
            if inspect.isawaitable(running):
                asyncio.run(_finish(running))
        except Exception as error:  # noqa: BLE001 - whatever the client raises is what is wanted
            seen.error = to_fields(error)
        _say(asdict(seen))


async def _finish(running: Any) -> None:
    await running


def _say(fields: dict[str, Any]) -> None:
    # ASCII only: the pipe carries no text that a line reader could split.
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()
