"""A file to a `ParsedDocument`: Markdown, HTML and plain text, decoded, cleaned and cut at its headings."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path, PurePath

from retrieval.errors import DocumentTooLarge, UnreadableDocument, UnsupportedDocument
from retrieval.outline import Outline, visible
from retrieval.types import ParsedDocument

PARSER_VERSION = 1
"""Raised when the same bytes are parsed differently than before, so that stored documents are renewed."""

MARKDOWN_SUFFIXES = frozenset({".md", ".markdown"})
TEXT_SUFFIXES = frozenset({".txt", ".text", ".rst"})
HTML_SUFFIXES = frozenset({".html", ".htm"})
SUFFIXES = MARKDOWN_SUFFIXES | TEXT_SUFFIXES | HTML_SUFFIXES

_PARAGRAPH_BREAK = re.compile(r"\n[ \t]*\n")


def supported(path: PurePath) -> bool:
    return path.suffix.lower() in SUFFIXES


def require_supported(path: PurePath) -> None:
    """Raises `UnsupportedDocument`."""
    if not supported(path):
        kind = f"'{path.suffix}' files" if path.suffix else "files without a suffix"
        raise UnsupportedDocument(
            f"{path}: no parser for {kind}; convert it to one of {', '.join(sorted(SUFFIXES))}"
        )


def read(path: Path, max_bytes: int) -> bytes:
    """The bytes of a regular file.

    Raises `UnreadableDocument`; `DocumentTooLarge` above `max_bytes`, without reading more than that.
    """
    try:
        # Opening a pipe or a device could wait for ever, so the kind is known before.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnreadableDocument(f"{path}: not a regular file; name a file or a folder of files")
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            data = file.read(max_bytes + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UnreadableDocument(f"{path}: {reason}; check that it exists and may be read") from error
    if len(data) > max_bytes:
        raise DocumentTooLarge(
            f"{path}: {max(size_bytes, len(data))} bytes, above the limit of {max_bytes}; "
            "split it or raise the document size limit"
        )
    return data


def parse(data: bytes, filename: PurePath) -> ParsedDocument:
    """Parse a document's bytes; the file name's suffix decides how, and names errors.

    Raises `UnsupportedDocument`; `UnreadableDocument` when the bytes are not UTF-8 text or hold no text.
    """
    require_supported(filename)
    text = _decode(data, filename)
    suffix = filename.suffix.lower()
    outline = Outline()
    title = ""
    try:
        if suffix in MARKDOWN_SUFFIXES:
            from retrieval.parse_markdown import read_markdown

            title = read_markdown(text, outline)
        elif suffix in HTML_SUFFIXES:
            from retrieval.parse_html import read_html

            title = read_html(text, outline)
        else:
            for paragraph in _PARAGRAPH_BREAK.split(text):
                outline.block(paragraph)
    except (ValueError, LookupError, AssertionError, RecursionError) as error:
        # Hostile markup finds the corners of any parser; it costs its own document, not the batch.
        raise UnreadableDocument(
            f"{filename}: its markup cannot be parsed ({type(error).__name__}); repair it or save it as .txt"
        ) from error
    document = outline.document(title or outline.first_heading or filename.stem)
    if not document.sections:
        raise UnreadableDocument(f"{filename}: holds no text; add text to it or leave it out")
    return document


def _decode(data: bytes, filename: PurePath) -> str:
    if b"\0" in data:
        raise UnreadableDocument(f"{filename}: holds NUL bytes, so it is not text; save it as UTF-8 text")
    try:
        return visible(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UnreadableDocument(
            f"{filename}: not UTF-8 text (byte {error.start}); save it with UTF-8 encoding"
        ) from error
