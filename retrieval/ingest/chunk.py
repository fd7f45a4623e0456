"""Cuts a parsed document into chunks that fit a share of the prompt, measured in the chat model's tokens.

A chunk never crosses a heading or a page. Small neighbouring sections are not merged either: a question-and-answer
page is then one passage per question, which a small embedding model finds best, and the heading path goes
into the vector, so that even a short chunk says where it is from.
"""

from __future__ import annotations

from collections.abc import Iterator

from retrieval.errors import DocumentTooLarge
from retrieval.ingest.cuts import Cuts
from retrieval.types import Chunk, ParsedDocument, TokenCounter

MIN_CHUNK_TOKENS = 16
_LIKELY_CHARACTERS_PER_TOKEN = 4


def require_sizes(chunk_tokens: int, overlap_tokens: int) -> None:
    """Raises `ValueError` for sizes that cannot work."""
    if chunk_tokens < MIN_CHUNK_TOKENS or not 0 <= overlap_tokens <= chunk_tokens // 2:
        raise ValueError(
            f"chunks of {chunk_tokens} tokens with an overlap of {overlap_tokens}: expected at least "
            f"{MIN_CHUNK_TOKENS} tokens and an overlap of at most half of them; change the chunk settings"
        )


def chunk(
    parsed: ParsedDocument,
    counter: TokenCounter,
    chunk_tokens: int,
    overlap_tokens: int,
    max_chunks: int = 2**31,
) -> list[Chunk]:
    """Chunks in reading order, each of 1 to `chunk_tokens` tokens.

    A section above the limit is split at paragraphs, else sentences or lines, else words, else tokens, and each
    piece begins with up to `overlap_tokens` of the one before. A table is split between its rows, and each piece
    begins with its first line instead; only a row above the limit is split itself. Each text is tokenised once
    to be cut, and each piece about once to be counted.
    Raises `ValueError` for sizes that cannot work; `DocumentTooLarge`, without the document's name.
    """
    require_sizes(chunk_tokens, overlap_tokens)
    chunks: list[Chunk] = []
    for section in parsed.sections:
        for text, n_tokens in _pieces(section.text.strip(), counter, chunk_tokens, overlap_tokens):
            if len(chunks) == max_chunks:
                raise DocumentTooLarge(
                    f"comes to more than {max_chunks} chunks; split it, or raise the limit or the chunk size"
                )
            chunks.append(Chunk(len(chunks), section.heading_path, text, n_tokens, section.page))
    return chunks


def _pieces(
    text: str, counter: TokenCounter, chunk_tokens: int, overlap_tokens: int
) -> Iterator[tuple[str, int]]:
    """The pieces of one section, each with its number of tokens."""
    if not text:
        return
    # A longer text hardly fits, so it is tokenised to be cut, and counted in pieces only.
    if len(text) <= chunk_tokens * _LIKELY_CHARACTERS_PER_TOKEN:
        n_tokens = counter.count_tokens(text)
        if n_tokens <= chunk_tokens:
            yield text, n_tokens
            return
    cuts = Cuts(text, counter)
    start = covered = 0
    while covered < len(text):
        end, piece, n_tokens = _cut(cuts, counter, start, chunk_tokens)
        if end <= covered:
            # The overlap filled the piece: go on without it.
            start = covered
            continue
        if piece:
            yield piece, n_tokens
        covered = end
        start = cuts.overlap_start(start, end, overlap_tokens)


def _cut(cuts: Cuts, counter: TokenCounter, start: int, chunk_tokens: int) -> tuple[int, str, int]:
    """The end of the longest well-cut piece from `start` that fits; its text; its number of tokens.

    A slice of the text may take more tokens on its own than it does in its place, so each candidate is
    counted, and the room is lowered by what it was over.
    """
    names, n_names = cuts.column_names(start, counter, chunk_tokens // 2)
    for above, n_above in [(f"{names}\n", n_names), ("", 0)] if names else [("", 0)]:
        room = chunk_tokens - n_above
        while room > 0:
            end = cuts.best_end(start, room)
            if end > start:
                piece = cuts.text[start:end].strip()
                piece = above + piece if piece else ""
                n_tokens = counter.count_tokens(piece)
                if n_tokens <= chunk_tokens:
                    return end, piece, n_tokens
                room -= n_tokens - chunk_tokens
            else:
                room -= 1
    end = start + 1
    n_tokens = counter.count_tokens(cuts.text[start:end].strip())
    if n_tokens > chunk_tokens:
        raise ValueError(
            f"the character {cuts.text[start]!r} alone takes more than {chunk_tokens} tokens; "
            "raise the chunk size"
        )
    return end, cuts.text[start:end].strip(), n_tokens
