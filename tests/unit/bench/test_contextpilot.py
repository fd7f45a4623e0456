from __future__ import annotations

import contextlib
import importlib.metadata
import io
import runpy
import subprocess
import sys
import types
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from bench.contextpilot.__main__ import ALONE
from bench.contextpilot.account import BLOCK_TOKENS, account
from bench.contextpilot.contestant import Way, ask
from bench.contextpilot.conversation import Conversation, Passage, Turn
from bench.contextpilot.firstword import VARIANTS, Alone, Variant, replay
from bench.contextpilot.layout import LAYOUTS, append_only, requests_of
from bench.contextpilot.report import Row, sheets
from bench.contextpilot.request import Served, Serving, by_rounds, in_tokens
from server.context.template import ChatTemplate

N_PASSAGES = 7


def passage(number: int) -> Passage:
    about = " ".join(f"fact {place} about subject {number}," for place in range(6))
    return Passage(f"p{number}", f"Text of passage {number}: {about} and no more.", score=0.5)


def told(name: int) -> Conversation:
    return Conversation(
        f"c{name}",
        tuple(
            Turn(
                f"And what is told about subject {name}-{turn}?",
                tuple(passage((name + turn * 2 + place) % N_PASSAGES) for place in range(4)),
                f"It is told so in reply {name}-{turn}.",
            )
            for turn in range(3)
        ),
    )


CONVERSATIONS = [told(name) for name in range(4)]
TURNED = [
    Conversation(str(name), (Turn(f"What of {name}?", tuple(map(passage, order)), "So."),))
    for name, order in enumerate([(1, 2, 3, 4), (2, 1, 4, 3), (4, 3, 2, 1)])
]
"""The same passages in other orders."""

N_TURNS = sum(len(conversation.turns) for conversation in CONVERSATIONS)


def served(conversation: int, turn: int, prompt: Sequence[int], reply: Sequence[int] = ()) -> Served:
    return Served(conversation, turn, list(prompt), list(reply))


def test_a_prompt_that_grew_is_cached_up_to_its_last_whole_block_the_reply_included() -> None:
    counted = account([served(0, 0, range(70), range(70, 100)), served(0, 1, range(130))], shared=True)
    assert counted.first.cached == 0
    assert counted.later.cached == 3 * BLOCK_TOKENS  # of 100 tokens that were computed
    assert counted.later.computed == 130 - 3 * BLOCK_TOKENS


def test_what_was_prefilled_ahead_is_found_and_counted_apart() -> None:
    ahead = Served(0, 0, list(range(100)), [], ahead=list(range(70)))
    counted = account([ahead], shared=True).first
    assert (counted.ahead, counted.cached) == (70, 2 * BLOCK_TOKENS)


def test_conversations_share_one_cache_only() -> None:
    both = [served(0, 0, range(70)), served(1, 0, range(70))]
    assert account(both, shared=True).first.cached == 2 * BLOCK_TOKENS
    assert account(both, shared=False).first.cached == 0


def test_every_layout_holds_the_turns_passages_and_question() -> None:
    for layout in LAYOUTS.values():
        for conversation in CONVERSATIONS:
            for turn, asked in enumerate(conversation.turns):
                text = "\n".join(message.content for message in layout(conversation, turn))
                assert asked.question in text
                assert all(passage.text in text for passage in asked.passages)


def test_the_append_only_layout_goes_on_from_the_turn_before() -> None:
    for conversation in CONVERSATIONS:
        for turn in range(2):
            now, then = append_only(conversation, turn), append_only(conversation, turn + 1)
            assert then[: len(now)] == now


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("serving", ALONE)
def test_firstword_sends_every_turn_with_all_its_passages(
    variant: Variant, serving: Alone, template: ChatTemplate
) -> None:
    found = replay(variant, serving, CONVERSATIONS, template, shared=True)
    assert len(found) == N_TURNS
    if serving == "online":
        assert found == by_rounds(found)
    for request in found:
        asked = CONVERSATIONS[request.conversation].turns[request.turn]
        text = template.decode(request.prompt)
        assert asked.question in text
        assert all(text.count(passage.text) == 1 for passage in asked.passages)


