"""Filters over the attributes of documents, in OpenAI's form: comparisons, joined by `and` and `or`.

https://platform.openai.com/docs/api-reference/vector-stores/search
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from retrieval.errors import InvalidFilter

Attribute = str | float | bool
Attributes = Mapping[str, Attribute]

Comparing = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
_COMPARING = get_args(Comparing)
_ORDERING = ("gt", "gte", "lt", "lte")

MAX_DEPTH = 8
MAX_COMPARISONS = 64
MAX_VALUES = 256
MAX_KEY_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Comparison:
    """`key` of a document against a value; for `in` and `nin` a tuple of values.

    A document without the key matches only `ne` and `nin`. Values of different kinds (text, number, truth) are
    unequal and have no order.
    """

    type: Comparing
    key: str
    value: Attribute | tuple[Attribute, ...]

    def matches(self, attributes: Attributes) -> bool:
        if self.key not in attributes:
            return self.type in ("ne", "nin")
        held = attributes[self.key]
        if isinstance(self.value, tuple):
            found = any(_equal(held, value) for value in self.value)
            return found if self.type == "in" else not found
        if self.type == "eq":
            return _equal(held, self.value)
        if self.type == "ne":
            return not _equal(held, self.value)
        return _kind(held) is _kind(self.value) and _ordered(self.type, held, self.value)


@dataclass(frozen=True, slots=True)
class Compound:
    type: Literal["and", "or"]
    filters: tuple[Filter, ...]

    def matches(self, attributes: Attributes) -> bool:
        each = (filter_.matches(attributes) for filter_ in self.filters)
        return all(each) if self.type == "and" else any(each)


Filter = Comparison | Compound


def parse_filter(value: Any, param: str = "filters") -> Filter:
    """JSON values as a filter. Raises `InvalidFilter`, which names the field (its `param`) and what was expected."""
    return _Reader().read(value, param, 1)


def canonical(filter_: Filter) -> str:
    """The same text for the same filter, whatever order its keys came in."""
    return json.dumps(_plain(filter_), ensure_ascii=False, sort_keys=True)


class _Reader:
    def __init__(self) -> None:
        self._n_comparisons = 0

    def read(self, value: Any, param: str, depth: int) -> Filter:
        if not isinstance(value, dict):
            raise InvalidFilter(f"{param}: an object with 'type' was expected", param)
        kind = value.get("type")
        if kind in ("and", "or"):
            return self._compound(value, kind, param, depth)
        if isinstance(kind, str) and kind in _COMPARING:
            return self._comparison(value, kind, param)
        raise InvalidFilter(
            f"{param}.type: one of {', '.join((*_COMPARING, 'and', 'or'))} was expected", f"{param}.type"
        )

    def _compound(self, value: dict[str, Any], kind: Any, param: str, depth: int) -> Compound:
        _only(value, {"type", "filters"}, param)
        if depth >= MAX_DEPTH:
            raise InvalidFilter(f"{param}: filters may be nested at most {MAX_DEPTH} deep", param)
        parts = value.get("filters")
        if not isinstance(parts, list) or not parts:
            raise InvalidFilter(
                f"{param}.filters: a list of at least one filter was expected", f"{param}.filters"
            )
        read = tuple(self.read(part, f"{param}.filters[{at}]", depth + 1) for at, part in enumerate(parts))
        return Compound(kind, read)

    def _comparison(self, value: dict[str, Any], kind: Any, param: str) -> Comparison:
        self._n_comparisons += 1
        if self._n_comparisons > MAX_COMPARISONS:
            raise InvalidFilter(f"{param}: at most {MAX_COMPARISONS} comparisons are taken", param)
        _only(value, {"type", "key", "value"}, param)
        key = value.get("key")
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARACTERS:
            raise InvalidFilter(
                f"{param}.key: the name of an attribute was expected (1 to {MAX_KEY_CHARACTERS} characters)",
                f"{param}.key",
            )
        held: Any = value.get("value")
        if kind in ("in", "nin"):
            if (
                not isinstance(held, list)
                or not 0 < len(held) <= MAX_VALUES
                or not all(map(_is_attribute, held))
            ):
                raise InvalidFilter(
                    f"{param}.value: a list of 1 to {MAX_VALUES} texts, numbers or truth values was expected",
                    f"{param}.value",
                )
            return Comparison(kind, key, tuple(held))
        if not _is_attribute(held):
            raise InvalidFilter(
                f"{param}.value: a text, a number, true or false was expected", f"{param}.value"
            )
        if kind in _ORDERING and isinstance(held, bool):
            raise InvalidFilter(
                f"{param}.value: truth values have no order; use 'eq' or 'ne'", f"{param}.value"
            )
        return Comparison(kind, key, held)


def _only(value: dict[str, Any], known: set[str], param: str) -> None:
    for name in value:
        if name not in known:
            raise InvalidFilter(
                f"{param}.{name[:MAX_KEY_CHARACTERS]}: unknown; known: {', '.join(sorted(known))}", param
            )


def _is_attribute(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _kind(value: Attribute) -> type:
    if isinstance(value, bool):
        return bool
    return str if isinstance(value, str) else float


def _equal(one: Attribute, other: Attribute) -> bool:
    return _kind(one) is _kind(other) and one == other


def _ordered(kind: str, held: Any, value: Any) -> bool:
    match kind:
        case "gt":
            return bool(held > value)
        case "gte":
            return bool(held >= value)
        case "lt":
            return bool(held < value)
        case _:
            return bool(held <= value)


def _plain(filter_: Filter) -> dict[str, Any]:
    if isinstance(filter_, Comparison):
        return {"type": filter_.type, "key": filter_.key, "value": filter_.value}
    return {"type": filter_.type, "filters": [_plain(part) for part in filter_.filters]}
