from __future__ import annotations

from collections.abc import Sequence

import pytest

from retrieval.types import Passage
from server.context.entry import Entry, Injected, pack, unpack
from server.context.prompt import Citation
from server.context.question import Question, Questions, keep_prefilled
from server.context.template import ChatTemplate
from server.sections.prompt import PromptSettings

LAYOUT = PromptSettings(question_header="Q: ", question_footer=" !")


def passage(key: int, text: str = "some text") -> Passage:
    return Passage(f"c{key}", "d", "f.md", "T", ("Head",), text, 5, 0.5, key)


def injected(number: int, key: int, tokens: int = 10) -> Injected:
    return Injected(number, key, f"c{key}", pack([7] * tokens))


def numbered(question: Question) -> list[tuple[int, int]]:
    return [(there.number, there.key) for there in question.entry.passages]


@pytest.fixture
def questions(template: ChatTemplate) -> Questions:
    return Questions(template, LAYOUT)


def make(
    questions: Questions,
    wanted: Sequence[Passage],
    history: Sequence[Entry] = (),
    prefilled: Sequence[tuple[Injected, Passage | None]] = (),
    arranged: Sequence[Passage] = (),
) -> Question:
    return questions.make("Why?", wanted, history, prefilled, 0.5, arranged or wanted)


def test_new_passages_are_numbered_in_the_order_in_which_they_stand_and_cited_best_first(
    questions: Questions, template: ChatTemplate
) -> None:
    one, two, three = passage(11, "one"), passage(12, "two"), passage(13, "three")
    question = make(questions, [one, two, three], arranged=[three, one, two])
    assert numbered(question) == [(1, 13), (2, 11), (3, 12)]
    assert question.citations == (Citation(2, one), Citation(3, two), Citation(1, three))
    assert [there.chunk_id for there in question.entry.retrieved] == ["c11", "c12", "c13"]
    lines = [template.decode(unpack(there.tokens)) for there in question.entry.passages]
    assert lines == ["[1] Head: three\n", "[2] Head: one\n", "[3] Head: two\n"]
    assert template.decode(unpack(question.entry.content)) == "\nQ: Why? !"
    assert question.entry.numbered_to == 3


def test_passages_that_stand_already_are_pointed_to_and_numbers_go_on(questions: Questions) -> None:
    history = [Entry(b"", (injected(1, 11), injected(2, 12)), (), 2), Entry(b"", (), (), 0)]
    question = make(questions, [passage(13), passage(11)], history)
    assert numbered(question) == [(3, 13)]
    assert question.entry.pointed == (1,)
    assert [citation.number for citation in question.citations] == [3, 1]


def test_numbers_of_passages_that_are_gone_are_not_given_again(questions: Questions) -> None:
    history = [Entry(b"", (), (), 7, dropped=True), Entry(b"", (injected(2, 12),), (), 5)]
    assert numbered(make(questions, [passage(13)], history)) == [(8, 13)]


def test_without_passages_the_question_is_its_own_words(questions: Questions, template: ChatTemplate) -> None:
    question = make(questions, [])
    assert template.decode(unpack(question.entry.content)) == "Why?"
    assert question.citations == ()


def test_a_changed_chunk_is_another_passage(questions: Questions) -> None:
    history = [Entry(b"", (injected(1, 11),), (), 1)]
    changed = Passage("c11", "d", "f.md", "T", (), "new text", 5, 0.5, 12)
    assert numbered(make(questions, [changed], history)) == [(2, 12)]


def test_what_is_prefilled_comes_first_in_its_own_order(questions: Questions) -> None:
    one, two = passage(11), passage(12)
    ready = [(injected(1, 12), two)]
    question = make(questions, [one, two], prefilled=ready)
    assert numbered(question) == [(1, 12), (2, 11)]
    assert question.entry.passages[0] == ready[0][0]


def test_what_was_prefilled_in_vain_is_cited_last(questions: Questions) -> None:
    one, guessed = passage(11), passage(12)
    question = make(questions, [one], prefilled=[(injected(1, 12), guessed), (injected(2, 11), one)])
    assert numbered(question) == [(1, 12), (2, 11)]
    assert question.citations == (Citation(2, one), Citation(1, guessed))


@pytest.mark.parametrize(
    ("prefilled", "wanted", "n_kept"),
    [
        ([(1, 11, 10), (2, 12, 10)], [11, 12], 2),
        # In vain at the end: it need not stay.
        ([(1, 11, 10), (2, 12, 10)], [11], 1),
        # A wanted one behind it makes up for one in vain of its size: half its price is saved.
        ([(1, 11, 10), (2, 12, 10)], [12], 2),
        # Not for one of twice its size, and not for two.
        ([(1, 11, 20), (2, 12, 10)], [12], 0),
        ([(1, 11, 10), (2, 12, 10), (3, 13, 10)], [13], 0),
        ([(1, 11, 10), (2, 12, 30), (3, 13, 10)], [11, 13], 1),
        ([(1, 11, 10), (2, 12, 30), (3, 13, 16)], [11, 13], 3),
        # Numbers that do not follow the last one are another conversation's, or an older prompt's.
        ([(2, 11, 10)], [11], 0),
        ([(1, 11, 10), (3, 12, 10)], [11, 12], 1),
        ([(1, 11, 10)], [], 0),
    ],
)
def test_what_is_kept_of_what_was_prefilled(
    prefilled: list[tuple[int, int, int]], wanted: list[int], n_kept: int
) -> None:
    ready = [(injected(number, key, tokens), passage(key)) for number, key, tokens in prefilled]
    kept = keep_prefilled(ready, [passage(key) for key in wanted], last_number=0, in_vain_cost=0.5)
    assert kept == ready[:n_kept]


def test_a_passage_whose_text_is_not_at_hand_is_kept_only_if_it_is_wanted() -> None:
    one, two = passage(11), passage(12)
    ready = [(injected(5, 11), None), (injected(6, 12), two)]
    assert keep_prefilled(ready, [two], 4) == []
    assert keep_prefilled(ready, [one, two], 4) == [(ready[0][0], one), (ready[1][0], two)]


@pytest.mark.parametrize("grounded", [True, False])
def test_settled_words_stay_as_they_are_when_the_question_is_typed_on(
    questions: Questions, template: ChatTemplate, grounded: bool
) -> None:
    found = [passage(11)] if grounded else []
    whole = unpack(questions.make("How long may I wait?", found, (), (), 0.5, found).entry.content)
    for typed in ("How", "How lo", "How long may", "How long may I wa"):
        entry = questions.make(typed, found, (), (), 0.5, found).entry
        n_tokens = questions.settled_tokens(entry, typed)
        assert unpack(entry.content)[:n_tokens] == whole[:n_tokens]
    assert n_tokens > 3