def test_firstwords_prompt_goes_on_from_the_turn_before_and_its_reply(template: ChatTemplate) -> None:
    found = replay(VARIANTS["Firstword: append-only"], "one by one", CONVERSATIONS, template, shared=True)
    at = {(request.conversation, request.turn): request for request in found}
    for (conversation, turn), request in at.items():
        if turn:
            before = at[conversation, turn - 1]
            assert request.prompt[: len(before.prompt + before.reply)] == before.prompt + before.reply


def test_firstword_finds_what_the_same_prompts_as_messages_would_find(template: ChatTemplate) -> None:
    """Its token ids are the template's own, but for pointers and numbers."""
    variant = VARIANTS["Firstword: append-only"]
    own = account(replay(variant, "one by one", CONVERSATIONS, template, shared=False), shared=False)
    requests = requests_of(append_only, CONVERSATIONS)
    plain = account(in_tokens(requests, CONVERSATIONS, template), shared=False)
    assert own.first.prompt == pytest.approx(plain.first.prompt, rel=0.02)
    assert own.later.computed == pytest.approx(plain.later.computed, rel=0.2)


def test_the_shared_order_finds_more_of_first_turns_than_relevance(template: ChatTemplate) -> None:
    relevance, shared = (
        account(replay(VARIANTS[name], "online", TURNED, template, shared=True), shared=True).first
        for name in ("Firstword: append-only", "Firstword: append-only, shared order")
    )
    assert shared.prompt == relevance.prompt
    assert shared.cached > relevance.cached


def test_a_tenant_shares_no_order_with_another(template: ChatTemplate) -> None:
    by_relevance, ordered = (
        replay(VARIANTS[name], "online", TURNED, template, shared=False)
        for name in ("Firstword: append-only", "Firstword: append-only, shared order")
    )
    assert ordered == by_relevance


def test_type_ahead_leaves_only_the_questions_last_words(template: ChatTemplate) -> None:
    found = replay(VARIANTS["Firstword: type-ahead"], "one by one", CONVERSATIONS, template, shared=True)
    for request in found:
        assert request.prompt[: len(request.ahead)] == request.ahead
        assert 0 < len(request.prompt) - len(request.ahead) < BLOCK_TOKENS
    counted = account(found, shared=True)
    assert counted.first.ahead > counted.first.computed


def test_what_was_shed_while_typing_stays_away(template: ChatTemplate) -> None:
    """Else nothing of what was prefilled ahead would be found."""
    turns = tuple(
        Turn(f"And what of {turn}?", (Passage(f"p{turn}", f"About {turn}: " + "a fact and " * 400),), "So.")
        for turn in range(8)
    )
    found = replay(
        VARIANTS["Firstword: type-ahead"], "one by one", [Conversation("long", turns)], template, shared=True
    )
    shed = [request for request in found if request.compacted]
    assert shed
    for request in shed:
        assert request.prompt[: len(request.ahead)] == request.ahead


def test_a_question_of_one_word_is_not_prefilled(template: ChatTemplate) -> None:
    short = Conversation("short", (Turn("Why?", (passage(1),), "So."),))
    (request,) = replay(VARIANTS["Firstword: type-ahead"], "one by one", [short], template, shared=True)
    assert request.ahead == []


class FakePilot:
    """Stands for the process in ContextPilot's environment: fails, or leaves turns out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left_out = 0
        self.returncode = 0
        monkeypatch.setattr(subprocess, "run", self)

    def __call__(
        self, command: Sequence[str], *, input: bytes, capture_output: bool, check: bool
    ) -> subprocess.CompletedProcess[bytes]:
        assert command[1] == "-I"
        requests = requests_of(append_only, CONVERSATIONS)[self.left_out :]
        answer = {"version": "1.2", "spent_s": 0.5, "requests": requests}
        return subprocess.CompletedProcess(
            command, self.returncode, msgspec.json.encode(answer), b"it went wrong"
        )


@pytest.fixture
def pilot(monkeypatch: pytest.MonkeyPatch) -> FakePilot:
    return FakePilot(monkeypatch)


def test_contextpilot_must_answer_every_turn(pilot: FakePilot) -> None:
    pilot.left_out = 1
    with pytest.raises(RuntimeError, match="not one request for every turn"):
        ask("reorder", "online", CONVERSATIONS)


def test_contextpilots_failure_is_told_with_its_own_words(pilot: FakePilot) -> None:
    pilot.returncode = 1
    with pytest.raises(RuntimeError, match="reorder, online: it went wrong"):
        ask("reorder", "online", CONVERSATIONS)


class TurnsAround:
    """Has ContextPilot's calls, and turns around what it is given: an order of its own is told from that of arrival."""

    def __init__(self, use_gpu: bool) -> None:
        self.had: dict[str | None, set[int]] = {}

    def optimize(
        self, texts: list[str], question: str, conversation_id: str, system_instruction: str
    ) -> list[dict[str, str]]:
        print("what it reports on stdout is no part of the answer")
        return messages(texts, question, system_instruction)

    def reorder(
        self, contexts: list[list[int]], conversation_id: str | None = None
    ) -> tuple[list[list[int]], list[int]]:
        self.had[conversation_id] = set(contexts[0])
        return [context[::-1] for context in contexts], list(range(len(contexts)))[::-1]

    def deduplicate(self, contexts: list[list[int]], conversation_id: str) -> list[dict[str, list[Any]]]:
        had = self.had[conversation_id]
        new = [id_ for id_ in contexts[0] if id_ not in had]
        again = [id_ for id_ in contexts[0] if id_ in had]
        had.update(new)
        hints = [f"See {id_}." for id_ in again]
        return [{"new_docs": new, "overlapping_docs": again, "reference_hints": hints}]


