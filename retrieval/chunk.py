"""Cuts a parsed document into chunks that fit a share of the prompt, measured in the chat model's tokens.

A chunk never crosses a heading. Small neighbouring sections are not merged either: a question-and-answer
page is then one passage per question, which a small embedding model finds best, and the heading path goes
into the vector, so that even a short chunk says where it is from.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from retrieval.types import Chunk, ParsedDocument, TokenCounter

MIN_CHUNK_TOKENS = 16

_PARAGRAPH_END = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE_END = re.compile(r"[.!?…]['\"”’)\]]*\s+(?=[^a-z\s])|[。！？]\s*|\n\s*")
_SPACE = re.compile(r"\s")


def chunk(
    parsed: ParsedDocument, counter: TokenCounter, chunk_tokens: int, overlap_tokens: int
) -> list[Chunk]:
    """Chunks in reading order, each of 1 to `chunk_tokens` tokens.

    A section above the limit is split at paragraphs, else sentences, else words, else tokens, and each piece
    begins with up to `overlap_tokens` of the one before. Raises `ValueError` for sizes that cannot work.
    """
    if chunk_tokens < MIN_CHUNK_TOKENS or not 0 <= overlap_tokens <= chunk_tokens // 2:
        raise ValueError(
            f"chunks of {chunk_tokens} tokens with an overlap of {overlap_tokens}: expected at least "
            f"{MIN_CHUNK_TOKENS} tokens and an overlap of at most half of them; change the chunk settings"
        )
    chunks: list[Chunk] = []
    for section in parsed.sections:
        for text in _pieces(section.text.strip(), counter, chunk_tokens, overlap_tokens):
            chunks.append(Chunk(len(chunks), section.heading_path, text, counter.count_tokens(text)))
    return chunks


def chunk_text_for_embedding(title: str, chunk: Chunk) -> str:
    """What the vector is made of: title, heading path and text, so that it knows where the chunk is from."""
    path = chunk.heading_path
    if path and path[0] == title:
        path = path[1:]
    return "\n".join(line for line in (title, " > ".join(path), chunk.text) if line)


def _pieces(text: str, counter: TokenCounter, chunk_tokens: int, overlap_tokens: int) -> Iterator[str]:
    if not text:
        return
    if counter.count_tokens(text) <= chunk_tokens:
        yield text
        return
    cuts = _Cuts(text, counter)
    start = covered = 0
    while covered < len(text):
        end = _end(cuts, counter, start, chunk_tokens)
        if end <= covered:
            # The overlap filled the piece: go on without it.
            start = covered
            continue
        if piece := text[start:end].strip():
            yield piece
        covered = end
        start = cuts.overlap_start(start, end, overlap_tokens)


def _end(cuts: _Cuts, counter: TokenCounter, start: int, chunk_tokens: int) -> int:
    """The end of the longest well-cut piece from `start` that fits.

    A slice of the text may take more tokens on its own than it does in its place, so each candidate is
    counted, and the room is lowered by what it was over.
    """
    room = chunk_tokens
    while room > 0:
        end = cuts.best_end(start, room)
        if end > start:
            over = counter.count_tokens(cuts.text[start:end].strip()) - chunk_tokens
            if over <= 0:
                return end
            room -= over
        else:
            room -= 1
    end = start + 1
    if counter.count_tokens(cuts.text[start:end]) > chunk_tokens:
        raise ValueError(
            f"the character {cuts.text[start]!r} alone takes more than {chunk_tokens} tokens; "
            "raise the chunk size"
        )
    return end


class _Cuts:
    """Where a section may be cut: character positions after paragraphs and sentences, and between tokens."""

    def __init__(self, text: str, counter: TokenCounter) -> None:
        self.text = text
        self._paragraphs = [found.end() for found in _PARAGRAPH_END.finditer(text)]
        self._sentences = [found.end() for found in _SENTENCE_END.finditer(text)]
        self._tokens = [start for start, _ in counter.token_offsets(text)]

    def best_end(self, start: int, room_tokens: int) -> int:
        """The best place to end a piece of at most `room_tokens`: a good cut that leaves it half full, else
        any good cut, else the last word, else the last token."""
        first = max(bisect_right(self._tokens, start) - 1, 0)
        limit = self._position(first + room_tokens)
        if limit >= len(self.text):
            return len(self.text)
        half = self._position(first + room_tokens // 2)
        for after in (half, start):
            for cuts in (self._paragraphs, self._sentences):
                nearest = bisect_right(cuts, limit) - 1
                if nearest >= 0 and cuts[nearest] > after:
                    return cuts[nearest]
        return self._word_end(start, limit)

    def overlap_start(self, start: int, end: int, overlap_tokens: int) -> int:
        """Where the next piece begins: at a sentence within the overlap, else at a word, else at `end`."""
        if not overlap_tokens or end >= len(self.text):
            return end
        earliest = max(self._position(bisect_left(self._tokens, end) - overlap_tokens), start + 1)
        nearest = bisect_left(self._sentences, earliest)
        if nearest < len(self._sentences) and self._sentences[nearest] < end:
            return self._sentences[nearest]
        space = _SPACE.search(self.text, earliest - 1, end)
        return space.end() if space else end

    def _position(self, token: int) -> int:
        if token >= len(self._tokens):
            return len(self.text)
        return self._tokens[max(token, 0)]

    def _word_end(self, start: int, limit: int) -> int:
        for position in range(limit, start, -1):
            if self.text[position - 1].isspace():
                return position
        return limit
