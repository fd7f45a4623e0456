from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateways import MakeSettings
from retrieval.types import Passage
from server.context.assemble import Assembler
from server.context.conversation import Conversation
from server.context.entry import Entry, Injected, pack, unpack
from server.context.growth import without
from server.context.guess import Guess
from server.context.joints import Joints
from server.context.ledger import Recalled
from server.context.prompt import Prompt
from server.context.template import ChatTemplate, Message, ToolCall
from server.context.wanted import Wanted
from server.errors import ContextTooLong

COLD: Callable[[Sequence[int]], int] = len
CALL = Message("assistant", "", (ToolCall("call00001", "find", "{}"),))
ANSWER = Message("tool", "42", tool_call_id="call00001")


def warm(token_ids: Sequence[int]) -> int:
    return 0


def passage(key: int, words: str = "some words " * 5) -> Passage:
    return Passage(f"c{key}", "d", "f.md", "T", (f"Head {key}",), words, 5, 0.5, key)


def wanted(*keys: int, **other: Any) -> Wanted:
    given = {"max_tokens": 50, "max_model_len": 4_000} | other
    return Wanted([passage(key) for key in keys], **given)


def injected(number: int, key: int) -> Injected:
    return Injected(number, key, f"c{key}", pack([7] * 10))


@pytest.fixture
def make(template: ChatTemplate, make_settings: MakeSettings) -> Callable[..., Assembler]:
    joints = Joints(template)

    def make(**dotted: Any) -> Assembler:
        return Assembler(template, joints, make_settings(prompt__system="Answer.", **dotted))

    return make


@pytest.fixture
def assembler(make: Callable[..., Assembler]) -> Assembler:
    return make()


class Talk:
    """A conversation whose ledger holds all that was assembled."""

    def __init__(self, assembler: Assembler) -> None:
        self.assembler = assembler
        self.messages: list[Message] = []
        self.entries: list[Entry] = []

    def recalled(self, question: str, *tail: Message, n_known: int | None = None) -> Recalled:
        conversation = Conversation(None, tuple(self.messages), question, tail)
        known = tuple(self.entries[:n_known])
        return Recalled(conversation, b"", tuple(b"" for _ in conversation.messages), known)

    def ask(self, question: str, wanted: Wanted, expected: Callable[[Sequence[int]], int] = warm) -> Prompt:
        prompt = self.assembler.assemble(self.recalled(question), wanted, expected)
        self.messages += [Message("user", question), Message("assistant", "reply")]
        self.entries = [*prompt.entries, Entry(pack([28, 33]))]
        return prompt


def text(template: ChatTemplate, prompt: Prompt) -> str:
    return template.decode(prompt.token_ids)


def numbers(prompt: Prompt) -> list[int]:
    return [there.number for entry in prompt.entries for there in entry.passages]


def test_a_prompt_begins_with_the_turn_before(assembler: Assembler) -> None:
    talk = Talk(assembler)
    first = talk.ask("one?", wanted(1, 2))
    second = talk.ask("two?", wanted(2, 3))
    begun = [*first.token_ids, 28, 33]
    assert second.token_ids[: len(begun)] == begun
    assert numbers(second) == [1, 2, 3]
    assert second.entries[2].pointed == (2,)
    assert second.compaction is None


def test_a_question_asked_again_finds_its_passages_where_they_were(assembler: Assembler) -> None:
    talk = Talk(assembler)
    first = talk.ask("one?", wanted(1, 2))
    talk.messages.clear()
    again = assembler.assemble(talk.recalled("one?", n_known=1), wanted(2, 1), COLD)
    assert again.token_ids == first.token_ids


def test_a_deleted_passage_leaves_at_once(assembler: Assembler, template: ChatTemplate) -> None:
    talk = Talk(assembler)
    talk.ask("one?", wanted(1, 2))
    prompt = talk.ask("two?", wanted(3, gone={1}))
    assert "Head 1" not in text(template, prompt)
    assert numbers(prompt) == [2, 3]


def test_a_question_with_tools_answers_is_left_as_it_was_asked(assembler: Assembler) -> None:
    talk = Talk(assembler)
    first = talk.ask("one?", wanted(1, 2))
    talk.messages.clear()
    later = assembler.assemble(talk.recalled("one?", CALL, ANSWER), wanted(5), COLD)
    begun = [*first.token_ids, 28, 33]
    assert later.token_ids[: len(begun)] == begun
    assert numbers(later) == [1, 2]


def test_a_tools_long_answer_makes_room_by_the_questions_own_passages(
    assembler: Assembler, template: ChatTemplate
) -> None:
    talk = Talk(assembler)
    first = talk.ask("one?", wanted(1, 2, 3))
    talk.messages.clear()
    room = len(first.token_ids) + 30
    long = Message("tool", "word " * 40, tool_call_id="call00001")
    prompt = assembler.assemble(
        talk.recalled("one?", CALL, long), wanted(1, max_tokens=1, max_model_len=room), COLD
    )
    assert len(prompt.token_ids) < room
    assert prompt.compaction == "full"
    assert numbers(prompt) == []
    assert "one?" in text(template, prompt)


