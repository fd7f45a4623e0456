"""The vocabulary without a model: ids that never change and always extend."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.target.vocabulary import FourByteVocabulary

_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
_MESSAGES = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), _TEXTS), max_size=5)

vocabulary = FourByteVocabulary()


@given(_TEXTS)
def test_a_text_comes_back_as_it_was(text: str) -> None:
    assert vocabulary.decode(vocabulary.encode(text)) == text


@given(_MESSAGES, _MESSAGES)
def test_a_longer_conversation_begins_with_the_ids_of_the_shorter(
    begun: list[tuple[str, str]], more: list[tuple[str, str]]
) -> None:
    shorter = vocabulary.render(begun)
    assert vocabulary.render(begun + more)[: len(shorter)] == shorter


def test_a_token_is_four_letters_of_english() -> None:
    assert len(vocabulary.encode("word " * 400)) == 500


def test_half_a_surrogate_pair_is_counted_and_does_not_raise() -> None:
    assert len(vocabulary.encode("\ud800")) == 1
