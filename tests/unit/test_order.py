"""The order of a first turn's passages: what other conversations put first comes first, within the margin."""

from __future__ import annotations

import pytest

from server.context.order import SharedOrder

ROOT = b"tenant"
CLOSE = [0.50, 0.49, 0.48, 0.47]
WINDOW = 8


@pytest.fixture
def order() -> SharedOrder:
    return SharedOrder(window=WINDOW, margin=0.15)


def arranged(order: SharedOrder, keys: list[int], scores: list[float], root: bytes = ROOT) -> list[int]:
    """The keys as they are to stand."""
    return [keys[position] for position in order.arrange(root, keys, scores)]


def test_the_first_conversation_has_its_passages_by_relevance(order: SharedOrder) -> None:
    assert order.arrange(ROOT, [7, 5, 9], [0.5, 0.5, 0.5]) == [0, 1, 2]


@pytest.mark.parametrize("keys", [[], [7]])
def test_nothing_to_order(order: SharedOrder, keys: list[int]) -> None:
    order.served(ROOT, keys)
    assert order.arrange(ROOT, keys, CLOSE[: len(keys)]) == list(range(len(keys)))


def test_a_served_beginning_is_followed(order: SharedOrder) -> None:
    order.served(ROOT, [3, 1, 8])
    assert arranged(order, [1, 2, 3, 4], CLOSE) == [3, 1, 2, 4]


def test_a_question_asked_again_has_its_order_again(order: SharedOrder) -> None:
    order.served(ROOT, [1, 2, 3, 4])
    order.served(ROOT, [2, 9, 8, 7])
    assert arranged(order, [1, 2, 3, 4], CLOSE) == [1, 2, 3, 4]


def test_the_longer_of_two_paths_is_followed(order: SharedOrder) -> None:
    order.served(ROOT, [2, 3, 1])
    for _ in range(3):
        order.served(ROOT, [1, 9])
    assert arranged(order, [1, 2, 3], CLOSE[:3]) == [2, 3, 1]


def test_of_two_paths_as_long_the_later_served_is_followed(order: SharedOrder) -> None:
    """The cache forgets what was not used for the longest time."""
    order.served(ROOT, [1, 2])
    order.served(ROOT, [3, 4])
    assert arranged(order, [1, 2, 3, 4], CLOSE) == [3, 4, 1, 2]


def test_a_fresh_path_is_found_behind_stale_and_frequent_ones(order: SharedOrder) -> None:
    for keys in ([2], [2], *[[1, 2, 3, 4]] * 3, [4, 3, 2, 1]):
        order.served(ROOT, keys)
    assert arranged(order, [1, 2, 3, 4], CLOSE) == [4, 3, 2, 1]


def test_behind_the_path_come_those_served_most_often(order: SharedOrder) -> None:
    for keys in ([8, 4], [9, 4], [8, 3], [1]):
        order.served(ROOT, keys)
    assert arranged(order, [1, 2, 3, 4], CLOSE) == [1, 4, 3, 2]


def test_no_passage_is_put_ahead_of_a_far_better_one(order: SharedOrder) -> None:
    order.served(ROOT, [3, 2, 1])
    order.served(ROOT, [3])
    assert arranged(order, [1, 2, 3], [0.9, 0.5, 0.45]) == [1, 3, 2]


def test_a_path_is_followed_once_the_far_better_passage_stands(order: SharedOrder) -> None:
    order.served(ROOT, [1, 3, 2])
    assert arranged(order, [1, 2, 3], [0.9, 0.5, 0.45]) == [1, 3, 2]


def test_scores_that_differ_by_the_margin_itself_may_change_places() -> None:
    order = SharedOrder(window=WINDOW, margin=0.25)
    order.served(ROOT, [2])
    assert arranged(order, [1, 2], [0.75, 0.5]) == [2, 1]


def test_relevance_stays_where_the_scores_do_not_fall_along_it(order: SharedOrder) -> None:
    """After reranking: the first is the best, whatever the scores."""
    order.served(ROOT, [2, 3, 1])
    assert arranged(order, [1, 2, 3], [0.2, 0.8, 0.7]) == [1, 2, 3]


def test_roots_share_nothing(order: SharedOrder) -> None:
    order.served(b"other", [2, 1])
    assert arranged(order, [1, 2], CLOSE[:2]) == [1, 2]


def test_what_left_the_window_is_followed_no_more(order: SharedOrder) -> None:
    order.served(ROOT, [2, 1])
    for turn in range(WINDOW - 1):
        order.served(ROOT, [100 + turn])
    assert arranged(order, [1, 2], CLOSE[:2]) == [2, 1]
    order.served(ROOT, [100 + WINDOW])
    assert arranged(order, [1, 2], CLOSE[:2]) == [1, 2]


def test_the_root_that_served_nothing_for_the_longest_time_is_forgotten() -> None:
    order = SharedOrder(window=WINDOW, margin=0.15, max_roots=2)
    for root in (b"a", b"b", b"a", b"c"):
        order.served(root, [2, 1])
    assert [arranged(order, [1, 2], CLOSE[:2], root) for root in (b"a", b"b", b"c")] == [
        [2, 1],
        [1, 2],
        [2, 1],
    ]


def test_only_serving_makes_a_root() -> None:
    order = SharedOrder(window=WINDOW, margin=0.15, max_roots=1)
    order.served(ROOT, [2, 1])
    arranged(order, [1, 2], CLOSE[:2], b"asks only")
    order.served(b"serves nothing", [])
    assert arranged(order, [1, 2], CLOSE[:2]) == [2, 1]


def test_passages_are_kept_when_a_key_comes_twice(order: SharedOrder) -> None:
    order.served(ROOT, [1, 1, 2])
    assert sorted(order.arrange(ROOT, [2, 1, 1, 1], CLOSE)) == [0, 1, 2, 3]
