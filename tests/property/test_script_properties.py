"""The simulated engine tells a reply as a real one does: every character whole, no stop string, little held back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from server.context.template import ChatTemplate
from server.engine.protocol import Delta, GenerateRequest, Sampling
from server.engine.script import Script
from server.errors import ConfigError

LONGEST_CHARACTER_BYTES = 4
"""A token holds a byte at least, so fewer tokens than this leave a character unfinished."""

replies = st.one_of(
    st.lists(
        st.sampled_from(
            [
                "👋",
                "👩‍👩‍👧‍👦",
                "é",
                "a",
                " ",
                "\n\n",
                "\r",
                "\x00",
                "\u2028",
                "\x85",
                "\ufeff",
                "한",
                "\U0010ffff",
            ]
        ),
        min_size=1,
        max_size=20,
    ).map("".join),
    st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), min_size=1, max_size=30),
    st.builds(
        lambda piece, times: piece * times, st.sampled_from(["a", " ", "👋", "\u0301"]), st.integers(50, 300)
    ),
)


@dataclass(frozen=True)
class Spoken:
    """A vocabulary whose reply is these tokens, whatever text they make."""

    template: ChatTemplate
    token_ids: Sequence[int]

    def encode(self, text: str) -> list[int]:
        return list(self.token_ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.template.decode(token_ids)


def tell(script: Script, **sampling: Any) -> list[Delta]:
    """One answer to its end."""
    options = {"max_tokens": 5_000} | sampling
    answer = script.answer(GenerateRequest("r", [1], Sampling(**options)), 0, 0)
    deltas = [answer.next_delta(None)]
    while deltas[-1].finish_reason is None:
        deltas.append(answer.next_delta(None))
    assert all(len(delta.token_ids) == 1 for delta in deltas)
    return deltas


def text_of(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def tokens_of(deltas: Sequence[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.token_ids]


def is_in_the_vocabulary(text: str, template: ChatTemplate) -> bool:
    """SmolLM2's has no token for some bytes that begin rare characters."""
    return template.decode(template.encode(text)) == text


@given(reply=replies)
def test_the_pieces_are_the_reply_and_every_character_comes_whole(reply: str, template: ChatTemplate) -> None:
    assume(is_in_the_vocabulary(reply, template))
    deltas = tell(Script(reply, template))
    assert text_of(deltas) == reply
    assert tokens_of(deltas) == template.encode(reply)
    assert deltas[-1].finish_reason == "stop"
    silent = 0
    for delta in deltas:
        silent = 0 if delta.text else silent + 1
        assert silent < LONGEST_CHARACTER_BYTES
        assert "\ufffd" not in delta.text


@given(data=st.data(), max_tokens=st.integers(1, 60))
def test_any_tokens_are_told_as_the_tokenizer_reads_them(
    data: st.DataObject, max_tokens: int, template: ChatTemplate
) -> None:
    """Random tokens: most are no text that anybody wrote, many are pieces of characters."""
    vocabulary = st.integers(0, template.vocabulary_size - 1)
    some_bytes = st.sampled_from(_byte_tokens(template))
    token_ids = data.draw(st.lists(vocabulary | some_bytes, min_size=1, max_size=60))
    deltas = tell(Script("-", Spoken(template, token_ids)), max_tokens=max_tokens)
    assert tokens_of(deltas) == token_ids[:max_tokens]
    told = text_of(deltas)
    if len(token_ids) <= max_tokens:
        assert told == template.decode(token_ids)
    else:
        assert template.decode(token_ids).startswith(told)
    assert (deltas[-1].finish_reason == "stop") == (len(token_ids) < max_tokens)


def _byte_tokens(template: ChatTemplate) -> list[int]:
    """Tokens that are less than a character."""
    return [token for token in range(400) if template.decode([token]) == "\ufffd"]


@given(reply=replies, data=st.data(), max_tokens=st.integers(1, 400), forever=st.booleans())
@example(reply="aab", data=None, max_tokens=9, forever=False)
def test_a_stop_string_ends_the_answer_and_no_piece_of_it_shows(
    reply: str, data: st.DataObject | None, max_tokens: int, forever: bool, template: ChatTemplate
) -> None:
    assume(template.encode(reply))
    stop = ("ab", "b") if data is None else data.draw(_stops(reply))
    deltas = tell(Script(reply, template), stop=stop, max_tokens=max_tokens, ignore_eos=forever)
    pieces = [
        delta.text for delta in tell(Script(reply, template), max_tokens=max_tokens, ignore_eos=forever)
    ]
    longest = max(map(len, stop))
    told = ""
    for number, delta in enumerate(deltas, start=1):
        told += delta.text
        said = "".join(pieces[:number])
        found = [at for string in stop if (at := said.find(string)) >= 0]
        if found:
            assert delta is deltas[-1]
            assert delta.finish_reason == "stop"
            assert told == said[: min(found)]
        elif delta.finish_reason is None:
            assert said.startswith(told)
            assert len(said) - len(told) <= longest - 1, "more is held back than could begin a stop string"
        else:
            assert told == said
            assert number == len(pieces)
    assert not any(string in told for string in stop)


@st.composite
def _stops(draw: st.DrawFn, reply: str) -> tuple[str, ...]:
    """Pieces of the reply, some with another end, and strangers."""
    stops = []
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(reply) - 1))
        piece = reply[start : start + draw(st.integers(1, 9))]
        stops.append(draw(st.sampled_from([piece, piece + "∎", piece * 2, "∎"])))
    return tuple(stops)


def test_a_reply_that_has_no_token_is_refused_before_anybody_waits_for_it(template: ChatTemplate) -> None:
    with pytest.raises(ConfigError, match="no token"):
        Script("\x16", template)


@given(reply=replies, rounds=st.integers(2, 4))
def test_a_reply_without_end_comes_over_and_over(reply: str, rounds: int, template: ChatTemplate) -> None:
    assume(is_in_the_vocabulary(reply, template))
    n_tokens = len(template.encode(reply))
    deltas = tell(Script(reply, template), max_tokens=n_tokens * rounds, ignore_eos=True)
    assert text_of(deltas) == reply * rounds
    assert deltas[-1].finish_reason == "length"
