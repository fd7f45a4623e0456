"""HTML to headings and readable text, as a reader of the page would see it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval.parse.outline import Outline

if TYPE_CHECKING:
    from bs4.element import PageElement, Tag

_DROPPED = frozenset(
    ["script", "style", "nav", "template", "noscript", "title", "svg", "iframe", "object", "canvas"]
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCK_NAMES = """
    address article aside blockquote body button caption center dd details dialog div dl dt fieldset
    figcaption figure footer form head header hr html legend li main menu ol option p pre section select
    summary table tbody textarea tfoot thead tr ul"""
_BLOCKS = frozenset([*_BLOCK_NAMES.split(), *_HEADINGS])
_UNSEEN_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|(font-size|opacity)\s*:\s*0(?![.\d])", re.I
)
_SPACES = re.compile(r" {2,}")
_ROW_END = re.compile(r"(?: \|)? *\n *(?:\| )?")
_SPACE = re.compile(r"[ \t\n]+")
_XML_DECLARATION = re.compile(r"<\?xml[^>]*>", re.I)


@dataclass(frozen=True, slots=True)
class _Block:
    level: int
    """1 to 6 for a heading, 0 for text."""
    text: str
    tight: bool


def read_html(markup: str, outline: Outline) -> str:
    """Fill the outline; the return is the page's `<title>`, or empty."""
    soup = _soup(markup)
    for block in _Reader().blocks(soup):
        if block.level:
            outline.heading(block.level, block.text)
        else:
            outline.block(block.text, tight=block.tight)
    return soup.title.get_text() if soup.title else ""


def html_text(markup: str) -> str:
    """The visible text of a fragment, as inside a Markdown document."""
    return "\n".join(block.text for block in _Reader().blocks(_soup(markup)))


def _soup(markup: str) -> Tag:
    from bs4 import BeautifulSoup

    # Both of Beautiful Soup's guesses at what the caller meant would be warnings: that a page with an XML
    # declaration is XML, and that a single line without tags is an address.
    return BeautifulSoup(_XML_DECLARATION.sub("", markup) + "\n", "html.parser")


@dataclass(frozen=True, slots=True)
class _End:
    """Marks, on the stack of nodes to visit, that a tag's content has been seen."""

    name: str
    is_cell: bool


class _Reader:
    """Visits a tree without recursion, for its depth is the document's choice, and yields its blocks."""

    def __init__(self) -> None:
        self._line: list[str] = []
        self._mark = ""
        self._tight = False
        self._n_lists = self._n_pre = self._n_cells = 0

    def blocks(self, root: Tag) -> Iterator[_Block]:
        from bs4.element import NavigableString, PreformattedString, Tag

        to_visit: list[PageElement | _End] = [root]
        while to_visit:
            node = to_visit.pop()
            if isinstance(node, _End):
                yield from self._leave(node)
            elif isinstance(node, NavigableString):
                if not isinstance(node, PreformattedString):  # comments, declarations, CDATA
                    self._line.append(str(node) if self._n_pre else _SPACE.sub(" ", str(node)))
            elif isinstance(node, Tag) and node.name not in _DROPPED and not _unseen(node):
                is_cell = node.name in ("td", "th") and (self._n_cells > 0 or _is_data_cell(node))
                yield from self._enter(node, is_cell)
                to_visit.append(_End(node.name, is_cell))
                to_visit.extend(reversed(node.contents))
        yield from self._flush()

    def _enter(self, tag: Tag, is_cell: bool) -> Iterator[_Block]:
        name = tag.name
        if name == "br":
            self._line.append(" " if self._n_cells else "\n")
        elif name == "img":
            self._line.append(f" {tag.get('alt') or ''} ")
        elif self._n_cells and name in _BLOCKS:
            self._line.append("\n" if name == "tr" else " ")
        elif self._n_cells and is_cell:  # HTML lets authors leave out </td> and </tr>
            self._line.append(" | ")
        elif name in _BLOCKS:
            yield from self._flush()
            self._tight = self._tight or name in ("li", "tr", "dd")
            if name == "li":
                self._mark = "  " * max(self._n_lists - 1, 0) + "- "
        self._n_cells += is_cell
        self._n_pre += name == "pre"
        self._n_lists += name in ("ul", "ol")

    def _leave(self, end: _End) -> Iterator[_Block]:
        name = end.name
        if name in _BLOCKS and self._n_cells:
            self._line.append(" ")
        elif name in _BLOCKS:
            yield from self._flush(_HEADINGS.get(name, 0), pre=name == "pre")
            if name == "li":
                self._mark = ""
        if end.is_cell and self._n_cells == 1:
            self._line.append(" | ")
        self._n_cells -= end.is_cell
        self._n_pre -= name == "pre"
        self._n_lists -= name in ("ul", "ol")

    def _flush(self, level: int = 0, *, pre: bool = False) -> Iterator[_Block]:
        text = "".join(self._line)
        self._line.clear()
        if pre:
            text = "\n".join(["```", text.strip("\n"), "```"]) if text.strip() else ""
        else:
            text = _ROW_END.sub("\n", _SPACES.sub(" ", text)).strip(" \n").removesuffix(" |")
        if text:
            yield _Block(level, text if level else self._mark + text, self._tight)
            self._mark, self._tight = "", False


def _is_data_cell(cell: Tag) -> bool:
    """A cell that holds the structure of a page (a table for layout) is not flattened into one line."""
    return cell.find([*_HEADINGS, "table", "ul", "ol", "pre", "article", "section"]) is None


def _unseen(tag: Tag) -> bool:
    style = tag.get("style")
    return tag.has_attr("hidden") or (isinstance(style, str) and _UNSEEN_STYLE.search(style) is not None)
