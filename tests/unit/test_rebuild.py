from __future__ import annotations

import pytest

from retrieval.types import Passage
from server.context.conversation import Conversation
from server.context.prompt import Citation
from server.context.rebuild import Rebuild
from server.context.template import ChatTemplate, Message
from server.errors import ContextTooLong
from server.sections.prompt import PromptSettings

LAYOUT = PromptSettings(
    system="SYSTEM",
    passages_header="PASSAGES",
    question_header="QUESTION ",
    question_footer=" END",
    max_history_tokens=200,
)


def passage(number: int, text: str = "some text") -> Passage:
    return Passage(f"c{number}", "d", "f.md", "T", ("Head", f"Part {number}"), text, 5, 0.5)


def conversation(question: str = "Why?", *history: Message, system: str | None = None) -> Conversation:
    return Conversation(system, history, question)


@pytest.fixture
def rebuild(template: ChatTemplate) -> Rebuild:
    return Rebuild(template, LAYOUT, "user")


def test_passages_stand_before_the_question_in_the_users_turn(
    rebuild: Rebuild, template: ChatTemplate
) -> None:
    prompt = rebuild.assemble(conversation(), [passage(1), passage(2)], 50, 1_000)
    text = template.decode(prompt.token_ids)
    parts = [
        "SYSTEM",
        "user\n",
        "PASSAGES",
        "[1] Head > Part 1: some text",
        "[2]",
        "QUESTION Why? END",
        "assistant\n",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert prompt.citations == (Citation(1, passage(1)), Citation(2, passage(2)))


def test_without_passages_the_users_turn_is_the_question(rebuild: Rebuild, template: ChatTemplate) -> None:
    text = template.decode(rebuild.assemble(conversation(), [], 50, 1_000).token_ids)
    assert "user\nWhy?\n" in text


def test_the_clients_system_message_replaces_ours(rebuild: Rebuild, template: ChatTemplate) -> None:
    text = template.decode(rebuild.assemble(conversation(system="MINE"), [], 50, 1_000).token_ids)
    assert "MINE" in text
    assert "SYSTEM" not in text


def test_older_turns_beyond_their_bound_are_dropped_whole(rebuild: Rebuild, template: ChatTemplate) -> None:
    history = [
        message
        for turn in range(20)
        for message in (Message("user", f"ask{turn} " * 5), Message("assistant", f"reply{turn} " * 5))
    ]
    text = template.decode(rebuild.assemble(conversation("Why?", *history), [], 50, 4_000).token_ids)
    assert "reply19" in text
    assert "ask0 " not in text
    kept = [turn for turn in range(20) if f"ask{turn} " in text]
    assert kept == [turn for turn in range(20) if f"reply{turn} " in text]
    assert kept == list(range(kept[0], 20))


def test_history_goes_before_passages_and_passages_before_an_error(rebuild: Rebuild) -> None:
    history = (Message("user", "word " * 60), Message("assistant", "word " * 60))
    passages = [passage(1, "text " * 40), passage(2, "text " * 40)]
    roomy = rebuild.assemble(conversation("Why?", *history), passages, 20, 400)
    assert len(roomy.citations) == 2
    tight = rebuild.assemble(conversation("Why?", *history), passages, 20, 130)
    assert [kept.passage.chunk_id for kept in tight.citations] == ["c1"]
    assert len(tight.token_ids) + tight.max_tokens <= 130


def test_the_answer_gets_what_the_context_leaves(rebuild: Rebuild) -> None:
    prompt = rebuild.assemble(conversation(), [], 10_000, 300)
    assert prompt.max_tokens == 300 - len(prompt.token_ids)


def test_a_question_beyond_the_context_is_refused_with_the_figures(rebuild: Rebuild) -> None:
    with pytest.raises(ContextTooLong, match=r"\d+ tokens; this model's context of 300") as raised:
        rebuild.assemble(conversation("word " * 500), [passage(1)], 50, 300)
    assert raised.value.param == "messages"


def test_the_usual_layout_has_the_passages_in_the_system_message(template: ChatTemplate) -> None:
    prompt = Rebuild(template, LAYOUT, "system").assemble(conversation(), [passage(1)], 50, 1_000)
    text = template.decode(prompt.token_ids)
    parts = ["SYSTEM", "PASSAGES", "[1] Head > Part 1: some text", "user\n", "Why?"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
