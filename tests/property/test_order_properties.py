"""The shared order stays within the margin, and remembers its window and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.context.order import SharedOrder

ROOTS = [b"a", b"b", b"c"]
roots = st.sampled_from(ROOTS)
orders = st.lists(st.integers(0, 9), max_size=6)
turns = st.lists(st.tuples(roots, orders), max_size=60)
margins = st.sampled_from([0.0, 0.05, 0.15, 2.0])
scores_of_passages = st.lists(st.floats(-1, 1) | st.sampled_from([0.5, 0.55, 0.6]), max_size=8)


def served(
    turns: Sequence[tuple[bytes, list[int]]], window: int, margin: float, max_roots: int = 8
) -> SharedOrder:
    order = SharedOrder(window, margin, max_roots)
    for root, keys in turns:
        order.served(root, keys)
    return order


def remembered(order: SharedOrder) -> dict[bytes, Any]:
    """Of each root: the counts of paths, when each was served last as seen from now, and the counts of passages."""

    def visit(node: Any, path: tuple[int, ...], now: int, found: dict[Any, Any]) -> dict[Any, Any]:
        for key, child in node.children.items():
            found[*path, key] = (child.count, now - child.last)
            visit(child, (*path, key), now, found)
        return found

    return {
        root: (visit(of_root.trie, (), of_root.turn, {}), dict(of_root.frequency), list(of_root.orders))
        for root, of_root in order._roots.items()
    }


def expected(turns: Sequence[tuple[bytes, list[int]]], window: int, max_roots: int) -> dict[bytes, Any]:
    """The same, counted from the last orders of the roots that served last, by definition."""
    serving = [(root, tuple(keys)) for root, keys in turns if keys]
    latest = list(dict.fromkeys(root for root, _ in reversed(serving)))[:max_roots]
    found = {}
    for root in latest:
        # A root that was forgotten begins anew: only what came after its last return counts.
        kept = _since_forgotten(serving, root, max_roots)[-window:]
        paths: dict[Any, Any] = {}
        for age, keys in zip(range(len(kept) - 1, -1, -1), kept, strict=True):
            for n in range(1, len(keys) + 1):
                paths[keys[:n]] = (paths.get(keys[:n], (0,))[0] + 1, age)
        found[root] = (paths, dict(Counter(key for keys in kept for key in keys)), kept)
    return found


def _since_forgotten(
    serving: Sequence[tuple[bytes, tuple[int, ...]]], root: bytes, max_roots: int
) -> list[tuple[int, ...]]:
    kept: list[tuple[int, ...]] = []
    others: set[bytes] = set()
    for of_root, keys in serving:
        if of_root == root:
            kept.append(keys)
            others.clear()
        else:
            others.add(of_root)
            if len(others) >= max_roots:
                kept.clear()
    return kept


@given(turns=turns, window=st.integers(1, 7), max_roots=st.integers(1, 3))
def test_what_is_remembered_is_the_window_exactly(
    turns: list[tuple[bytes, list[int]]], window: int, max_roots: int
) -> None:
    order = served(turns, window, 0.15, max_roots)
    assert remembered(order) == expected(turns, window, max_roots)


@given(data=st.data(), turns=turns, scores=scores_of_passages, margin=margins, by_score=st.booleans())
def test_an_order_is_a_linear_extension_within_the_margin(
    data: st.DataObject,
    turns: list[tuple[bytes, list[int]]],
    scores: list[float],
    margin: float,
    by_score: bool,
) -> None:
    if by_score:
        scores.sort(reverse=True)
    keys = data.draw(st.permutations(range(len(scores))))
    order = served(turns, 16, margin)
    for root in ROOTS:
        positions = order.arrange(root, keys, scores)
        assert sorted(positions) == list(range(len(keys)))
        for ahead, behind in combinations(positions, 2):
            assert ahead < behind or abs(scores[ahead] - scores[behind]) <= margin


@given(turns=turns, keys=st.permutations(range(8)))
def test_arranging_changes_nothing(turns: list[tuple[bytes, list[int]]], keys: list[int]) -> None:
    order = served(turns, 8, 0.15)
    before = remembered(order)
    first = order.arrange(b"a", keys, [0.5] * 8)
    assert order.arrange(b"a", keys, [0.5] * 8) == first
    assert remembered(order) == before


@given(turns=turns, keys=st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True))
def test_a_set_served_just_now_is_served_alike(turns: list[tuple[bytes, list[int]]], keys: list[int]) -> None:
    """Nothing is fresher than the turn just served, so its path has the highest value that there is."""
    order = served(turns, 16, 2.0)
    order.served(b"a", keys)
    asked = sorted(keys)
    positions = order.arrange(b"a", asked, [0.5] * len(asked))
    assert [asked[position] for position in positions] == keys
