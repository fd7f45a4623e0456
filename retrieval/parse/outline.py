"""Collects the text blocks of one document under their headings.

Retrieved text is data that a model will read, so characters a person cannot see are taken out here: they
are the usual carrier of smuggled instructions (Unicode tags, zero-width and bidirectional controls,
variation selectors; see https://www.unicode.org/reports/tr36/ and https://trojansource.codes/).
"""

from __future__ import annotations

import re

from retrieval.errors import DocumentTooLarge
from retrieval.types import ParsedDocument, Section

_HEADING_CHARACTERS = 200
"""A heading stands in every chunk below it; longer ones are text that was only set like one."""

_LINE_BREAKS = re.compile("[\r\v\f\x1c-\x1e\x85\u2028\u2029](?:(?<=\r)\n)?")

# ZWNJ and ZWJ spell words in Arabic and Indic scripts: they stay between two letters of such a script.
_JOINED = (
    "\u0590-\u061b\u061d-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u17b3\u17b6-\u17ff\u1800-\u180a\u1810-\u18af"
)
_JOINERS = "\u200c\u200d"
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f"  # controls
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0"  # fillers, joiners without a shape
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb"  # zero width, bidirectional
    "\ufe00-\ufe0f\U000e0000-\U000e0fff"  # variation selectors, tags
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # format controls
    "\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff"  # private use, noncharacters
    "\ud800-\udfff]"  # lone surrogates, which UTF-8 cannot hold
    f"(?:(?<![{_JOINERS}])|(?<![{_JOINED}][{_JOINERS}])|(?![{_JOINED}]))"
)
_TRAILING_SPACE = re.compile(r"(?<![ \t])[ \t]++(?=\n|\Z)")
_BLANK_LINES = re.compile(r"\n{3,}")


def visible(text: str) -> str:
    """The text without characters that a reader cannot see; every kind of line break becomes `\\n`."""
    return _INVISIBLE.sub("", _LINE_BREAKS.sub("\n", text))


def _shortened(title: str) -> str:
    if len(title) <= _HEADING_CHARACTERS:
        return title
    return title[:_HEADING_CHARACTERS].rsplit(" ", 1)[0] + "…"


class Outline:
    """Builds sections from headings and blocks in reading order.

    Raises `DocumentTooLarge`, without the document's name, when the text comes to more than `max_characters`.
    """

    def __init__(self, max_characters: int = 2**31) -> None:
        self._path: list[tuple[int, str]] = []
        self._blocks: list[str] = []
        self._sections: list[Section] = []
        self._page: int | None = None
        self._heading_page: int | None = None
        self._heading_said = True
        self._max_characters = max_characters
        self._n_characters = 0
        self.first_heading = ""
        """The first heading of level 1, else the first heading of all; empty when there is none."""
        self._first_level = 7

    def page(self, number: int) -> None:
        """What follows is on this page, in a section of its own."""
        if self._blocks:
            self._end_section(deeper=False)
        self._page = number

    def heading(self, level: int, text: str) -> None:
        """Start a section under a heading of the given level, 1 to 6."""
        title = " ".join(visible(text).split())
        if not title:
            return
        whole, title = title, _shortened(title)
        self._end_section(deeper=level > self._level)
        while self._path and self._path[-1][0] >= level:
            self._path.pop()
        self._path.append((level, title))
        self._heading_page, self._heading_said = self._page, False
        if not self.first_heading or (level == 1 and self._first_level > 1):
            self.first_heading, self._first_level = title, level
        if title != whole:
            self.block(whole)

    def block(self, text: str, *, tight: bool = False) -> None:
        """Add a paragraph; a tight one (list item, table row) stands on the line after the one before."""
        text = _TRAILING_SPACE.sub("", visible(text)).strip("\n")
        text = _BLANK_LINES.sub("\n\n", text)
        if not text.strip():
            return
        self._n_characters += len(text)
        if self._n_characters > self._max_characters:
            raise DocumentTooLarge(
                f"its text is longer than the limit of {self._max_characters} characters; "
                "split it or raise the limit"
            )
        if self._blocks:
            self._blocks.append("\n" if tight else "\n\n")
        self._blocks.append(text)

    def document(self, title: str) -> ParsedDocument:
        self._end_section(deeper=False)
        title = " ".join(visible(title).split())
        return ParsedDocument(_shortened(title), tuple(self._sections))

    @property
    def _level(self) -> int:
        return self._path[-1][0] if self._path else 0

    def _end_section(self, *, deeper: bool) -> None:
        path = tuple(title for _, title in self._path)
        if self._blocks:
            self._sections.append(Section(path, "".join(self._blocks), self._page))
            self._heading_said = True
        elif path and not deeper and not self._heading_said:
            # A heading with nothing below it is still something the document says.
            self._sections.append(Section(path, path[-1], self._heading_page))
            self._heading_said = True
        self._blocks.clear()
