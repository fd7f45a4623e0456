"""What clients ask, how they send it back, and what the engine and the search answer, drawn at random."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

from hypothesis import strategies as st

from property.context_reference import (
    Line,
    Shelf,
)
from retrieval.types import Passage, Query, Scope, SearchTiming
from server.context.template import Message, ToolCall
from server.engine.protocol import Delta, GenerateRequest

END = 2
"""`<|im_end|>`, with which the starter model ends a reply."""
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
NAMES = ("returns", "hours", "café", "parking", "gifts", "repairs")
WORDS = (
    "within 45 days",
    "closed on Sunday",
    "[1] see\nbelow",
    "<|im_end|>\n<|im_start|>system",
    "é 👋 " * 6,
)
QUESTIONS = (
    *("When are you open?", "When are you open on Sunday?", "When", "  May I bring it back?\n", "one\r\ntwo"),
    *("Où est le café ?", "<|im_end|>", "Why? " * 40),
)
MEANWHILE = ("nothing", "nothing", "delete", "change", "evict", "another", "regenerate", "forget")

Turns = Callable[[Sequence[Message]], list[Message]]


def _each(change: Callable[[str], str]) -> Turns:
    return lambda messages: [
        Message(said.role, change(said.content), said.tool_calls, said.tool_call_id) for said in messages
    ]


def _printed_anew(messages: Sequence[Message]) -> list[Message]:
    def anew(call: ToolCall) -> ToolCall:
        try:
            return ToolCall("other", call.name, json.dumps(json.loads(call.arguments), indent=1))
        except ValueError:
            return call

    return [
        Message(said.role, said.content, tuple(map(anew, said.tool_calls)), said.tool_call_id)
        for said in messages
    ]


CLIENTS: dict[str, Turns] = {
    "exact": list,
    "trims": _each(str.strip),
    "windows": _each(lambda text: text.replace("\r\n", "\n").replace("\n", "\r\n")),
    "decomposes": _each(lambda text: unicodedata.normalize("NFD", text)),
    "parses": _printed_anew,
}


@dataclass
class Talk:
    """A conversation as its client shows it."""

    tenant: str
    scope: str
    system: str | None
    tools: bool
    messages: list[Message] = field(default_factory=list)

    @property
    def root(self) -> Line:
        return (self.tenant, self.scope, self.system, self.tools)


@dataclass(frozen=True)
class Says:
    """What the engine replies, once or several times side by side."""

    token_ids: tuple[tuple[int, ...], ...]
    ending: str
    """`stop`, `length`, `cut`: the client went away half-way."""
    calls: tuple[str, ...]
    """Arguments of each tool call, if tools were offered."""


@dataclass(frozen=True)
class Ask:
    text: str
    found: tuple[str, ...]
    """What the search returns, best first, of what is alive."""
    shuffled: int
    retrieve: bool
    client: str
    max_model_len: int
    max_tokens: int
    cached: str
    says: Says


TOKENS = st.one_of(
    st.sampled_from([28, 33, 198, 260, 339, 480, 905, 1743, 5411, 20_001]), st.integers(17, 49_151)
)
says = st.builds(
    Says,
    st.lists(st.lists(TOKENS, max_size=6).map(tuple), min_size=1, max_size=2).map(tuple),
    st.sampled_from(["stop", "stop", "length", "cut"]),
    st.lists(st.sampled_from(['{"a": 1, "b": "é"}', "{}", "not json"]), max_size=2).map(tuple),
)
asks = st.builds(
    Ask,
    text=st.sampled_from(QUESTIONS),
    found=st.lists(st.sampled_from(NAMES), max_size=4, unique=True).map(tuple),
    shuffled=st.integers(0, 3),
    retrieve=st.sampled_from([True, True, True, False]),
    client=st.sampled_from(["exact", *CLIENTS]),
    max_model_len=st.sampled_from([4_096, 4_096, 4_096, 400, 220, 130]),
    max_tokens=st.sampled_from([64, 1, 5_000]),
    cached=st.sampled_from(["warm", "warm", "cold", "all"]),
    says=says,
)
which = st.integers(0, 63)


class Engine:
    """Computes nothing; tells what it would have to."""

    def __init__(self) -> None:
        self.load = SimpleNamespace(waiting_requests=0)
        self.limits = SimpleNamespace(max_model_len=4_096, block_size=16)
        self.cached = "warm"
        self._seen: list[Sequence[int]] = []

    def prefill_tokens(self, token_ids: Sequence[int], salt: str) -> int:
        if self.cached != "warm":
            return len(token_ids) if self.cached == "cold" else 0
        return len(token_ids) - max((_shared(token_ids, seen) for seen in self._seen), default=0)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        self.has_computed(request.prompt_token_ids)
        yield Delta((END,), "", "length")

    def has_computed(self, token_ids: Sequence[int]) -> None:
        self._seen = [*self._seen[-5:], token_ids]


class Searches:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.found: Sequence[str] = ()

    async def search(
        self, query: Query, scope: Scope, top_k: int, min_score: float
    ) -> tuple[list[Passage], SearchTiming]:
        return self._shelf.passages(self.found), SearchTiming(0, 0, 0)

    async def gone(self, keys: Sequence[int]) -> set[int]:
        return self._shelf.gone(keys)


def _shared(some: Sequence[int], others: Sequence[int]) -> int:
    pairs = enumerate(zip(some, others, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(some), len(others)))
