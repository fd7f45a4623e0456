"""PDF to text by page, under its bookmarks.

Divergences from the page as printed: headers and footers that repeat are left out, words that were hyphenated
at the end of a line are whole again, and a line that clearly runs on is joined with the next. Pictures of text
are not read.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import closing

from retrieval.errors import DocumentTooLarge, UnreadableDocument
from retrieval.parse.limits import ParseLimits
from retrieval.parse.outline import Outline, visible

Bookmarks = dict[int, list[tuple[int, str]]]
"""By page index, from 0: the level, from 1, and the title of each."""

_MAX_BOOKMARKS = 20_000
_MARGIN_LINES = 2
_REPEATS_FROM_PAGES = 4
# PDFium writes U+FFFE, or U+0002 in older versions, for a hyphen that only the end of the line made.
_HYPHEN = re.compile("[\x02\xad\ufffe](?:\r?\n)?")
_RUNS_ON = re.compile(r"(?<=[^\s.!?:;|])\n(?=[^\W\d_A-Z])")
_DIGITS = re.compile(r"\d+")


def read_pdf(data: bytes, outline: Outline, limits: ParseLimits) -> str:
    """Fill the outline; the return is the title of the PDF's metadata, or empty."""
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        pdf = PdfDocument(data)
    except PdfiumError as error:
        raise _unreadable(error) from error
    with closing(pdf):
        if len(pdf) > limits.max_pages:
            raise DocumentTooLarge(
                f"{len(pdf)} pages, above the limit of {limits.max_pages}; split it or raise the limit"
            )
        pages = _pages(pdf, limits)
        if not any(page.strip() for page in pages):
            raise UnreadableDocument(
                f"has no text layer on its {len(pages)} pages, so it is pictures of text or blank; "
                "run text recognition (OCR) over it"
            )
        bookmarks = _bookmarks(pdf)
        title: str = pdf.get_metadata_value("Title")
    repeated = _repeated(pages)
    for index, page in enumerate(pages):
        outline.page(index + 1)
        lines = _without_margins(page.split("\n"), repeated)
        _add_page(lines, bookmarks.get(index, []), outline)
    return title.strip()


def _unreadable(error: RuntimeError) -> UnreadableDocument:
    from pypdfium2.raw import FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY

    if getattr(error, "err_code", None) in (FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY):
        return UnreadableDocument("is encrypted; save it without a password")
    return UnreadableDocument("is damaged or cut short; get a complete copy")


def _pages(pdf: object, limits: ParseLimits) -> list[str]:
    pages = []
    n_characters = 0
    for page in pdf:  # type: ignore[attr-defined]
        with closing(page), closing(page.get_textpage()) as text_page:
            text = visible(_HYPHEN.sub("", text_page.get_text_bounded()))
        n_characters += len(text)
        if n_characters > limits.max_characters:
            raise DocumentTooLarge(
                f"its text is longer than the limit of {limits.max_characters} characters; "
                "split it or raise the limit"
            )
        pages.append("\n".join(line.strip() for line in text.split("\n")))
    return pages


def _bookmarks(pdf: object) -> Bookmarks:
    found: Bookmarks = {}
    for number, bookmark in enumerate(pdf.get_toc(max_depth=6)):  # type: ignore[attr-defined]
        if number == _MAX_BOOKMARKS:
            break
        target = bookmark.get_dest()
        index = target.get_index() if target else None
        if index is not None:
            found.setdefault(index, []).append((bookmark.level + 1, bookmark.get_title()))
    return found


def _add_page(lines: list[str], bookmarks: list[tuple[int, str]], outline: Outline) -> None:
    """Each bookmark begins where its title stands on the page, else where the one before it does."""
    at = 0
    for level, title in bookmarks:
        wanted = _plain(title)
        found = next((n for n in range(at, len(lines)) if wanted and _plain(lines[n]) == wanted), None)
        if found is not None:
            _add_lines(lines[at:found], outline)
            at = found + 1
        outline.heading(level, title)
    _add_lines(lines[at:], outline)


def _add_lines(lines: list[str], outline: Outline) -> None:
    outline.block(_RUNS_ON.sub(" ", "\n".join(lines)))


def _plain(text: str) -> str:
    return "".join(letter for letter in visible(text).casefold() if letter.isalpha())


def _repeated(pages: list[str]) -> set[str]:
    """Lines, without their numbers, that stand at the top or the bottom of more than half of the pages."""
    if len(pages) < _REPEATS_FROM_PAGES:
        return set()
    counts: Counter[str] = Counter()
    for page in pages:
        lines = [line for line in page.split("\n") if line]
        counts.update({_shape(line) for line in lines[:_MARGIN_LINES] + lines[-_MARGIN_LINES:]})
    return {shape for shape, count in counts.items() if count > len(pages) // 2}


def _without_margins(lines: list[str], repeated: set[str]) -> list[str]:
    """A page that is nothing else keeps its lines."""
    said = [n for n, line in enumerate(lines) if line]
    margins = {*said[:_MARGIN_LINES], *said[-_MARGIN_LINES:]}
    dropped = {n for n in margins if _shape(lines[n]) in repeated}
    return lines if len(dropped) == len(said) else [line for n, line in enumerate(lines) if n not in dropped]


def _shape(line: str) -> str:
    return _DIGITS.sub("#", line)
