"""What a file's bytes look like, whatever its name says."""

from __future__ import annotations

import re

from retrieval.errors import UnreadableDocument, UnsupportedDocument

_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_OFFICE = "EncryptedPackage".encode("utf-16-le")

# https://www.iana.org/assignments/media-types and each format's own specification.
_SIGNATURES = (
    (b"%PDF-", "a PDF"),
    (_OLE, "an Office document of the old kind (.doc, .xls, .ppt)"),
    (b"{\\rtf", "a Rich Text document"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"ID3", "an audio file"),
    (b"OggS", "an audio file"),
)
_CONTAINERS = (
    (b"word/document", ".docx", "a Word document"),
    (b"ppt/presentation", ".pptx", "a PowerPoint presentation"),
    (b"xl/workbook", ".xlsx", "an Excel workbook"),
    (b"application/epub+zip", ".epub", "an EPUB book"),
)
_NAMED = {".pdf": "a PDF"} | {suffix: kind for _, suffix, kind in _CONTAINERS}
_PDF_WITHIN_BYTES = 1024
_HTML = re.compile(rb"\s*<(?:!doctype html|html)", re.I)
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a]")


def looks_like(data: bytes) -> str:
    """The kind of file in words; empty for what may well be text."""
    if data.startswith(_ZIP):
        return next((kind for mark, _, kind in _CONTAINERS if mark in data), "a ZIP archive")
    if data.startswith(b"RIFF") and data[8:12] in (b"WEBP", b"WAVE", b"AVI "):
        return "an image, audio or video file"
    if data[4:8] == b"ftyp":
        return "a video file"
    if data.startswith(b"MZ") and b"\0" in data[:_PDF_WITHIN_BYTES]:
        return "a program"
    # Words may begin like these; text has no control characters.
    found = next((kind for mark, kind in _SIGNATURES if data.startswith(mark)), "")
    return "" if found == "an audio file" and not _CONTROLS.search(data[:_PDF_WITHIN_BYTES]) else found


def require_content(data: bytes, suffix: str) -> None:
    """Raises `UnreadableDocument` for empty and encrypted files; `UnsupportedDocument` for another kind of file."""
    if not data:
        raise UnreadableDocument("is empty, so it holds no text; add text to it or leave it out")
    expected = _NAMED.get(suffix, "")
    seen = looks_like(data)
    if suffix == ".pdf" and b"%PDF-" in data[:_PDF_WITHIN_BYTES]:
        return
    if data.startswith(_OLE) and _ENCRYPTED_OFFICE in data:
        raise UnreadableDocument("is encrypted; save it without a password")
    if expected and seen == "a ZIP archive" and suffix != ".pdf":
        return  # cut short, perhaps: its parser tells
    if seen != expected:
        what = seen or (
            "an HTML page" if _HTML.match(data) else "text" if not _CONTROLS.search(data) else "binary data"
        )
        named = expected or "text"
        raise UnsupportedDocument(
            f"looks like {what}, not like {named} as its name says; rename or convert it"
        )