def optimize_batch(
    contexts: list[list[str]], questions: list[str], system_instruction: str
) -> tuple[list[list[dict[str, str]]], list[int]]:
    order = list(range(len(contexts)))[::-1]
    return [messages(contexts[at], questions[at], system_instruction) for at in order], order


def messages(texts: list[str], question: str, system: str) -> list[dict[str, str]]:
    content = system + "".join(texts[::-1])
    return [{"role": "system", "content": content}, {"role": "user", "content": question}]


@pytest.fixture
def pilot_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pilot.py` runs in this process, with the class above for the package."""
    package = types.ModuleType("contextpilot")
    vars(package).update(ContextPilot=TurnsAround, optimize_batch=optimize_batch)
    monkeypatch.setitem(sys.modules, "contextpilot", package)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"{name} 9.9")

    def run(
        command: Sequence[str], *, input: bytes, capture_output: bool, check: bool
    ) -> subprocess.CompletedProcess[bytes]:
        out = io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.StringIO(input.decode()))
        with contextlib.redirect_stdout(out):
            runpy.run_path(command[-1], run_name="__main__")
        return subprocess.CompletedProcess(command, 0, out.getvalue().encode(), b"")

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.usefixtures("pilot_here")
@pytest.mark.parametrize("way", ["reorder", "deduplicate"])
@pytest.mark.parametrize("serving", ["one by one", "online", "batch"])
def test_the_pilot_sends_every_turn_with_all_its_passages(way: Way, serving: Serving) -> None:
    answer = ask(way, serving, CONVERSATIONS)
    assert answer.version == "contextpilot 9.9"
    sent = {(request.conversation, request.turn): request for request in answer.requests}
    for (conversation, turn), request in sent.items():
        asked = CONVERSATIONS[conversation].turns[turn]
        text = "\n".join(message.content for message in request.messages)
        assert asked.question in request.messages[-1].content
        assert all(text.count(passage.text) == 1 for passage in asked.passages)
        assert sum(message.role == "assistant" for message in request.messages) == turn
        if way == "deduplicate" and turn:
            before = sent[conversation, turn - 1].messages
            assert request.messages[: len(before)] == before
    assert [turn for _, turn in sent] == turns_in(serving)
    first_served = answer.requests[0].conversation
    assert first_served == (len(CONVERSATIONS) - 1 if serving == "batch" else 0)


def turns_in(serving: Serving) -> list[int]:
    one_by_one = [turn for conversation in CONVERSATIONS for turn in range(len(conversation.turns))]
    return one_by_one if serving == "one by one" else sorted(one_by_one)


def test_the_tables_hold_a_line_for_every_row() -> None:
    counted = account([served(0, 0, range(70)), served(0, 1, range(130))], shared=True)
    tables = sheets([Row("one", "online", counted, counted), Row("other", "batch", counted, counted)])
    for sheet in tables:
        assert [line[:2] for line in sheet.lines] == [("one", "online"), ("other", "batch")]
        widths = {line.count("|") for line in sheet.markdown().splitlines() if line.startswith("|")}
        assert len(widths) == 1
