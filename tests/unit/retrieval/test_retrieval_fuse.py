import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.search.fuse import reciprocal_rank_fusion, weighted_sum

rankings = st.lists(st.lists(st.integers(0, 30), unique=True, max_size=12), min_size=1, max_size=4)
scores = st.floats(-1, 3, allow_nan=False)


@given(rankings)
def test_rank_fusion_keeps_every_key_once_and_orders_by_score(lists: list[list[int]]):
    fused = reciprocal_rank_fusion(lists)
    keys = [key for key, _ in fused]
    assert sorted(keys) == sorted({key for ranking in lists for key in ranking})
    assert fused == sorted(fused, key=lambda hit: (-hit[1], hit[0]))
    assert all(0 < score <= 1 + 1e-9 for _, score in fused)


def test_rank_fusion_is_the_papers_sum_scaled_to_one():
    fused = dict(reciprocal_rank_fusion([[1, 2, 3], [3, 1]]))
    for key, ranks in {1: (1, 2), 2: (2,), 3: (3, 1)}.items():
        assert fused[key] == pytest.approx(sum(1 / (60 + rank) for rank in ranks) * 61 / 2)
    assert reciprocal_rank_fusion([[5], [5]]) == [(5, 1.0)]


def test_rank_fusion_weighs_its_lists():
    assert [key for key, _ in reciprocal_rank_fusion([[1, 2], [2, 1]], [1, 0.5])] == [1, 2]
    assert [key for key, _ in reciprocal_rank_fusion([[1, 2], [2, 1]], [0.5, 1])] == [2, 1]
    assert reciprocal_rank_fusion([[1], [2]]) == [(1, 0.5), (2, 0.5)]
    assert reciprocal_rank_fusion([[1], [2]], [0, 0]) == []
    with pytest.raises(ValueError):
        reciprocal_rank_fusion([[1], [2]], [1])


@given(
    st.dictionaries(st.integers(0, 30), scores), st.dictionaries(st.integers(0, 30), scores), st.floats(0, 1)
)
def test_a_weighted_sum_stays_between_0_and_1_and_never_falls_with_a_part(dense, lexical, weight):
    fused = weighted_sum(dense, lexical, weight)
    assert {key for key, _ in fused} == set(dense)
    assert fused == sorted(fused, key=lambda hit: (-hit[1], hit[0]))
    assert all(0 <= score <= 1 + 1e-9 for _, score in fused)
    raised = dict(weighted_sum({key: cosine + 0.1 for key, cosine in dense.items()}, lexical, weight))
    assert all(raised[key] >= score for key, score in fused)


def test_a_weighted_sum_depends_on_nothing_but_its_own_chunk():
    alone = dict(weighted_sum({7: 0.5}, {7: 0.8}))
    among = dict(weighted_sum({7: 0.5, 1: 0.9, 2: 0.1}, {7: 0.8, 1: 1.7}))
    assert alone[7] == among[7] == pytest.approx(0.6 * 0.5 + 0.4 * 0.8)


def test_a_chunk_that_went_between_two_searches_does_not_break_the_order():
    assert weighted_sum({1: math.nan, 2: 0.5}, {1: 0.1}, 0.4) == [
        (2, pytest.approx(0.3)),
        (1, pytest.approx(0.04)),
    ]
