"""How much is run, and each case's own random numbers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import TypeVar

import pytest

T = TypeVar("T")

FULL = os.environ.get("FAULT_SIZE", "ci") == "full"
_AT_MOST = int(os.environ.get("FAULT_CASES", "1000000"))
_SUITE, _, _NUMBER = os.environ.get("FAULT_CASE", "").partition(":")

TIMEOUT_S = 3_600 if FULL else 120
"""Of one test."""


def pick(ci: T, full: T) -> T:
    return full if FULL else ci


def cases(suite: str, *, ci: int, full: int) -> Sequence[int]:
    """The numbers of the cases to run; all of them, or the one that was asked for."""
    if not _SUITE:
        return range(min(pick(ci, full), _AT_MOST))
    if suite != _SUITE:
        pytest.skip("another case was asked for")
    return [int(_NUMBER)]


def random_of(suite: str, number: int) -> Random:
    return Random(f"{suite}:{number}")


@contextmanager
def named(suite: str, number: int) -> Iterator[None]:
    """A failure says how to run its case again."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"again with FAULT_CASE={suite}:{number}")
        raise


async def run_cases(
    suite: str, numbers: Iterable[int], run: Callable[[int], Awaitable[None]], at_once: int
) -> None:
    """So many cases side by side; the first failure ends them all."""
    waiting = iter(numbers)

    async def work() -> None:
        for number in waiting:
            with named(suite, number):
                await run(number)

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(at_once):
                workers.create_task(work())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
