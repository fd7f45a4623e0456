"""The document that a bench leaves is documented, field for field."""

from __future__ import annotations

import typing
from pathlib import Path

import msgspec
import pytest

from loadtest.figures.document import Report

PAGE = (Path(__file__).parents[3] / "docs" / "loadtest-report.md").read_text()


def structs_of(kind: object) -> set[type[msgspec.Struct]]:
    """Every struct that can be in it, at any depth."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        inside = [structs_of(hint) for hint in typing.get_type_hints(kind).values()]
        return {kind}.union(*inside)
    return set().union(*(structs_of(part) for part in typing.get_args(kind)))


FIELDS = sorted({(one.__name__, name) for one in structs_of(Report) for name in one.__struct_fields__})


def test_the_structs_are_found() -> None:
    assert {"Report", "Stage", "Summary", "TurnResult", "ServerTiming", "Interval"} <= {
        name for name, _ in FIELDS
    }


@pytest.mark.parametrize(("struct", "field"), FIELDS)
def test_every_field_is_documented(struct: str, field: str) -> None:
    assert f"`{field}`" in PAGE, f"{struct}.{field} is missing in docs/loadtest-report.md"
