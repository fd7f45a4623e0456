"""Where the text of a section may be cut."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from retrieval.types import TokenCounter

_PARAGRAPH_END = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE_END = re.compile(r"[.!?…]['\"”’)\]]*\s+(?=[^a-z\s])|[。！？]\s*|\n\s*")
_SPACE = re.compile(r"\s")

# As the parsers write tables: two lines or more, cells parted by " | ", and no indentation, as code would have.
_TABLE = re.compile(r"^(?>[^\s>`][^\n]*? \| [^\n]*(?:\n|\Z)){2,}", re.M)
_NAMES_ITSELF = re.compile(r"[^|:\n]{1,80}: [^\n]*? \| [^|:\n]{1,80}: ")
"""A row that gives a name to each value needs no line of names above it."""

_TOKENISED_CHARACTERS = 32_768
"""At a time: the spans of a long text's tokens, as objects, would take a hundred times its size."""


class Cuts:
    """Character positions after paragraphs, after sentences and lines, and between tokens."""

    def __init__(self, text: str, counter: TokenCounter) -> None:
        self.text = text
        self._tables = [found.span() for found in _TABLE.finditer(text)]
        self._names: dict[int, tuple[str, int]] = {}
        self._paragraphs = array("q", (found.end() for found in _PARAGRAPH_END.finditer(text)))
        self._sentences = array("q", self._sentence_ends())
        self._tokens = array("q", _token_starts(text, counter))

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
        table = self._table_at(end)
        if not overlap_tokens or end >= len(self.text) or (table and table[0] < end):
            return end
        earliest = max(self._position(bisect_left(self._tokens, end) - overlap_tokens), start + 1)
        nearest = bisect_left(self._sentences, earliest)
        if nearest < len(self._sentences) and self._sentences[nearest] < end:
            return self._sentences[nearest]
        space = _SPACE.search(self.text, earliest - 1, end)
        return space.end() if space else end

    def column_names(self, start: int, counter: TokenCounter, most_tokens: int) -> tuple[str, int]:
        """The first line of the table that `start` is inside of, and its tokens; empty outside of one, and for a
        line that is too long."""
        table = self._table_at(start)
        if not table or start < self._first_line_end(table):
            return "", 0
        if table[0] not in self._names:
            line = self.text[table[0] : self._first_line_end(table)].strip()
            n_tokens = 0 if _NAMES_ITSELF.match(line) else counter.count_tokens(line)
            self._names[table[0]] = (line, n_tokens) if 0 < n_tokens <= most_tokens else ("", 0)
        return self._names[table[0]]

    def _first_line_end(self, table: tuple[int, int]) -> int:
        return self.text.index("\n", table[0]) + 1

    def _table_at(self, position: int) -> tuple[int, int] | None:
        nearest = bisect_right(self._tables, position, key=lambda table: table[0]) - 1
        if nearest < 0 or position >= self._tables[nearest][1]:
            return None
        return self._tables[nearest]

    def _sentence_ends(self) -> Iterator[int]:
        """Of a table, the ends of its rows only, and not the end of its first line."""
        for found in _SENTENCE_END.finditer(self.text):
            table = self._table_at(found.start())
            if not table or ("\n" in found[0] and found.end() != self._first_line_end(table)):
                yield found.end()

    def _position(self, token: int) -> int:
        if token >= len(self._tokens):
            return len(self.text)
        return self._tokens[max(token, 0)]

    def _word_end(self, start: int, limit: int) -> int:
        for position in range(limit, start, -1):
            if self.text[position - 1].isspace():
                return position
        return limit


def _token_starts(text: str, counter: TokenCounter) -> Iterator[int]:
    """Of a long text, tokenised in parts that end at a space where there is one."""
    at = 0
    while at < len(text):
        end = min(at + _TOKENISED_CHARACTERS, len(text))
        if end < len(text):
            space = max(text.rfind("\n", at, end), text.rfind(" ", at, end))
            end = space if space > at else end
        for start, _ in counter.token_offsets(text[at:end]):
            yield at + start
        at = end
