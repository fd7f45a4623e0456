"""Any history of conversations, clients, documents and restarts gives prompts that hold what they should.

After each prompt that is assembled, for a turn or while its question is typed, `context_reference.py` says what it
should be. `FAULT_SIZE=full` runs 10,000 histories.
"""

from __future__ import annotations

import asyncio
import json
import unicodedata
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from fault.size import FULL, TIMEOUT_S, pick
from property.context_reference import (
    Held,
    Line,
    Shelf,
    Writer,
    lines,
    standing,
)
from retrieval.types import Passage, SearchTiming
from server.ahead import prewarm
from server.context.assemble import Assembler, Wanted
from server.context.conversation import read_conversation
from server.context.entry import Entry, unpack
from server.context.guess import Guesses
from server.context.joints import Joints
from server.context.ledger import Ledger, Recalled
from server.context.memory_store import MemoryStore
from server.context.prompt import Prompt
from server.context.template import ChatTemplate, Message, ToolCall
from server.engine.protocol import Delta, FinishReason, GenerateRequest, Sampling, ToolCallPiece
from server.engine.reply import ToolUse
from server.errors import ContextTooLong
from server.grounding import assemble, look_over, search
from server.parts import Parts
from server.replies import Reply
from server.settings import PROJECT_ROOT, Settings, load_settings
from server.turn_request import TurnRequest

pytestmark = pytest.mark.timeout(TIMEOUT_S)

FINGERPRINT = b"one"
PLENTY_BYTES = 10_000_000
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
MEANWHILE = ("nothing", "nothing", "delete", "change", "evict", "another", "regenerate")

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

    async def retrieve(self, query: str, top_k: int, min_score: float) -> tuple[list[Passage], SearchTiming]:
        return self._shelf.passages(self.found), SearchTiming(0, 0, 0)

    async def gone(self, keys: Sequence[int]) -> set[int]:
        return self._shelf.gone(keys)


class Judge(Assembler):
    """The assembler, each of its prompts held against the reference."""

    def __init__(self, template: ChatTemplate, joints: Joints, settings: Settings, model: Model) -> None:
        super().__init__(template, joints, settings)
        self._model = model
        self._settings = settings

    def assemble(
        self, recalled: Recalled, wanted: Wanted, expected_prefill: Callable[[Sequence[int]], int]
    ) -> Prompt:
        ahead = self.history(recalled, wanted)
        try:
            prompt = super().assemble(recalled, wanted, expected_prefill)
        except ContextTooLong:
            self._model.check_too_long(recalled, wanted, self._settings)
            raise
        if prompt.compaction is None:
            assert prompt.token_ids[: len(ahead)] == ahead
        self._model.check(recalled, wanted, prompt, self._settings)
        return prompt


