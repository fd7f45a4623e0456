"""A file to a `ParsedDocument`: by its suffix to a parser, decoded, cleaned and cut at its headings.

Parsers raise the errors of a document without its name; `parse` puts the name before the reason.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path, PurePath

from retrieval.errors import DocumentTooLarge, RetrievalError, UnreadableDocument
from retrieval.parse.decode import decode
from retrieval.parse.kinds import (
    CODE_SUFFIXES,
    HTML_SUFFIXES,
    JSON_LINES_SUFFIXES,
    MARKDOWN_SUFFIXES,
    MIME_TYPES,
    SUFFIXES,
    TABLE_SUFFIXES,
    require_supported,
    supported,
)
from retrieval.parse.limits import DEFAULT_LIMITS, ParseLimits
from retrieval.parse.outline import Outline
from retrieval.parse.sniff import require_content
from retrieval.types import ParsedDocument

__all__ = [
    "MIME_TYPES",
    "PARSER_VERSION",
    "SUFFIXES",
    "parse",
    "read",
    "require_supported",
    "supported",
]

PARSER_VERSION = 2
"""Raised when the same bytes are parsed or cut differently than before, so that stored documents are renewed."""

_PARAGRAPH_BREAK = re.compile(r"\n[ \t]*\n")


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
        raise too_large(path, max(size_bytes, len(data)), max_bytes)
    return data


def too_large(path: PurePath, size_bytes: int, max_bytes: int) -> DocumentTooLarge:
    return DocumentTooLarge(
        f"{path}: {size_bytes} bytes, above the limit of {max_bytes}; "
        "split it or raise the document size limit"
    )


def parse(data: bytes, filename: PurePath, limits: ParseLimits = DEFAULT_LIMITS) -> ParsedDocument:
    """Parse a document's bytes; the file name's suffix decides how, and names errors.

    Hostile bytes may take time and memory: a `Preparer` bounds both. Raises `UnsupportedDocument`,
    `UnreadableDocument`, `DocumentTooLarge`.
    """
    require_supported(filename)
    if len(data) > limits.max_bytes:
        raise too_large(filename, len(data), limits.max_bytes)
    outline = Outline(limits.max_characters)
    suffix = filename.suffix.lower()
    try:
        require_content(data, suffix)
        title = _read(data, suffix, outline, limits)
    except RetrievalError as error:
        raise type(error)(f"{filename}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        # Hostile bytes find the corners of any library, and what it raises there is in no contract. It costs
        # its own document, not the batch.
        raise UnreadableDocument(
            f"{filename}: damaged, its content cannot be parsed ({type(error).__name__}); "
            "repair it or save it anew"
        ) from error
    default = filename.name if suffix in CODE_SUFFIXES else outline.first_heading or filename.stem
    document = outline.document(title or default)
    if not document.sections:
        raise UnreadableDocument(f"{filename}: holds no text; add text to it or leave it out")
    return document


def _read(data: bytes, suffix: str, outline: Outline, limits: ParseLimits) -> str:
    """Fill the outline; the return is the title that the document gives itself, or empty."""
    match suffix:
        case ".pdf":
            from retrieval.parse.pdf import read_pdf

            return read_pdf(data, outline, limits)
        case ".docx":
            from retrieval.parse.docx import read_docx

            return read_docx(data, outline, limits)
        case ".pptx":
            from retrieval.parse.pptx import read_pptx

            return read_pptx(data, outline, limits)
        case ".xlsx":
            from retrieval.parse.xlsx import read_xlsx

            return read_xlsx(data, outline, limits)
        case ".epub":
            from retrieval.parse.epub import read_epub

            return read_epub(data, outline, limits)
        case _:
            return _read_text(decode(data), suffix, outline)


def _read_text(text: str, suffix: str, outline: Outline) -> str:
    if suffix in MARKDOWN_SUFFIXES:
        from retrieval.parse.markdown import read_markdown

        return read_markdown(text, outline)
    if suffix in HTML_SUFFIXES:
        from retrieval.parse.html import read_html

        return read_html(text, outline)
    if suffix in TABLE_SUFFIXES:
        from retrieval.parse.rows import read_csv

        read_csv(text, outline, tabs=suffix == ".tsv")
    elif suffix == ".json" or suffix in JSON_LINES_SUFFIXES:
        from retrieval.parse.json import read_json

        read_json(text, outline, lines=suffix != ".json")
    elif suffix in CODE_SUFFIXES:
        from retrieval.parse.code import read_code

        read_code(text, suffix, outline)
    else:
        for paragraph in _PARAGRAPH_BREAK.split(text):
            outline.block(paragraph)
    return ""
