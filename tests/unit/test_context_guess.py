from __future__ import annotations

import asyncio
import math
import time

import pytest

from retrieval.types import Passage
from server.context.entry import Entry, Injected, pack
from server.context.guess import Computing, Guess, Guesses
from server.context.prompt import Prompt

pytestmark = pytest.mark.anyio

KEY, OTHER = b"history", b"another"


def typed(guesses: Guesses, text: str, key: bytes = KEY, tenant: str = "t", first: bool = False) -> Guess:
    return guesses.typed(tenant, key, text, is_first=first)


@pytest.fixture
def guesses() -> Guesses:
    return Guesses(max_per_tenant=3, ttl_s=60)


async def run_for(guess: Guess) -> asyncio.Task[None]:
    """Something that runs until it is given up."""

    async def wait() -> None:
        await asyncio.Event().wait()

    guess.task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return guess.task


async def ended(task: asyncio.Task[None]) -> bool:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task.cancelled()


async def test_typing_on_goes_on_with_the_same_guess(guesses: Guesses) -> None:
    guess = typed(guesses, "How")
    guess.typed_on.clear()
    assert typed(guesses, "How long") is guess
    assert guess.text == "How long"
    assert guess.typed_on.is_set()
    assert typed(guesses, "Something else") is guess


async def test_a_guess_is_taken_once_and_what_runs_for_it_ends_when_the_taker_says(guesses: Guesses) -> None:
    guess = typed(guesses, "How long")
    task = await run_for(guess)
    assert guesses.take("t", KEY, "How long?") is guess
    assert not await ended(task)
    guesses.stop(guess)
    assert await ended(task)
    assert guesses.take("t", KEY, "How long?") is None


@pytest.mark.parametrize(("tenant", "key"), [("t", OTHER), ("another", KEY)])
async def test_a_guess_is_of_its_tenant_and_history_alone(guesses: Guesses, tenant: str, key: bytes) -> None:
    guess = typed(guesses, "How long")
    assert guesses.take(tenant, key, "How long") is None
    assert typed(guesses, "How long", key, tenant) is not guess


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("How", "How long is it?", True),
        ("How long is it?", "How", True),
        ("How long is it?", "How long was it", True),
        ("How long is it?", "Where is the shop?", False),
        ("What is the time?", "What may I do?", False),
        ("H", "H", True),
        ("H", "W", False),
    ],
)
async def test_a_first_message_is_known_by_how_its_text_begins(
    guesses: Guesses, before: str, after: str, same: bool
) -> None:
    guess = typed(guesses, before, first=True)
    assert (guesses.take("t", KEY, after) is guess) == same


async def test_of_several_first_messages_the_nearest_is_taken(guesses: Guesses) -> None:
    short = typed(guesses, "How long is", first=True)
    other = typed(guesses, "Where is the shop", first=True)
    assert short is not other
    long = Guess("t", KEY, "How long is the way", True)
    guesses._of["t"].append(long)
    assert guesses.take("t", KEY, "How long is the way home?") is long
    assert guesses.take("t", KEY, "How long is the way home?") is short


async def test_a_tenants_guesses_are_bounded_and_the_oldest_is_given_up(guesses: Guesses) -> None:
    oldest = typed(guesses, "a", b"0")
    kept = typed(guesses, "a", b"1")
    elsewhere = typed(guesses, "a", b"0", tenant="another")
    task, other_task = await run_for(oldest), await run_for(elsewhere)
    typed(guesses, "a", b"2")
    assert not await ended(task)
    typed(guesses, "a", b"3")
    assert await ended(task)
    assert guesses.take("t", b"0", "a") is None
    assert guesses.take("t", b"1", "a") is kept
    assert not other_task.done()
    await guesses.close()


async def test_typing_on_makes_a_guess_the_youngest(guesses: Guesses) -> None:
    first = typed(guesses, "a", b"0")
    for key in (b"1", b"2"):
        typed(guesses, "a", key)
    typed(guesses, "ab", b"0")
    typed(guesses, "a", b"3")
    assert guesses.take("t", b"0", "ab") is first
    assert guesses.take("t", b"1", "a") is None


async def test_what_nobody_goes_on_with_is_forgotten(
    guesses: Guesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    guess = typed(guesses, "a")
    task = await run_for(guess)
    now += 59
    assert typed(guesses, "ab") is guess
    now += 61
    assert guesses.take("t", KEY, "ab") is None
    monkeypatch.undo()
    assert await ended(task)


async def test_a_turn_ends_what_runs_and_keeps_the_guesses(guesses: Guesses) -> None:
    guess = typed(guesses, "a")
    task = await run_for(guess)
    guesses.make_way()
    assert await ended(task)
    assert guesses.running_tokens == 0
    assert guesses.take("t", KEY, "a") is guess


def prefilling(begun_at: float = 0.0) -> Computing:
    """40 tokens of history, passages of 20 and 10 up to 70, then the question."""
    injected = tuple(
        (Injected(n, n, f"c{n}", pack([7] * tokens)), Passage(f"c{n}", "d", "f", "T", (), "x", 1, 0.5, n))
        for n, tokens in ((1, 20), (2, 10))
    )
    prompt = Prompt(
        [0] * 80,
        (),
        10,
        entries=(Entry(b"1"), Entry(b"2"), Entry(b"3")),
        injected=injected,
        asked_at=2,
        history_tokens=40,
        passages_end=70,
        ahead_tokens=70,
    )
    return Computing(prompt, [0] * 70, to_compute=70, begun_at=begun_at)


@pytest.mark.parametrize(
    ("computed_tokens", "knows_history", "n_passages"),
    [
        (0, False, 0),
        (39, False, 0),
        (40, True, 0),
        (59, True, 0),
        (60, True, 1),
        (70, True, 2),
        (math.inf, True, 2),
    ],
)
def test_what_was_computed_counts_as_far_as_it_came(
    computed_tokens: float, knows_history: bool, n_passages: int
) -> None:
    guess = Guess("t", KEY, "a", False)
    guess.settle(prefilling().prompt, computed_tokens)
    assert guess.history == ((Entry(b"1"), Entry(b"2")) if knows_history else None)
    assert [passage is not None for _, passage in guess.passages] == [n < n_passages for n in range(2)]


async def test_a_prefill_counts_while_it_runs_and_when_it_is_through(
    guesses: Guesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    guess = typed(guesses, "a")
    guess.computing = prefilling(now)
    assert guesses.running_tokens == 70
    now += 7
    guesses.look(guess)
    assert guess.history is None, "nothing is known of the engine's pace"
    guesses.end(guess)
    assert guesses.running_tokens == 0
    assert guesses.tokens_per_s == pytest.approx(10)
    assert all(passage is not None for _, passage in guess.passages)

    guess.computing = prefilling(now)
    now += 6.5
    guesses.look(guess)
    assert [passage is not None for _, passage in guess.passages] == [True, False]
    assert guesses.running_tokens == 70, "it goes on"
    guesses.break_off(guess)
    assert guesses.running_tokens == 0
    monkeypatch.undo()


async def test_closing_ends_all(guesses: Guesses) -> None:
    tasks = [await run_for(typed(guesses, "a", bytes([n]), tenant=f"{n}")) for n in range(3)]
    await guesses.close()
    assert all(task.cancelled() for task in tasks)
    assert guesses.take("0", b"\0", "a") is None
