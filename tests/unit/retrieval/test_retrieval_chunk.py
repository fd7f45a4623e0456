from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.chunk import MIN_CHUNK_TOKENS, chunk, chunk_text_for_embedding
from retrieval.types import Chunk, ParsedDocument, Section, TokenCounter


class Words:
    """Up to four letters, or one sign, a token: words longer than that are cut, as in a BPE vocabulary."""

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return [found.span() for found in re.finditer(r"\w{1,4}|[^\w\s]", text)]

    def count_tokens(self, text: str) -> int:
        return len(self.token_offsets(text))


class Bytes:
    """A token for each UTF-8 byte; spaces count; tokens of one character share its offsets."""

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return [(at, at + 1) for at, letter in enumerate(text) for _ in letter.encode()]

    def count_tokens(self, text: str) -> int:
        return len(text.encode())


class Greedy:
    """Pairs of characters from the left, so a slice may take more tokens than it does in its place."""

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return [(at, min(at + 2, len(text))) for at in range(0, len(text), 2)]

    def count_tokens(self, text: str) -> int:
        return len(self.token_offsets(text)) + text.startswith("e")


COUNTERS = [Words(), Bytes(), Greedy()]
texts = st.one_of(
    st.text(st.sampled_from("ab e.\n!é漢😀 "), max_size=400),
    st.lists(
        st.sampled_from(["word", "sentence.", "End.\n\n", "\n", "verylongwordindeed", "漢字。"]), max_size=120
    ).map(" ".join),
)
documents = st.lists(texts, max_size=3).map(
    lambda found: ParsedDocument("t", tuple(Section((f"h{n}",), text) for n, text in enumerate(found)))
)
sizes = st.integers(MIN_CHUNK_TOKENS, 60).flatmap(
    lambda size: st.tuples(st.just(size), st.integers(0, size // 2))
)


def covers(section: str, pieces: list[str]) -> bool:
    """Whether the pieces, each a stretch of the section, follow one another and leave out only spaces."""
    ends = {0}  # where the pieces so far may end: a text that repeats itself gives several readings
    for piece in pieces:
        places = [at for at in range(len(section)) if section.startswith(piece, at)]
        ends = {
            at + len(piece)
            for end in ends
            for at in places
            if at + len(piece) > end and not section[end:at].strip()
        }
    return any(not section[end:].strip() for end in ends)


@pytest.mark.parametrize("counter", COUNTERS, ids=lambda counter: type(counter).__name__)
@given(document=documents, size=sizes)
@settings(deadline=None, max_examples=150)
def test_chunks_never_exceed_their_size_and_lose_nothing(
    counter: TokenCounter, document: ParsedDocument, size: tuple[int, int]
):
    chunk_tokens, overlap_tokens = size
    chunks = chunk(document, counter, chunk_tokens, overlap_tokens)
    assert chunks == chunk(document, counter, chunk_tokens, overlap_tokens)
    assert [piece.ordinal for piece in chunks] == list(range(len(chunks)))
    for piece in chunks:
        assert piece.text.strip()
        assert piece.n_tokens == counter.count_tokens(piece.text) <= chunk_tokens
    for section in document.sections:
        pieces = [piece.text for piece in chunks if piece.heading_path == section.heading_path]
        assert covers(section.text, pieces)
        if not overlap_tokens:
            assert "".join("".join(pieces).split()) == "".join(section.text.split())


def pieces(text: str, chunk_tokens: int, overlap_tokens: int = 0) -> list[str]:
    document = ParsedDocument("t", (Section((), text),))
    return [piece.text for piece in chunk(document, Words(), chunk_tokens, overlap_tokens)]


def test_a_section_that_fits_is_one_chunk():
    assert pieces("one two.\n\nthree", 16) == ["one two.\n\nthree"]


def test_cuts_prefer_paragraphs_then_sentences_then_words_then_tokens():
    paragraph = " ".join(["word"] * 10)
    assert pieces(f"{paragraph}\n\n{paragraph}", 16) == [paragraph, paragraph]
    sentence = " ".join(["Word"] * 9) + "."
    assert pieces(f"{sentence} {sentence}", 16) == [sentence, sentence]
    assert pieces(" ".join(["longword"] * 12), 17) == [" ".join(["longword"] * 8), " ".join(["longword"] * 4)]
    assert pieces("x" * 100, 16) == ["x" * 64, "x" * 36]


def test_overlap_repeats_the_last_sentence():
    text = " ".join(f"Number {n} is here." for n in range(10))  # 6 tokens each
    found = pieces(text, 24, 8)
    assert found[0].endswith("Number 3 is here.")
    assert found[1].startswith("Number 3 is here.")
    assert found[-1].endswith("Number 9 is here.")


def test_chunks_do_not_cross_headings():
    document = ParsedDocument("t", (Section(("a",), "one"), Section(("a", "b"), "two")))
    assert chunk(document, Words(), 16, 0) == [Chunk(0, ("a",), "one", 1), Chunk(1, ("a", "b"), "two", 1)]


@pytest.mark.parametrize(("chunk_tokens", "overlap_tokens"), [(15, 0), (0, 0), (20, 11), (20, -1)])
def test_sizes_that_cannot_work_are_refused(chunk_tokens: int, overlap_tokens: int):
    with pytest.raises(ValueError, match="change the chunk settings"):
        chunk(ParsedDocument("t", ()), Words(), chunk_tokens, overlap_tokens)


def test_a_character_above_the_size_is_refused_and_does_not_hang():
    class Heavy(Words):
        def count_tokens(self, text: str) -> int:
            return 20 * len(text)

    with pytest.raises(ValueError, match="raise the chunk size"):
        chunk(ParsedDocument("t", (Section((), "abc"),)), Heavy(), 16, 0)


def test_the_vector_knows_where_the_chunk_is_from():
    assert chunk_text_for_embedding("Shop", Chunk(0, ("Shop", "Returns"), "45 days.", 3)) == (
        "Shop\nReturns\n45 days."
    )
    assert (
        chunk_text_for_embedding("Shop", Chunk(0, ("Help", "Returns"), "x", 1)) == "Shop\nHelp > Returns\nx"
    )
    assert chunk_text_for_embedding("Shop", Chunk(0, (), "x", 1)) == "Shop\nx"
