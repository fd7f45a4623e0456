"""Bytes to text."""

from __future__ import annotations

import codecs

from retrieval.errors import UnreadableDocument
from retrieval.parse.outline import visible

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: it begins with that one's mark
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GUESSED_FROM_BYTES = 64 * 1024
_GUESSED_FROM_AT_LEAST = 48
_MOST_CHAOS = 0.1
_MANY_MULTI_BYTES = 0.3
_COMMONEST = "cp1252"
_LEAD = 0.1
_NEXT_STEP = "save it with UTF-8 encoding"


def decode(data: bytes) -> str:
    """UTF-8, what a byte order mark says, or a legacy encoding that the bytes are clearly in.

    Raises `UnreadableDocument`.
    """
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "")
    if not encoding and b"\0" in data:
        raise UnreadableDocument(f"holds NUL bytes, so it is not text; {_NEXT_STEP}")
    try:
        return visible(data.decode(encoding or "utf-8"))
    except UnicodeDecodeError as error:
        guessed = None if encoding else _guessed(data)
        if guessed is None:
            raise UnreadableDocument(
                f"not {(encoding or 'utf-8').removesuffix('-sig').upper()} text (byte {error.start}); {_NEXT_STEP}"
            ) from error
        return visible(guessed)


def _guessed(data: bytes) -> str | None:
    """Too few bytes fit too many encodings, so those are not guessed at."""
    if len(data) < _GUESSED_FROM_AT_LEAST:
        return None
    from charset_normalizer import from_bytes

    matches = from_bytes(data[:_GUESSED_FROM_BYTES], threshold=_MOST_CHAOS)
    best = matches.best()
    if best is None or not (best.coherence or best.multi_byte_usage > _MANY_MULTI_BYTES):
        return None
    # Of two that fit about as well, the one that most such files are in.
    likely = next((match for match in matches if _COMMONEST in match.could_be_from_charset), best)
    fits = likely.chaos <= best.chaos and likely.coherence >= best.coherence - _LEAD
    try:
        return data.decode(_COMMONEST if fits and likely is not best else best.encoding)
    except (UnicodeDecodeError, LookupError):
        return None
