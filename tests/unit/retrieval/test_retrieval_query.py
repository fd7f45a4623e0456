import numpy as np
import pytest

from retrieval.search.query import REPLY_CHARACTERS, leans_on_history, plan, query_vector
from retrieval.types import Query

QUERY = Query("How much does it cost?", ("Hello", "What is a passport?", "Who gets one?"), "Any citizen.")


def test_joined_forms_put_the_newest_message_first():
    assert plan(QUERY, "last").dense == (("How much does it cost?", 1.0),)
    assert plan(QUERY, "last_two").dense == (("How much does it cost?\nWho gets one?", 1.0),)
    three = "How much does it cost?\nWho gets one?\nWhat is a passport?"
    assert plan(QUERY, "last_three").lexical == ((three, 1.0),)


def test_weighted_messages_count_less_the_older_they_are_and_the_reply_only_for_its_words():
    planned = plan(QUERY)
    assert [text for text, _ in planned.dense] == [
        "How much does it cost?",
        "Who gets one?",
        "What is a passport?",
    ]
    weights = [weight for _, weight in planned.lexical]
    assert weights == sorted(weights, reverse=True)
    assert planned.lexical == (*planned.dense, ("Any citizen.", weights[-1]))


def test_only_the_newest_message_is_a_text_that_no_earlier_turn_embedded():
    before = plan(Query(QUERY.previous[-1], QUERY.previous[:-1]))
    embedded = {text for text, _ in before.dense} | set(QUERY.previous)
    assert {text for text, _ in plan(QUERY).dense} - embedded == {QUERY.question}


@pytest.mark.parametrize("form", ["last", "last_two", "last_three", "rules", "weighted"])
def test_a_first_message_is_looked_up_as_it_is(form):
    planned = plan(Query("What is a passport?"), form)
    assert planned.dense == planned.lexical == (("What is a passport?", 1.0),)


@pytest.mark.parametrize("form", ["last", "last_two", "last_three", "rules", "weighted"])
def test_empty_messages_and_replies_change_nothing(form):
    assert plan(Query("What is a passport?", ("", " \n"), " "), form) == plan(
        Query("What is a passport?"), form
    )
    assert len(plan(Query("", ("", "")), form).dense) == 1


def test_of_a_long_reply_the_beginning_counts():
    words, _ = plan(Query("Why?", (), "word " * 10_000)).lexical[-1]
    assert len(words) == REPLY_CHARACTERS


@pytest.mark.parametrize(
    ("question", "leans"),
    [
        ("How much does it cost?", True),
        ("And in the winter months of a leap year, how are days counted?", True),
        ("Why?", True),
        ("Where do I apply for a passport when living abroad?", False),
    ],
)
def test_rules_tell_a_follow_up_by_its_look(question, leans):
    assert leans_on_history(question) is leans
    text = plan(Query(question, ("What is a visa?",)), "rules").dense[0][0]
    assert ("visa" in text) is leans


def test_a_query_vector_is_normalised_and_nearest_to_the_heaviest():
    vectors = np.eye(3, 8, dtype=np.float32)
    vector = query_vector(vectors, (1.0, 0.5, 0.25))
    assert vector.shape == (1, 8)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1.0)
    np.testing.assert_allclose(vector[0, :3] / vector[0, 0], (1.0, 0.5, 0.25), atol=1e-6)


def test_vectors_that_cancel_each_other_out_leave_the_newest():
    newest = np.array([[1.0, 0.0]], dtype=np.float32)
    np.testing.assert_array_equal(query_vector(np.vstack([newest, -newest]), (1.0, 1.0)), newest)