def test_a_full_prompt_sheds_passages_then_turns_then_the_worst_passages(
    make: Callable[..., Assembler], template: ChatTemplate
) -> None:
    talk = Talk(make(context__compact_to=0.8, context__attention_cost=0.0))
    sizes = [len(talk.ask(f"question {n}?", wanted(n)).token_ids) for n in range(1, 7)]
    first = talk.ask("and now?", wanted(7, max_tokens=1, max_model_len=sizes[-1] + 2))
    assert first.compaction == "full"
    assert not any(entry.dropped for entry in first.entries)
    assert numbers(first)[-3:] == [5, 6, 7]
    second = talk.ask("and now?", wanted(8, max_tokens=1, max_model_len=sizes[1] + 2))
    gone = [entry.dropped for entry in second.entries]
    assert gone == sorted(gone, reverse=True)
    assert any(gone)
    assert numbers(second)[-1] == 8
    third = talk.ask("and now?", wanted(11, 12, 13, max_tokens=1, max_model_len=sizes[0] + 2))
    assert [there.key for there in third.entries[-1].passages] == [11]
    assert all(entry.dropped for entry in third.entries[:-1])
    assert len(third.token_ids) + third.max_tokens <= sizes[0] + 2
    with pytest.raises(ContextTooLong):
        talk.ask("and now? " * 20, wanted(11, max_tokens=1, max_model_len=sizes[0]))


def test_max_prompt_tokens_bounds_a_prompt_in_a_large_context(make: Callable[..., Assembler]) -> None:
    talk = Talk(make(context__max_prompt_tokens=200))
    prompts = [talk.ask(f"question {n}?", wanted(n, n + 1)) for n in range(1, 20, 2)]
    assert max(len(prompt.token_ids) for prompt in prompts) <= 200
    assert "full" in {prompt.compaction for prompt in prompts}


def test_a_cold_prompt_sheds_what_is_out_of_use_and_a_hot_one_does_not(
    make: Callable[..., Assembler],
) -> None:
    talk = Talk(make(context__attention_cost=0.0))
    for n in range(1, 7):
        assert talk.ask(f"question {n}?", wanted(n)).compaction is None
    recalled = talk.recalled("and now?")
    assert talk.assembler.assemble(recalled, wanted(7), warm).compaction is None
    cold = talk.assembler.assemble(recalled, wanted(7), COLD)
    assert cold.compaction == "cold"
    assert numbers(cold) == [5, 6, 7]


def test_the_history_ahead_of_a_search_begins_the_prompt_and_is_told_only_if_nothing_may_be_shed(
    assembler: Assembler,
) -> None:
    talk = Talk(assembler)
    assert assembler.history(talk.recalled("one?"), wanted()) == []
    for n in range(1, 3):
        talk.ask(f"question {n}?", wanted(n))
    ahead = assembler.history(talk.recalled("and?"), wanted())
    prompt = talk.ask("and?", wanted(9))
    assert ahead
    assert prompt.token_ids[: len(ahead)] == ahead
    assert len(ahead) == prompt.history_tokens
    assert assembler.history(talk.recalled("and?"), wanted()) == []


def test_what_was_prefilled_is_what_the_prompt_begins_with(assembler: Assembler) -> None:
    recalled = Talk(assembler).recalled("How long")
    typed = assembler.assemble(recalled, wanted(1, 2, typing=True), COLD)
    guess = Guess("t", b"", "How long", True)
    guess.settle(typed, len(typed.token_ids))
    asked = Talk(assembler).recalled("How long may I wait?")
    prompt = assembler.assemble(asked, wanted(2, 1, 3, guess=guess), warm)
    ahead = typed.token_ids[: typed.passages_end]
    assert prompt.token_ids[: len(ahead)] == ahead
    assert numbers(prompt) == [1, 2, 3]
    assert [citation.number for citation in prompt.citations] == [2, 1, 3]


def test_a_prefilled_passage_that_was_deleted_ends_what_is_kept(assembler: Assembler) -> None:
    recalled = Talk(assembler).recalled("How long?")
    typed = assembler.assemble(recalled, wanted(1, 2, 3, typing=True), COLD)
    guess = Guess("t", b"", "How long?", True)
    guess.settle(typed, len(typed.token_ids))
    prompt = assembler.assemble(recalled, wanted(3, guess=guess, gone={2}), warm)
    assert [there.key for there in prompt.entries[0].passages] == [3]


