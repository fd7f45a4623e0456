"""How much is run, and each case's own random numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import TypeVar

import pytest

T = TypeVar("T")

FULL = os.environ.get("CRASH_SIZE", "ci") == "full"
SEED = os.environ.get("CRASH_SEED", "1")
AT_MOST = int(os.environ.get("CRASH_CASES", "1000000"))
"""A sample of a suite's cases, where not all are wanted."""
_SUITE, _, _NUMBER = os.environ.get("CRASH_CASE", "").partition(":")

TIMEOUT_S = 3_600 if FULL else 120
"""Of one test."""


def pick(ci: T, full: T) -> T:
    return full if FULL else ci


def chosen(suite: str, cases: Sequence[T]) -> list[tuple[int, T]]:
    """The cases to run with their numbers: all of them, or the one that was asked for."""
    if not _SUITE:
        return list(enumerate(cases))
    if suite != _SUITE:
        pytest.skip("another case was asked for")
    return [(int(_NUMBER), cases[int(_NUMBER)])]


def random_of(suite: str, number: int | str) -> Random:
    return Random(f"{SEED}:{suite}:{number}")


@contextmanager
def named(suite: str, number: int) -> Iterator[None]:
    """A failure says how to run its case again."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"again with CRASH_SEED={SEED} CRASH_CASE={suite}:{number}")
        raise
