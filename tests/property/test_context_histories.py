"""Any history of conversations, clients, documents and restarts gives prompts that hold what they should.

After each prompt that is assembled, for a turn or while its question is typed, `context_model.py` says what may stand
in it and `context_reference.py` writes that down. `FAULT_SIZE=full` runs 10,000 histories.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from fault.size import FULL, TIMEOUT_S, pick
from property.context_model import Judge, Model
from property.context_reference import (
    Held,
    Shelf,
    Writer,
)
from property.context_talks import (
    CLIENTS,
    END,
    MEANWHILE,
    NAMES,
    QUESTIONS,
    TOOL,
    WORDS,
    Ask,
    Engine,
    Says,
    Searches,
    Talk,
    asks,
    which,
)
from server.ahead import prewarm
from server.context.conversation import read_conversation
from server.context.guess import Guesses
from server.context.joints import Joints
from server.context.ledger import Ledger
from server.context.memory_store import MemoryStore
from server.context.template import ChatTemplate, Message, ToolCall
from server.engine.protocol import Delta, FinishReason, Sampling, ToolCallPiece
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
                template=self.stage.template,
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
            case "forget":
                for key in [key for held in self.model.said for _, key in held.passages][:1]:
                    self.shelf.delete(self.shelf.texts[key][0])
                self.evict(0.0)
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
        if guess is not None:
            parts.guesses.look(guess)
        wanted = await look_over(request, recalled, passages, guess, parts, searched=request.retrieve)
        if guess is not None:
            parts.guesses.stop(guess)
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
        overrides |= {
            "prompt.system": "Answer.",
            "engine.kind": "simulated",
            # The model of these tests knows nothing of the note; tests/e2e/test_grounding.py does.
            "retrieval.nothing_found": "ignore",
        }
        return load_settings(PROJECT_ROOT / "configs" / "default.toml", overrides)

    sizes = (
        sized(),
        sized(context__max_prompt_tokens=300, prompt__max_history_tokens=60),
        sized(context__attention_cost=8.0, context__compact_to=0.3, prompt__max_history_tokens=200),
    )
    return Stage(template, Joints(template), sizes, tmp_path_factory.mktemp("histories"))


def test_prompts_hold_what_their_conversations_do(stage: Stage) -> None:
    totals: Counter[str] = Counter()
    for _ in range(pick(1, 10)):  # Hypothesis keeps some 150 KiB of each history until it is through.
        run_state_machine_as_test(
            cast(Any, lambda: Histories(stage, totals)),
            settings=settings(
                max_examples=pick(80, 1_000),
                stateful_step_count=12,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    if FULL:
        print(f"histories: {dict(totals)}")
    assert all(totals[name] for name in ("grown", "guessed", "full")), totals