def test_an_earlier_question_asked_again_does_not_give_two_passages_one_number() -> None:
    """Where its new entry holds more passages than it did when what follows was asked."""
    again = Entry(b"", (injected(1, 11), injected(2, 12), injected(3, 13)), (), 3)
    followed = Entry(b"", (injected(2, 21), injected(3, 22), injected(4, 23)), (), 4)
    left = without([again, Entry(b""), followed], frozenset())
    assert [there.key for entry in left for there in entry.passages] == [11, 12, 13, 23]
    assert [there.key for there in without([followed], {22}, 2)[0].passages] == [23]


def test_a_greeting_that_is_shed_leaves_the_question_the_users(
    make: Callable[..., Assembler], template: ChatTemplate
) -> None:
    talk = Talk(make(context__max_prompt_tokens=120))
    talk.messages.append(Message("assistant", "How can I help?"))
    prompts = [talk.ask(f"question {n}? " + "word " * 20, wanted()) for n in range(6)]
    assert prompts[-1].entries[0].dropped
    shown = template.tokenizer.decode(prompts[-1].token_ids, skip_special_tokens=False)
    assert shown.startswith("<|im_start|>system\nAnswer.<|im_end|>\n<|im_start|>user\nquestion")


def test_what_is_left_of_a_shed_turn_is_not_the_beginning(
    assembler: Assembler, template: ChatTemplate
) -> None:
    """Its end was forgotten by the ledger, so that the client's own words would stand for it."""
    talk = Talk(assembler)
    talk.messages = [Message("user", "first"), Message("assistant", "reply one"), Message("user", "second")]
    talk.entries = [Entry(b"", dropped=True)]
    talk.messages.append(Message("assistant", "reply two"))
    prompt = assembler.assemble(talk.recalled("and?"), wanted(), COLD)
    assert [entry.dropped for entry in prompt.entries] == [True, True, False, False, False]
    assert "reply one" not in text(template, prompt)


def test_the_last_question_alone_is_what_too_long_is_told_of(assembler: Assembler) -> None:
    with pytest.raises(ContextTooLong):
        assembler.assemble(Talk(assembler).recalled("word " * 1_000), wanted(max_model_len=400), COLD)


def test_roles_without_joints_are_rendered_by_the_template(assembler: Assembler) -> None:
    talk = Talk(assembler)
    talk.messages = [Message("user", "q"), ANSWER, Message("assistant", "a")]
    prompt = assembler.assemble(talk.recalled("and?"), wanted(1), COLD)
    assert prompt.token_ids
    assert prompt.entries == ()


def test_the_other_layouts_are_rebuilt(make: Callable[..., Assembler]) -> None:
    for layout in ("system", "user"):
        assembler = make(context__layout=layout)
        assert not assembler.grows
        assert Talk(assembler).assembler.history(Talk(assembler).recalled("q"), wanted()) == []
        assert assembler.assemble(Talk(assembler).recalled("q"), wanted(1), COLD).entries == ()


def test_ten_thousand_messages_are_assembled(assembler: Assembler) -> None:
    talk = Talk(assembler)
    for n in range(5_000):
        talk.messages += [Message("user", f"{n}"), Message("assistant", "so")]
    prompt = assembler.assemble(talk.recalled("and?"), wanted(1), warm)
    assert len(prompt.entries) == 10_001
    assert sum(entry.dropped for entry in prompt.entries) > 9_000
    talk.entries = [Entry(pack([28])) for _ in range(10_000)]
    known = assembler.assemble(talk.recalled("and?"), wanted(1, max_model_len=100_000), warm)
    assert known.compaction is None
    assert not any(entry.dropped for entry in known.entries)
    assert unpack(known.entries[0].content) == [28]


@pytest.mark.xfail(strict=True, reason="what a later turn has dropped is dropped from its branches too")
def test_an_earlier_question_asked_anew_has_back_what_a_later_turn_had_no_room_for(
    make: Callable[..., Assembler], template: ChatTemplate
) -> None:
    talk = Talk(make(context__max_prompt_tokens=120))
    for n in range(6):
        talk.ask(f"question {n}? " + "word " * 20, wanted())
    assert all(entry.dropped for entry in talk.entries[:4])
    talk.messages, talk.entries = talk.messages[:2], talk.entries[:2]
    prompt = talk.ask("edited?", wanted())
    assert "question 0?" in text(template, prompt)


def test_a_question_that_a_later_turn_dropped_stands_when_its_tool_answers(
    assembler: Assembler, template: ChatTemplate
) -> None:
    """The client sends the answer again, or another one, after it went on."""
    talk = Talk(assembler)
    gone = Entry(b"", numbered_to=2, dropped=True)
    talk.entries = [gone, gone]
    prompt = assembler.assemble(talk.recalled("one?", CALL, ANSWER), wanted(1), COLD)
    assert not any(entry.dropped for entry in prompt.entries)
    assert numbers(prompt) == [1]
    assert "one?" in text(template, prompt)
