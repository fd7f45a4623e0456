from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.embed.text import chunk_text_for_embedding
from retrieval.errors import DocumentTooLarge
from retrieval.ingest.chunk import MIN_CHUNK_TOKENS, chunk
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


ROWS = [f"lamp {n} | {n} euros" for n in range(20)]  # 5 tokens
TABLE = "\n".join(["item | price", *ROWS])


def test_a_table_is_cut_between_rows_and_each_piece_repeats_its_first_line():
    found = pieces(f"Our prices.\n\n{TABLE}\n\nAsk us.", 24, 8)
    rows = [line for piece in found for line in piece.split("\n") if line in ROWS]
    # Names are repeated instead of rows, but for the last one, which the text below it may refer to.
    assert rows in (ROWS, [*ROWS, ROWS[-1]])
    assert found[0].startswith("Our prices.\n\nitem | price\nlamp 0")
    assert all(piece.startswith("item | price\nlamp") for piece in found[1:-1])
    assert found[-1].endswith("Ask us.")


def test_a_table_is_never_cut_below_its_names():
    for before in range(12):
        found = pieces("word " * before + f"\n\n{TABLE}", 16)
        assert not any(piece.endswith("item | price") for piece in found)
        assert [line for piece in found for line in piece.split("\n") if line in ROWS] == ROWS


def test_rows_that_name_their_values_need_no_names_above():
    rows = [f"item: lamp | price: {n}" for n in range(9)]  # 6 tokens or so
    found = pieces("\n".join(rows), 24)
    assert [line for piece in found for line in piece.split("\n")] == rows


def test_a_row_above_the_size_is_split_and_still_named():
    found = pieces("k | v\na | " + "word " * 30 + "\nb | c", 16)
    assert all(Words().count_tokens(piece) <= 16 for piece in found)
    assert all(piece.startswith("k | v\n") for piece in found)
    assert sum(piece.count("word") for piece in found) == 30


def test_names_too_long_are_not_repeated():
    names = " | ".join(f"name{n}" for n in range(7))  # 20 tokens
    found = pieces(f"{names}\n" + "\n".join(ROWS), 30)
    assert sum(piece.count("name0") for piece in found) == 1


tables = st.lists(
    st.lists(
        st.sampled_from(["a", "bb c", "", "long word. And", "x: y", "verylongwordindeed"]),
        min_size=2,
        max_size=4,
    ),
    min_size=1,
    max_size=30,
)


@given(rows=tables, before=st.sampled_from(["", "Title\n", "Some text here.\n\n"]), size=sizes)
@settings(deadline=None, max_examples=80)
def test_tables_of_any_form_fit_and_lose_nothing(rows: list[list[str]], before: str, size: tuple[int, int]):
    lines = [" | ".join(cells) for cells in rows]
    text = (before + "\n".join(lines)).strip()
    found = chunk(ParsedDocument("t", (Section((), text, 3),)), Words(), *size)
    assert all(0 < piece.n_tokens == Words().count_tokens(piece.text) <= size[0] for piece in found)
    assert {piece.page for piece in found} <= {3}
    kept = Counter(word for piece in found for word in piece.text.split())
    assert not Counter(text.split()) - kept or size[0] < 24  # words themselves may be cut in two


def test_pages_are_carried_over():
    document = ParsedDocument("t", (Section((), "one", 1), Section((), "word " * 20, 2)))
    assert [piece.page for piece in chunk(document, Words(), 16, 0)] == [1, 2, 2]


def test_code_is_cut_at_blank_lines():
    body = "def f():\n    return one + two"
    assert pieces(f"{body}\n\n{body}\n\n{body}", 16) == [body, body, body]


def test_a_long_text_is_tokenised_about_three_times_at_most():
    class Counted(Words):
        n_characters = 0

        def token_offsets(self, text: str) -> list[tuple[int, int]]:
            self.n_characters += len(text)
            assert len(text) < 40_000
            return super().token_offsets(text)

    for text in ("Some words of a sentence. " * 20_000, TABLE * 500, "x" * 300_000):
        counter = Counted()
        chunk(ParsedDocument("t", (Section((), text),)), counter, 200, 20)
        assert counter.n_characters < 4 * len(text)


def test_more_chunks_than_the_limit_are_refused():
    document = ParsedDocument("t", (Section((), "word " * 100),))
    assert len(chunk(document, Words(), 20, 0, 5)) == 5
    with pytest.raises(DocumentTooLarge, match="more than 4 chunks"):
        chunk(document, Words(), 20, 0, 4)


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