class Model:
    """What was asked, said and found so far, and what therefore stands in a prompt."""

    def __init__(self, writer: Writer, shelf: Shelf) -> None:
        self.writer = writer
        self.shelf = shelf
        self.root: Line = ()
        """Of the conversation whose turn it is."""
        self.held: dict[Line, tuple[int, Held]] = {}
        """With its version: a number for each time that any was written."""
        self.found: dict[Line, set[int]] = {}
        """Keys of what searches returned for a question, or ahead of it for what was typed after this line."""
        self.after: dict[Line, tuple[list[int], list[int]]] = {}
        """Prompt and reply up to this line, and the versions of all in it."""
        self.versions = count()
        self.typed: dict[tuple[Entry, ...], list[tuple[int, Held]]] = {}
        self.said: list[Held] = []
        """Of the last prompt."""
        self.forgets = False
        self.n_prompts = 0
        self.n_grown = 0

    def check_too_long(self, recalled: Recalled, wanted: Wanted, settings: Settings) -> None:
        conversation = recalled.conversation
        tail, asked_at = self._tail(recalled), conversation.asked_at
        content = self.writer.question(conversation.question, grounded=False)
        if tail and len(recalled.entries) > asked_at:
            content = self.held[lines(self.root, conversation.messages)[asked_at]][1].content
        question = Held("user", content)
        least = self.writer.prompt(conversation.system, wanted.tools, [question, *tail])
        assert len(least) > _budget(wanted, settings), "system message, question and what came of it fit"

    def check(self, recalled: Recalled, wanted: Wanted, prompt: Prompt, settings: Settings) -> None:
        self.n_prompts += 1
        conversation, asked_at = recalled.conversation, recalled.conversation.asked_at
        places = lines(self.root, conversation.messages)
        before_question = places[asked_at - 1] if asked_at else self.root
        noted = before_question if wanted.typing else places[asked_at]
        self.found.setdefault(noted, set()).update(passage.key for passage in wanted.passages)
        assert prompt.entries, "the starter model's prompts grow"
        assert len(prompt.entries) == len(places)
        self._check_recalled(recalled, places)
        observed = [
            _observed(entry, said.role)
            for entry, said in zip(prompt.entries, conversation.messages, strict=True)
        ]

        due = self._due(recalled, wanted, settings, places)
        history = self._shed(due[:asked_at], observed[:asked_at], prompt, wanted)
        if asked_at < len(recalled.entries) and conversation.tail:
            question = due[asked_at]
            if prompt.compaction == "full" and not observed[asked_at].passages:
                assert all(held.dropped for held in history) or not question.passages
                question = replace(question, passages=())
        else:
            question = self._question(conversation.question, wanted, history, observed[asked_at], prompt)
        self.said = [*history, question, *due[asked_at + 1 :]]
        written = self.writer.prompt(conversation.system, wanted.tools, self.said)
        assert prompt.token_ids == written, (
            f"{self.writer.text(prompt.token_ids)}\n--- and not\n{self.writer.text(written)}"
        )
        self._check_passages(places, prompt)
        self._check_sizes(wanted, prompt, settings)
        self._check_prefix(recalled, wanted, prompt, places)
        if wanted.typing:
            self.typed[prompt.entries[:asked_at]] = [(0, held) for held in history]

    def _check_recalled(self, recalled: Recalled, places: Sequence[Line]) -> None:
        """Each is what was last committed under its line; without eviction all is found."""
        known = next((n for n, place in enumerate(places) if place not in self.held), len(places))
        assert len(recalled.entries) <= known
        assert self.forgets or len(recalled.entries) == known
        for entry, place in zip(recalled.entries, places, strict=False):
            assert _observed(entry, self.held[place][1].role) == self.held[place][1]

    def _due(
        self, recalled: Recalled, wanted: Wanted, settings: Settings, places: Sequence[Line]
    ) -> list[Held]:
        """All messages as nothing but deletions has changed them; the question is a placeholder unless it is kept."""
        conversation, asked_at = recalled.conversation, recalled.conversation.asked_at
        known = [self.held[place][1] for place in places[: len(recalled.entries)]]
        history, later = known[:asked_at], known[asked_at:]
        if wanted.guess is not None and wanted.guess.history is not None:
            history = [held for _, held in self.typed[wanted.guess.history]]
        history += self.writer.foreign_history(
            history, conversation.history[len(history) :], settings.prompt.max_history_tokens
        )
        question = later[0] if later else Held("user")
        return standing([*history, question, *self._tail(recalled)], self.shelf)

    def _tail(self, recalled: Recalled) -> list[Held]:
        conversation = recalled.conversation
        after = conversation.asked_at + 1
        places = lines(self.root, conversation.messages)
        known = [self.held[place][1] for place in places[after : len(recalled.entries)]]
        return known + [self.writer.foreign(message) for message in conversation.tail[len(known) :]]

    def _shed(
        self, due: Sequence[Held], observed: Sequence[Held], prompt: Prompt, wanted: Wanted
    ) -> list[Held]:
        """What is due, less what a compaction may shed and did."""
        if prompt.compaction is None:
            assert list(observed) == list(due)
            return list(due)
        there = [n for n, held in enumerate(due) if not held.dropped]
        dropped = [n for n in there if observed[n].dropped]
        assert there[: len(dropped)] == dropped, "older turns go first"
        assert dropped in ([], there) or due[there[len(dropped)]].role == "user", "turns go whole"
        assert prompt.compaction == "full" or not dropped
        keys = {passage.key for passage in wanted.passages}
        left = []
        for mine, its in zip(due, observed, strict=True):
            if its.dropped:
                left.append(Held(mine.role, numbered_to=mine.numbered_to, dropped=True))
                continue
            assert not mine.dropped
            shed = [there for there in mine.passages if there not in its.passages]
            assert not {key for _, key in shed} & keys, "what is wanted was shed"
            assert [there for there in mine.passages if there not in shed] == list(its.passages)
            left.append(replace(mine, passages=its.passages))
        return left

    def _question(
        self, text: str, wanted: Wanted, history: Sequence[Held], observed: Held, prompt: Prompt
    ) -> Held:
        """As observed, if it is what it may be."""
        present = {key: number for held in history for number, key in held.passages}
        asked = [passage.key for passage in wanted.passages]
        stands = [key for _, key in observed.passages]
        if prompt.compaction == "full":
            n_kept = next(
                (n for n, key in enumerate(asked) if key not in present and key not in stands), None
            )
            if n_kept is not None:  # only the worst are left out, and only when there is no history left
                assert all(held.dropped for held in history)
                asked = asked[:n_kept]
        assert {key for key in asked if key not in present} <= set(stands)
        assert not set(stands) & set(present)
        last = max((held.numbered_to for held in history), default=0)
        assert [number for number, _ in observed.passages] == list(range(last + 1, last + 1 + len(stands)))
        pointed = tuple(present[key] for key in asked if key in present)
        cited = [(citation.number, citation.passage.key) for citation in prompt.citations]
        number_of = present | {key: number for number, key in observed.passages}
        assert cited[: len(asked)] == [(number_of[key], key) for key in asked]
        assert sorted(cited[len(asked) :]) == [there for there in observed.passages if there[1] not in asked]
        assert [(there.number, passage.key) for there, passage in prompt.injected] == list(observed.passages)
        content = self.writer.question(text, grounded=bool(stands or pointed))
        return Held("user", content, observed.passages, pointed, last + len(stands))

    def _check_passages(self, places: Sequence[Line], prompt: Prompt) -> None:
        """Each was found by this conversation, is as the document is now, and has a number of its own."""
        found = set(self.found.get(self.root, ()))
        numbers: list[int] = []
        for place, held in zip(places, self.said, strict=True):
            found |= self.found.get(place, set())
            for number, key in held.passages:
                assert key in self.shelf.texts
                assert key in found, "a passage that this conversation never found"
                numbers.append(number)
        assert len(set(numbers)) == len(numbers), f"numbers twice in a prompt: {numbers}"

    def _check_sizes(self, wanted: Wanted, prompt: Prompt, settings: Settings) -> None:
        size = len(prompt.token_ids)
        assert size <= _budget(wanted, settings)
        assert 1 <= prompt.max_tokens <= wanted.max_tokens
        assert size + prompt.max_tokens <= wanted.max_model_len
        assert 0 < prompt.history_tokens <= prompt.ahead_tokens <= size
        assert prompt.usual is not None
        assert 0 < prompt.usual.computed_tokens <= prompt.usual.prompt_tokens

    def _check_prefix(
        self, recalled: Recalled, wanted: Wanted, prompt: Prompt, places: Sequence[Line]
    ) -> None:
        """It begins with the turn before, unless something that we know of stands against it."""
        roles = [message.role for message in recalled.conversation.messages]
        replied = next((n for n in reversed(range(len(roles))) if roles[n] == "assistant"), None)
        if replied is None or (before := self.after.get(places[replied])) is None:
            return
        token_ids, versions = before
        if len(recalled.entries) <= replied or prompt.compaction is not None:
            return
        held = [self.held[place] for place in places[: replied + 1]]
        shed_while_typing = (
            wanted.guess is not None
            and wanted.guess.history is not None
            and [here for _, here in self.typed[wanted.guess.history]]
            != [here for _, here in held[: recalled.conversation.asked_at]]
        )
        known = [here for _, here in held]
        if shed_while_typing or versions != [version for version, _ in held]:
            return
        if standing(known, self.shelf) == known:
            assert prompt.token_ids[: len(token_ids)] == token_ids
            self.n_grown += 1

    def commit(
        self, messages: Sequence[Message], prompt: Prompt, replies: Sequence[tuple[Message, Held]]
    ) -> None:
        places = lines(self.root, messages)
        for place, held in zip(places, self.said, strict=True):
            if place not in self.held or self.held[place][1] != held:
                self.held[place] = (next(self.versions), held)
        versions = [self.held[place][0] for place in places]
        for message, held in replies:
            (place,) = lines(places[-1], [message])
            if place not in self.held or self.held[place][1] != held:
                self.held[place] = (next(self.versions), held)
            self.after[place] = (
                [*prompt.token_ids, *held.content],
                [*versions, self.held[place][0]],
            )


