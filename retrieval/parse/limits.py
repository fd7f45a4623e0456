"""How much a document may cost, so that a hostile one cannot hurt the server."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """Above any of these a document is refused, or its parser is stopped."""

    max_bytes: int = 100 * _MIB
    """Of the file as it came."""
    max_unpacked_bytes: int = 512 * _MIB
    """Of all members of a ZIP container (DOCX, PPTX, XLSX, EPUB) together."""
    max_pages: int = 5_000
    """Pages of a PDF, slides, sheets, or chapters of a book."""
    max_characters: int = 20_000_000
    """Of the text that was found."""
    max_chunks: int = 50_000
    max_seconds: float = 120.0
    """Wall-clock and CPU time of parsing and cutting one document."""
    max_memory_bytes: int = 2048 * _MIB
    """Address space of the worker process."""


DEFAULT_LIMITS = ParseLimits()
