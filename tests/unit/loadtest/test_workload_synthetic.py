from __future__ import annotations

import itertools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.errors import OptionError
from loadtest.workload.prose import Prose
from loadtest.workload.synthetic import EXAMPLE, synthesise


def n_words(text: str) -> int:
    return len(text.split(" "))


def test_every_length_is_as_asked() -> None:
    conversations = synthesise(
        "conversations=7,turns=3,prompt=30,output=64,shared_prefix=40,think=2", 1
    ).conversations
    assert len(conversations) == 7
    for conversation in conversations:
        assert [n_words(message.content) for message in conversation.preamble] == [40]
        assert [n_words(turn.user) for turn in conversation.turns] == [30, 30, 30]
        assert [turn.max_tokens for turn in conversation.turns] == [64, 64, 64]
        assert [turn.think_s for turn in conversation.turns] == [None, 2.0, 2.0]


def test_without_a_spec_there_are_a_hundred_questions() -> None:
    conversations = synthesise("", 1).conversations
    assert len({one.conversation_id for one in conversations}) == 100
    assert {len(one.turns) for one in conversations} == {1}
    assert {n_words(one.turns[0].user) for one in conversations} == {100}
    assert {(one.preamble, one.turns[0].max_tokens, one.turns[0].think_s) for one in conversations} == {
        ((), None, None)
    }


def test_lengths_follow_their_distributions_and_are_at_least_one() -> None:
    conversations = synthesise(
        "conversations=300,turns=1..5,prompt=lognormal(50,0.5),output=normal(1,3)", 1
    ).conversations
    turns = [turn for one in conversations for turn in one.turns]
    assert {len(one.turns) for one in conversations} == {1, 2, 3, 4, 5}
    assert statistics.median(n_words(turn.user) for turn in turns) == pytest.approx(50, rel=0.15)
    assert min(turn.max_tokens or 0 for turn in turns) == 1


def test_the_conversations_share_so_many_prefixes_in_rotation() -> None:
    conversations = synthesise("conversations=10,shared_prefix=20,prefixes=3", 1).conversations
    prefixes = [one.preamble[0].content for one in conversations]
    assert len(set(prefixes)) == 3
    assert prefixes[:3] == prefixes[3:6]
    assert len({prefix.split()[0] for prefix in prefixes}) == 3


def test_no_two_prompts_share_a_prefix_by_accident() -> None:
    conversations = synthesise("conversations=1000,turns=2,prompt=20", 1).conversations
    openings = [tuple(turn.user.split()[:4]) for one in conversations for turn in one.turns]
    assert len(set(openings)) == 2000
    # Those that are begun one after the other differ from the first word on.
    first_words = [one.turns[0].user.split()[0] for one in conversations]
    assert all(a != b for a, b in itertools.pairwise(first_words))


def test_a_seed_gives_the_same_again_and_another_seed_something_else() -> None:
    assert synthesise(EXAMPLE, 1) == synthesise(EXAMPLE, 1)
    one, other = synthesise(EXAMPLE, 1).conversations[0], synthesise(EXAMPLE, 2).conversations[0]
    assert one.preamble[0].content.split()[:4] != other.preamble[0].content.split()[:4]
    assert one.turns[0].user.split()[:4] != other.turns[0].user.split()[:4]


def test_commas_and_dots_in_brackets_belong_to_the_distribution() -> None:
    (conversation,) = synthesise(
        " conversations = 1 , prompt=normal(50,9)[7..7], output=5..5", 1
    ).conversations
    assert n_words(conversation.turns[0].user) == 7
    assert conversation.turns[0].max_tokens == 5


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("conversations", "'conversations' is not key=value"),
        ("conversations=", "not key=value"),
        ("conversations=5,", "'' is not key=value"),
        ("conversations=0", "conversations is '0'.*from 1 to"),
        ("conversations=2.5", "conversations is '2.5'"),
        ("conversations=9999999999", "conversations is"),
        ("prefixes=-1", "prefixes is '-1'"),
        ("prompts=5", "unknown key 'prompts'. The keys are conversations, turns, prompt"),
        ("prompt=5,prompt=6", "prompt is given twice"),
        ("prompt=gauss(1,2)", r"--synthetic: prompt 'gauss\(1,2\)': 'gauss' is no distribution"),
        ("prompt=normal(1", "prompt 'normal"),
        ("think=-1", "--synthetic: think '-1'"),
        ("prompt=900000000", "too much to hold in memory"),
        ("turns=1..900000000", "too much to hold in memory"),
    ],
)
def test_a_bad_spec_is_an_error_that_names_the_key(spec: str, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        synthesise(spec, 1)


_PROSE = Prose(1)


@given(st.integers(0, 10_000), st.integers(0, 700), st.integers(0, 700))
def test_a_longer_passage_goes_on_where_the_shorter_ended(number: int, n: int, more: int) -> None:
    words, longer = _PROSE.passage(number, n).split(), _PROSE.passage(number, n + more).split()
    assert len(words) == n
    assert longer[:n] == words


def test_a_passage_may_be_longer_than_the_stock_of_words() -> None:
    assert n_words(_PROSE.passage(60_000, 200_000)) == 200_000
