"""What a person has typed so far, for servers that begin their work before the message is sent.

A word is five characters, spaces included: the convention behind words per minute (A. S. Arif, W. Stuerzlinger,
"Analysis of text entry performance metrics", 2009). Nobody pauses or corrects here.
"""

from __future__ import annotations

import math

from loadtest.errors import OptionError

CHARACTERS_PER_WORD = 5
MAX_TYPED_CHARACTERS = 2_000
"""A longer text was pasted, not typed."""


def partial_texts(text: str, words_per_minute: float, every_s: float) -> tuple[tuple[float, str], ...]:
    """(seconds before the submit, what has been typed by then), in the order of typing, one entry per `every_s`.

    The submit comes with the last character. No entry is blank, none is the whole text, each is longer than the one before it.
    Empty when the text is typed within `every_s`, or is longer than `MAX_TYPED_CHARACTERS`. Raises `OptionError`.
    """
    for value, what in (
        (words_per_minute, "words per minute"),
        (every_s, "seconds between two partial texts"),
    ):
        if not (math.isfinite(value) and value > 0):
            raise OptionError(f"--type-ahead: {value:g} {what}. Expected a number above 0.")
    if len(text) > MAX_TYPED_CHARACTERS:
        return ()
    characters_per_s = words_per_minute * CHARACTERS_PER_WORD / 60
    duration_s = len(text) / characters_per_s
    step = max(every_s * characters_per_s, 1.0)
    typed = []
    for number in range(1, len(text)):
        n_characters = int(number * step + 1e-9)  # a character is not late for a rounding error
        if n_characters >= len(text):
            break
        so_far = text[:n_characters]
        if so_far.strip():
            typed.append((duration_s - number * step / characters_per_s, so_far))
    return tuple(typed)
