"""Metrics on cases worked out by hand."""

from __future__ import annotations

import pytest

from server.evaluation.quality import citations, cited_numbers, containment, token_f1, tokens


def test_case_punctuation_articles_and_space_do_not_count() -> None:
    assert tokens("The  Cat's a\tcat, an\nANT!") == ["cats", "cat", "ant"]


@pytest.mark.parametrize(
    ("answer", "reference", "f1", "recall"),
    [
        ("In April.", "in april", 1.0, 1.0),
        ("by the fifteenth of April", "April fifteenth", 2 * 2 / (4 + 2), 1.0),
        ("April", "April April", 2 * 1 / (1 + 2), 0.5),  # each word as often as it is there
        ("May", "April", 0.0, 0.0),
        ("", "April", 0.0, 0.0),
        ("April", "the", 0.0, 1.0),
        ("", "", 1.0, 1.0),
    ],
)
def test_token_f1_and_containment(answer: str, reference: str, f1: float, recall: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(f1)
    assert token_f1(reference, answer) == pytest.approx(f1)
    assert containment(answer, reference) == pytest.approx(recall)


def test_numbers_are_found_in_brackets_alone_or_together() -> None:
    assert cited_numbers("As [2] and [1, 13] say, in 1999 [sic] [a] [3") == {1, 2, 13}


def test_sources_are_held_against_the_relevant_passages() -> None:
    numbers = {1: "a", 2: "b", 7: "old"}
    cited = citations("See [2].", ["a", "b"], numbers, frozenset({"b", "c"}))
    assert cited is not None
    assert (cited.source_precision, cited.source_recall, cited.names_relevant) == (0.5, 0.5, True)
    cited = citations("See [1] and [9].", ["a"], numbers, frozenset({"b"}))
    assert cited is not None
    assert (cited.source_precision, cited.source_recall, cited.names_relevant) == (0.0, 0.0, False)


def test_a_passage_of_an_earlier_turn_may_be_named_by_its_number() -> None:
    cited = citations("See [7].", ["a"], {1: "a", 7: "old"}, frozenset({"old"}))
    assert cited is not None
    assert cited.names_relevant
    assert cited.source_recall == 0


def test_without_sources_or_known_relevance_nothing_is_claimed() -> None:
    assert citations("See [1].", ["a"], {1: "a"}, frozenset()) is None
    cited = citations("I do not know.", [], {}, frozenset({"a"}))
    assert cited is not None
    assert cited.source_precision is None
