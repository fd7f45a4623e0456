"""Filters: what is refused, and which documents match."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import InvalidFilter
from retrieval.filters import MAX_COMPARISONS, MAX_DEPTH, MAX_VALUES, canonical, parse_filter

ONE = {"type": "eq", "key": "year", "value": 1}


def nested(depth: int) -> dict[str, Any]:
    return ONE if depth == 1 else {"type": "and", "filters": [nested(depth - 1)]}


@pytest.mark.parametrize(
    ("value", "param"),
    [
        (None, "f"),
        ([], "f"),
        ("year = 1", "f"),
        ({}, "f.type"),
        ({"type": "like"}, "f.type"),
        ({"type": ["eq"]}, "f.type"),
        (ONE | {"extra": 1}, "f"),
        ({"type": "eq", "value": 1}, "f.key"),
        (ONE | {"key": ""}, "f.key"),
        (ONE | {"key": "k" * 65}, "f.key"),
        (ONE | {"key": 1}, "f.key"),
        ({"type": "eq", "key": "year"}, "f.value"),
        (ONE | {"value": None}, "f.value"),
        (ONE | {"value": [1]}, "f.value"),
        (ONE | {"type": "gt", "value": True}, "f.value"),
        (ONE | {"type": "in"}, "f.value"),
        (ONE | {"type": "in", "value": []}, "f.value"),
        (ONE | {"type": "nin", "value": [None]}, "f.value"),
        (ONE | {"type": "in", "value": [1] * (MAX_VALUES + 1)}, "f.value"),
        ({"type": "and"}, "f.filters"),
        ({"type": "or", "filters": []}, "f.filters"),
        ({"type": "or", "filters": ONE}, "f.filters"),
        ({"type": "and", "filters": [ONE], "key": "year"}, "f"),
        ({"type": "and", "filters": [ONE, {"type": "or", "filters": [ONE, 7]}]}, "f.filters[1].filters[1]"),
        ({"type": "and", "filters": [ONE] * (MAX_COMPARISONS + 1)}, f"f.filters[{MAX_COMPARISONS}]"),
        (nested(MAX_DEPTH + 1), "f" + ".filters[0]" * (MAX_DEPTH - 1)),
    ],
)
def test_what_cannot_be_read_names_its_field(value: Any, param: str) -> None:
    with pytest.raises(InvalidFilter) as raised:
        parse_filter(value, "f")
    assert raised.value.param == param
    assert str(raised.value).startswith("f")


def test_what_is_just_within_the_limits_is_read() -> None:
    assert parse_filter(nested(MAX_DEPTH)).matches({"year": 1})
    assert parse_filter({"type": "or", "filters": [ONE] * MAX_COMPARISONS}).matches({"year": 1})
    assert parse_filter(ONE | {"type": "in", "value": [1] * MAX_VALUES}).matches({"year": 1})


HELD = (1, 1.0, 2, True, False, "1", "a", "b", "")


@pytest.mark.parametrize(
    ("type_", "value", "matching"),
    [
        ("eq", 1, {0, 1}),
        ("eq", 1.0, {0, 1}),
        ("eq", True, {3}),
        ("eq", "1", {5}),
        ("ne", 1, {2, 3, 4, 5, 6, 7, 8, None}),
        ("ne", True, {0, 1, 2, 4, 5, 6, 7, 8, None}),
        ("gt", 1, {2}),
        ("gte", 1, {0, 1, 2}),
        ("lt", 2, {0, 1}),
        ("lte", 0, set()),
        ("gt", "a", {7}),
        ("lt", "a", {5, 8}),
        ("in", [1, "a"], {0, 1, 6}),
        ("in", [True], {3}),
        ("nin", [1, "a"], {2, 3, 4, 5, 7, 8, None}),
    ],
)
def test_values_of_different_kinds_are_unequal_and_without_order(
    type_: str, value: Any, matching: set[int | None]
) -> None:
    comparison = parse_filter({"type": type_, "key": "held", "value": value})
    found: set[int | None] = {at for at, held in enumerate(HELD) if comparison.matches({"held": held})}
    if comparison.matches({"other": 1}):
        found.add(None)
    assert found == matching


values = st.sampled_from(["", "a", "b", "1", 0, 1, 2, 0.5, 1.0, True, False]) | st.floats() | st.integers()
keys = st.sampled_from(["a", "b", "c"])
comparisons = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["eq", "ne"]), "key": keys, "value": values}),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["gt", "gte", "lt", "lte"]),
            "key": keys,
            "value": values.filter(lambda value: not isinstance(value, bool)),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["in", "nin"]),
            "key": keys,
            "value": st.lists(values, min_size=1, max_size=4),
        }
    ),
)
filters = st.recursive(
    comparisons,
    lambda inner: st.fixed_dictionaries(
        {"type": st.sampled_from(["and", "or"]), "filters": st.lists(inner, min_size=1, max_size=3)}
    ),
    max_leaves=8,
)


def typed(value: Any) -> tuple[str, Any]:
    kind = type(value).__name__
    return ("number" if kind in ("int", "float") else kind), value


def holds(value: dict[str, Any], attributes: dict[str, Any]) -> bool:
    """The semantics as a table over (kind, value) pairs."""
    if "filters" in value:
        each = [holds(part, attributes) for part in value["filters"]]
        return all(each) if value["type"] == "and" else any(each)
    if value["key"] not in attributes:
        return value["type"] in ("ne", "nin")
    held, wanted = typed(attributes[value["key"]]), value["value"]
    same = [held == typed(one) for one in (wanted if isinstance(wanted, list) else [wanted])]
    ordered = held[0] == typed(wanted)[0]
    table = {
        "eq": lambda: same[0],
        "ne": lambda: not same[0],
        "in": lambda: any(same),
        "nin": lambda: not any(same),
        "gt": lambda: ordered and held[1] > wanted,
        "gte": lambda: ordered and held[1] >= wanted,
        "lt": lambda: ordered and held[1] < wanted,
        "lte": lambda: ordered and held[1] <= wanted,
    }
    return bool(table[value["type"]]())


@settings(max_examples=50)
@given(filters, st.dictionaries(keys, values))
def test_a_filter_matches_what_the_table_says(value: dict[str, Any], attributes: dict[str, Any]) -> None:
    # (nan, nan) pairs are equal by identity in the table's tuples, and unequal to every comparison.
    attributes = {key: held for key, held in attributes.items() if held == held}
    assert parse_filter(value).matches(attributes) == holds(value, attributes)


@settings(max_examples=30)
@given(filters, filters)
def test_a_name_stands_for_one_filter(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = parse_filter(one), parse_filter(other)
    assert canonical(parse_filter(dict(reversed(one.items())))) == canonical(first)
    if canonical(first) == canonical(second):
        assert repr(first) == repr(second)
