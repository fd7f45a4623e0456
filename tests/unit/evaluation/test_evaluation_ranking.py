"""The figures of rankings, against values worked out by hand and against another way to count them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.evaluation.ranking import auc, mean, ndcg_at, recall_at, reciprocal_rank


@pytest.mark.parametrize(
    ("found", "relevant", "recall", "ndcg", "rank"),
    [
        ("abcde", "a", 1.0, 1.0, 1.0),
        ("abcde", "c", 1.0, 1 / 2, 1 / 3),
        ("abcde", "x", 0.0, 0.0, 0.0),
        ("", "a", 0.0, 0.0, 0.0),
        ("abcde", "ax", 1 / 2, 1 / (1 + 1 / math.log2(3)), 1.0),
        ("xab", "ab", 1.0, (1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3)), 1 / 2),
        ("abc", "abcdefgh", 3 / 8, None, 1.0),
        ("xyzvwa", "a", 0.0, 0.0, 1 / 6),
    ],
)
def test_rankings_by_hand(found: str, relevant: str, recall: float, ndcg: float | None, rank: float) -> None:
    assert recall_at(5, found, relevant) == pytest.approx(recall)
    assert reciprocal_rank(found, relevant) == pytest.approx(rank)
    if ndcg is not None:
        assert ndcg_at(5, found, relevant) == pytest.approx(ndcg)


def test_the_best_of_a_long_list_of_relevant_ones_is_what_fits() -> None:
    assert ndcg_at(3, "abc", "abcdefgh") == pytest.approx(1.0)


scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=8)


@given(scores, scores)
def test_auc_counts_pairs(positive: list[float], negative: list[float]) -> None:
    won = sum((one > other) + 0.5 * (one == other) for one in positive for other in negative)
    assert auc(positive, negative) == pytest.approx(won / (len(positive) * len(negative)))


def test_there_is_no_auc_of_one_kind() -> None:
    assert auc([], [0.5]) is None
    assert auc([0.5], []) is None


def test_a_mean_of_many_has_an_interval_around_it() -> None:
    assert mean([0.0, 1.0]).ci is None
    found = mean([0.0] * 50 + [1.0] * 50)
    assert found.value == 0.5
    assert found.ci is not None
    assert found.ci.low < 0.5 < found.ci.high
