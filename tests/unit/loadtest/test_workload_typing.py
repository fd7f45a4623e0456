from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.errors import OptionError
from loadtest.workload.typing import MAX_TYPED_CHARACTERS, partial_texts


def test_sixty_words_per_minute_are_five_characters_a_second() -> None:
    typed = partial_texts("What is prefill?", 60, 1.0)  # 16 characters: 3.2 s
    assert [text for _, text in typed] == ["What ", "What is pr", "What is prefill"]
    assert [before_s for before_s, _ in typed] == pytest.approx([2.2, 1.2, 0.2])


@pytest.mark.parametrize("text", ["", "a", "Hello"])
def test_a_text_typed_within_the_first_interval_has_no_partial_texts(text: str) -> None:
    assert partial_texts(text, 60, 1.0) == ()


def test_nothing_blank_is_sent() -> None:
    assert [text for _, text in partial_texts("          What?", 60, 1.0)] == []
    assert [text for _, text in partial_texts("     What is", 60, 1.0)] == ["     What "]


def test_when_the_interval_is_shorter_than_a_key_stroke_then_each_key_stroke_counts_once() -> None:
    assert [text for _, text in partial_texts("abcd", 60, 1e-9)] == ["a", "ab", "abc"]


def test_a_text_too_long_to_be_typed_was_pasted() -> None:
    assert partial_texts("x" * MAX_TYPED_CHARACTERS, 60, 1.0)
    assert partial_texts("x" * (MAX_TYPED_CHARACTERS + 1), 60, 1.0) == ()


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_speed_or_interval_that_makes_no_sense_is_an_error(value: float) -> None:
    with pytest.raises(OptionError, match=r"words per minute. Expected a number above 0"):
        partial_texts("text", value, 1.0)
    with pytest.raises(OptionError, match=r"seconds between two partial texts. Expected a number above 0"):
        partial_texts("text", 60, value)


@given(st.text(max_size=80), st.floats(0.1, 1_000), st.floats(0.001, 100))
def test_partial_texts_grow_until_the_submit(text: str, words_per_minute: float, every_s: float) -> None:
    typed = partial_texts(text, words_per_minute, every_s)
    lengths = [len(so_far) for _, so_far in typed]
    assert lengths == sorted(set(lengths))
    assert all(text.startswith(so_far) and so_far != text and so_far.strip() for _, so_far in typed)
    times_s = [before_s for before_s, _ in typed]
    assert times_s == sorted(set(times_s), reverse=True)
    assert all(before_s > -1e-6 for before_s in times_s)