def _observed(entry: Entry, role: str) -> Held:
    passages = tuple((there.number, there.key) for there in entry.passages)
    return Held(role, tuple(unpack(entry.content)), passages, entry.pointed, entry.numbered_to, entry.dropped)


def _budget(wanted: Wanted, settings: Settings) -> int:
    room = wanted.max_model_len - min(wanted.max_tokens, wanted.max_model_len // 4)
    return min(room, settings.context.max_prompt_tokens or room)


def _shared(some: Sequence[int], others: Sequence[int]) -> int:
    pairs = enumerate(zip(some, others, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(some), len(others)))


@dataclass(frozen=True)
class Stage:
    """What all histories share: templates take a while."""

    template: ChatTemplate
    joints: Joints
    settings: tuple[Settings, ...]
    folder: Path


class Histories(RuleBasedStateMachine):
    def __init__(self, stage: Stage, totals: Counter[str]) -> None:
        super().__init__()
        self.stage = stage
        self.totals = totals
        self.loop = asyncio.new_event_loop()
        self.shelf = Shelf()
        self.model = Model(Writer(stage.template, stage.settings[0].prompt, self.shelf), self.shelf)
        self.talks: list[Talk] = []
        self.engine = Engine()
        self.searches = Searches(self.shelf)
        self.shuffled = 0
        self.store = MemoryStore(PLENTY_BYTES)
        for name in NAMES:
            self.shelf.put(name, WORDS[len(name) % len(WORDS)])

    @initialize(size=st.sampled_from([0, 0, 1, 2]), ask=asks)
    def start(self, size: int, ask: Ask) -> None:
        self._open(size)
        self.talks.append(Talk("a", "", None, False))
        self._ask(self.talks[0], ask)

    def _open(self, size: int) -> None:
        settings = self.stage.settings[size]
        nothing = SimpleNamespace(count_prewarm=lambda _: None, count_prewarm_tokens=lambda _: None)
        self.parts = cast(
            Parts,
            SimpleNamespace(
                settings=settings,
                assembler=Judge(self.stage.template, self.stage.joints, settings, self.model),
                ledger=Ledger(self.store, FINGERPRINT),
                guesses=Guesses(2, 60.0),
                engine=self.engine,
                retriever=self.searches,
                authenticator=SimpleNamespace(cache_salt=lambda tenant: tenant),
                order=SimpleNamespace(arrange=self._arrange),
                admission=SimpleNamespace(leaves_room=lambda _: True),
                drain=SimpleNamespace(begun=False),
                metrics=nothing,
            ),
        )

    def _arrange(self, root: bytes, keys: Sequence[int], scores: Sequence[float]) -> list[int]:
        turned = list(range(len(keys)))
        return turned[self.shuffled :] + turned[: self.shuffled]

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(work)

    # Conversations

    @rule(
        tenant=st.sampled_from("ab"),
        scope=st.sampled_from(["", "", "x"]),
        system=st.sampled_from([None, None, "Be brief. é"]),
        tools=st.sampled_from([False, False, True]),
        greets=st.sampled_from([False, False, True]),
        ask=asks,
    )
    def begin(self, tenant: str, scope: str, system: str | None, tools: bool, greets: bool, ask: Ask) -> None:
        greeting = [Message("assistant", "How can I help?")] if greets else []
        talk = Talk(tenant, scope, system, tools, greeting)
        self.talks.append(talk)
        self._ask(talk, ask)

    @rule(at=which, ask=asks)
    def go_on(self, at: int, ask: Ask) -> None:
        talk = self._pick(at)
        self._ask(talk, ask)

    @rule(at=which, ask=asks, times=st.integers(3, 6))
    def go_on_for_long(self, at: int, ask: Ask, times: int) -> None:
        talk = self._pick(at)
        for n in range(times):
            found = [NAMES[(NAMES.index(name) + n) % len(NAMES)] for name in ask.found]
            self._ask(talk, replace(ask, text=f"{ask.text} {n}", found=tuple(found)))

    @rule(at=which, position=which, ask=asks)
    def edit(self, at: int, position: int, ask: Ask) -> None:
        talk = self._pick(at)
        asked = [n for n, said in enumerate(talk.messages) if said.role == "user"]
        cut = asked[position % len(asked)]
        branch = replace(talk, messages=talk.messages[:cut])
        self.talks.append(branch)
        self._ask(branch, ask)

    @rule(at=which, ask=asks)
    def regenerate(self, at: int, ask: Ask) -> None:
        talk = self._pick(at)
        cut = max(n for n, said in enumerate(talk.messages) if said.role == "user")
        again = replace(talk, messages=talk.messages[:cut])
        self.talks.append(again)
        self._ask(again, replace(ask, text=talk.messages[cut].content))

    @rule(at=which, position=which)
    def tamper(self, at: int, position: int) -> None:
        """The client shows another reply than it was given."""
        talk = self._pick(at)
        n = position % len(talk.messages)
        if talk.messages[n].role == "assistant":
            changed = Message("assistant", talk.messages[n].content + " Not.", talk.messages[n].tool_calls)
            talk.messages = [*talk.messages[:n], changed, *talk.messages[n + 1 :]]

    @rule(at=which, answer=st.sampled_from(["42", "", "é\r\n" * 30]), ask=asks)
    def answer_calls(self, at: int, answer: str, ask: Ask) -> None:
        talk = self._pick(at)
        if talk.messages[-1].tool_calls:
            for call in talk.messages[-1].tool_calls:
                talk.messages.append(Message("tool", answer, tool_call_id=call.id))
            self.run(self._turn(talk, ask))

    @rule(at=which, tenant=st.sampled_from("ab"), scope=st.sampled_from(["", "x"]), ask=asks)
    def show_to_another(self, at: int, tenant: str, scope: str, ask: Ask) -> None:
        """The same messages under another tenant or scope."""
        talk = self._pick(at)
        other = replace(talk, tenant=tenant, scope=scope, messages=list(talk.messages))
        self.talks.append(other)
        self._ask(other, ask)

    # Typing

    @rule(
        at=which,
        text=st.sampled_from(QUESTIONS),
        typed=st.lists(st.integers(1, 40), min_size=1, max_size=3),
        new=st.sampled_from([True, False, False]),
        steps=st.sampled_from([99, 99, 99, 0, 1, 2, 4]),
        meanwhile=st.sampled_from(MEANWHILE),
        ask=asks,
        typing=asks,
    )
    def type(
        self,
        at: int,
        text: str,
        typed: list[int],
        new: bool,
        steps: int,
        meanwhile: str,
        ask: Ask,
        typing: Ask,
    ) -> None:
        """Types so many characters of the question, more or fewer than before, then something happens, then asks.

        Of what runs for the typed text only the first `steps` may be done before it is given up.
        """
        talk = Talk("a", "", None, False) if new else self._pick(at)
        if talk.messages and talk.messages[-1].tool_calls:
            return
        for n_characters in typed:
            if text[:n_characters].strip():
                self.run(self._prewarm(talk, text[:n_characters], typing, steps))
        match meanwhile:
            case "delete":
                self.shelf.delete((*typing.found, NAMES[0])[0])
            case "change":
                self.shelf.put((*typing.found, NAMES[0])[0], WORDS[0])
            case "evict":
                self.evict(0.5)
            case "another":
                self._ask(replace(talk, messages=list(talk.messages)), typing)
            case "regenerate" if talk.messages:
                self.regenerate(at, typing)
        if new:
            self.talks.append(talk)
        self._ask(talk, replace(ask, text=text))

    async def _prewarm(self, talk: Talk, text: str, ask: Ask, steps: int) -> None:
        self._set_up(ask)
        self.model.root = talk.root
        request = self._request(replace(talk, messages=[*talk.messages, Message("user", text)]), ask)
        assert prewarm(request, talk.tenant, self.parts) is None
        task = self.parts.guesses._of[talk.tenant][-1].task
        assert task is not None
        for _ in range(steps):
            await asyncio.sleep(0)
        if steps < 99:
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    # The world

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        self.shelf.delete(name)

    @rule(name=st.sampled_from(NAMES), words=st.sampled_from(WORDS))
    def change(self, name: str, words: str) -> None:
        self.shelf.put(name, words)

    @rule(share=st.sampled_from([0.9, 0.5, 0.1]))
    def evict(self, share: float) -> None:
        self.model.forgets = True
        self.store.max_bytes = int(self.store.n_bytes * share)
        self.run(self.store.put({}))
        self.store.max_bytes = PLENTY_BYTES

    @rule(size=st.sampled_from([0, 1, 2]))
    def restart(self, size: int) -> None:
        self.run(self._close())
        path = self.stage.folder / "ledgers"
        self.store.save(path, FINGERPRINT)
        n_entries = self.store.n_entries
        self.store = MemoryStore(PLENTY_BYTES)
        self.store.load(path, FINGERPRINT)
        assert self.store.n_entries == n_entries
        self._open(size)

    # One turn

    def _pick(self, at: int) -> Talk:
        return self.talks[at % len(self.talks)]

    def _ask(self, talk: Talk, ask: Ask) -> None:
        if talk.messages and talk.messages[-1].tool_calls:
            talk.messages.append(Message("tool", "nothing", tool_call_id=talk.messages[-1].tool_calls[0].id))
        talk.messages.append(Message("user", ask.text))
        self.run(self._turn(talk, ask))

    def _set_up(self, ask: Ask) -> None:
        self.searches.found = ask.found
        self.shuffled = ask.shuffled
        self.engine.limits.max_model_len = ask.max_model_len
        self.engine.cached = ask.cached

    def _request(self, talk: Talk, ask: Ask) -> TurnRequest:
        system = [Message("system", talk.system)] if talk.system else []
        return TurnRequest(
            messages=[*system, *CLIENTS[ask.client](talk.messages)],
            sampling=Sampling(ask.max_tokens),
            retrieve=ask.retrieve,
            top_k=4,
            stream=False,
            scope=talk.scope,
            tool_use=ToolUse((TOOL,), "auto", True) if talk.tools else None,
        )

    async def _turn(self, talk: Talk, ask: Ask) -> None:
        """As `server/turn.py` has it, without an engine."""
        self._set_up(ask)
        self.model.root = talk.root
        parts, request = self.parts, self._request(talk, ask)
        conversation = read_conversation(request.messages)
        recalled = await parts.ledger.recall(conversation, talk.tenant, request.scope, request.tools)
        guess = parts.guesses.take(talk.tenant, recalled.history_key, conversation.question)
        passages = (await search(request, recalled, parts))[0] if request.retrieve else ()
        wanted = await look_over(request, recalled, passages, guess, parts)
        try:
            prompt = await assemble(wanted, recalled, talk.tenant, parts)
        except ContextTooLong:
            self.totals["too long"] += 1
            return
        self.totals[str(prompt.compaction)] += 1
        self.totals["guessed"] += guess is not None and guess.history is not None
        replies = [self._reply(token_ids, ask.says, talk.tools) for token_ids in ask.says.token_ids]
        said = [
            (reply.message(), reply.entry(self.stage.template, self.stage.joints.end_of_reply, ()))
            for reply in replies
        ]
        parts.ledger.commit(recalled, prompt.entries, said)
        held = [
            (
                message,
                Held(
                    "assistant", token_ids if ask.says.ending != "cut" else token_ids[: len(token_ids) // 2]
                ),
            )
            for (message, _), token_ids in zip(said, ask.says.token_ids, strict=True)
        ]
        self.model.commit(conversation.messages, prompt, held)
        self.engine.has_computed([*prompt.token_ids, *held[-1][1].content])
        talk.messages.append(_as_sent(said[0][0]))

    def _reply(self, token_ids: tuple[int, ...], says: Says, tools: bool) -> Reply:
        reply = Reply()
        if says.ending == "cut":
            token_ids = token_ids[: len(token_ids) // 2]
        ended: FinishReason | None = None
        if says.ending != "cut":
            ended = "length" if says.ending == "length" else "stop"
        pieces = tuple(
            ToolCallPiece(n, f"call{n:05}", "find", arguments)
            for n, arguments in enumerate(says.calls if tools else ())
        )
        text = self.stage.template.decode(token_ids)
        generated = Delta((*token_ids, END) if ended == "stop" else token_ids, text, ended)
        reply.add(generated, _told(generated, pieces))
        return reply

    async def _close(self) -> None:
        await self.parts.guesses.close()
        await self.parts.ledger.close()

    def teardown(self) -> None:
        if hasattr(self, "parts"):
            self.run(self._close())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()
        self.totals["prompts"] += self.model.n_prompts
        self.totals["grown"] += self.model.n_grown
        self.totals["histories"] += 1


def _told(delta: Delta, pieces: tuple[ToolCallPiece, ...]) -> Delta:
    return Delta(delta.token_ids, delta.text, delta.finish_reason, tool_calls=pieces)


def _as_sent(message: Message) -> Message:
    """With ids on its calls, as the client was given them."""
    calls = tuple(
        ToolCall(f"call{n:05}", call.name, call.arguments) for n, call in enumerate(message.tool_calls)
    )
    return Message("assistant", message.content, calls)


@pytest.fixture(scope="module")
def stage(template: ChatTemplate, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    def sized(**dotted: object) -> Settings:
        overrides = {key.replace("__", "."): value for key, value in dotted.items()}
        overrides |= {"prompt.system": "Answer.", "engine.kind": "simulated"}
        return load_settings(PROJECT_ROOT / "configs" / "default.toml", overrides)

    sizes = (
        sized(),
        sized(context__max_prompt_tokens=300, prompt__max_history_tokens=60),
        sized(context__attention_cost=8.0, context__compact_to=0.3, prompt__max_history_tokens=200),
    )
    return Stage(template, Joints(template), sizes, tmp_path_factory.mktemp("histories"))


def test_prompts_hold_what_their_conversations_do(stage: Stage) -> None:
    totals: Counter[str] = Counter()
    run_state_machine_as_test(
        cast(Any, lambda: Histories(stage, totals)),
        settings=settings(
            max_examples=pick(200, 10_000),
            stateful_step_count=pick(20, 30),
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    if FULL:
        print(f"histories: {dict(totals)}")
    assert all(totals[name] for name in ("grown", "guessed", "full", "too long")), totals
